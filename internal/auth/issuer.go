package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// askEvery is how seldom an issuer is asked, at most: clients choose what keys they
	// say their tokens have.
	askEvery = 10 * time.Second
	// askTime bounds asking. A client has it within its own time for an attempt.
	askTime = 5 * time.Second
	// maxAnswer bounds what an issuer may answer, in bytes.
	maxAnswer = 256 << 10
	// keysFresh is how long keys are taken without asking again, and keysLast how long
	// where the issuer does not answer: it may have taken one back.
	keysFresh = time.Hour
	keysLast  = 24 * time.Hour
)

// issuer is one that a token file names, with the keys of its tokens (OpenID Connect
// Discovery 1.0).
type issuer struct {
	url    string
	client *http.Client
	log    *slog.Logger

	mu     sync.Mutex                 // guards the following
	keys   map[string]jose.JSONWebKey // by kid
	read   time.Time                  // when keys were asked for; zero: there are none
	asked  time.Time                  // when it was asked last
	asking chan struct{}              // closed when it has answered; nil: nothing is under way
}

// issuersClient goes to issuers. A redirect would lead to where the file does not say.
func issuersClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// prepare asks for the keys where kid is none of them, or they are old, and it may. Who
// comes meanwhile waits for the same answer; not who has a key that will do.
func (i *issuer) prepare(ctx context.Context, kid string) {
	i.mu.Lock()
	_, known := i.keys[kid]
	known = known && time.Since(i.read) < keysLast
	asking := i.asking
	switch {
	case known && (asking != nil || time.Since(i.read) < keysFresh):
		i.mu.Unlock()
		return
	case asking != nil:
		i.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
		}
		return
	case !i.asked.IsZero() && time.Since(i.asked) < askEvery:
		i.mu.Unlock()
		return
	}
	asking = make(chan struct{})
	i.asking, i.asked = asking, time.Now()
	i.mu.Unlock()
	i.ask(ctx, asking)
}

// ask asks for the keys, and closes asking. It is for others, too, who wait on when this
// client has gone.
func (i *issuer) ask(ctx context.Context, asking chan struct{}) {
	var keys map[string]jose.JSONWebKey
	began := time.Now()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if keys != nil {
			i.keys, i.read = keys, began
		}
		i.asking = nil
		close(asking)
	}()
	keys, err := i.fetch(context.WithoutCancel(ctx))
	if err != nil {
		i.log.Warn("the keys of an issuer cannot be had, so its tokens may not be told", "issuer", i.url, "err", err)
	}
}

// key returns the one that a was signed with, if its claims are true. Only keys that were
// asked for after it was issued say that there is no such key.
func (i *issuer) key(a *assertion) (*jose.JSONWebKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key, known := i.keys[a.head.KeyID]
	switch {
	case i.read.IsZero() || time.Since(i.read) >= keysLast:
		return nil, i.unavailable("the server cannot get the keys of the token's issuer now")
	case known && key.Algorithm != "" && key.Algorithm != a.head.Algorithm:
		return nil, refused("the token's algorithm (alg) is not that of its key", "get a new token")
	case known:
		return &key, nil
	case a.claims.IssuedAt.Time().Before(i.read):
		return nil, refused("the token's key (kid) is none of its issuer's", "get a new token")
	}
	return nil, i.unavailable("the server has not asked for the keys of the token's issuer since it was issued")
}

func (i *issuer) unavailable(message string) error {
	return &protocol.Error{Code: protocol.AuthUnavailable, Message: message, Hint: "try again in a moment; the server's log says what is wrong with the issuer"}
}

// fetch asks the issuer for its keys.
func (i *issuer) fetch(ctx context.Context) (map[string]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var about struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := i.get(ctx, strings.TrimSuffix(i.url, "/")+"/.well-known/openid-configuration", &about); err != nil {
		return nil, err
	}
	if about.Issuer != i.url {
		return nil, fmt.Errorf("it says that it is the issuer %q: write it like that in the token file, if that is intended", about.Issuer)
	}
	u, err := url.Parse(about.Keys)
	if err != nil || !secure(u) || u.Scheme == "http" && strings.HasPrefix(i.url, "https:") {
		return nil, errors.New("its jwks_uri is no https:// URL")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := i.get(ctx, about.Keys, &set); err != nil {
		return nil, err
	}
	keys := make(map[string]jose.JSONWebKey)
	for _, raw := range set.Keys {
		var key jose.JSONWebKey // one of a kind that is not known is no use, and no harm
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys[key.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no public key for signatures")
	}
	return keys, nil
}

func (i *issuer) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := i.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: it answered %s", url, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("its answer is over %d bytes", maxAnswer)
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}
