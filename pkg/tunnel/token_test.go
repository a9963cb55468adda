package tunnel_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// A session goes on with a token for each of its connections, of an issuer that the server
// trusts, until the line that lets it in is taken out. A source that fails is asked again.
func TestTokenSource(t *testing.T) {
	i := rig.StartIssuer(t)
	for _, transport := range []tunnel.Transport{tunnel.Raw, tunnel.WebSocket, tunnel.PTTH} {
		t.Run(string(transport), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens")
			rewrite := func(content string) {
				if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			rewrite("oidc=" + i.URL + " aud=tunnel claim:repository=acme/shop name=shop-*")
			tokens, err := auth.OpenTokens(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := start(t, server.Config{Auth: tokens, Hold: time.Minute, Park: patience})
			r := newRelay(t, n.addr)
			told := newEvents()
			var broken atomic.Bool
			var given, failed atomic.Int32
			c := &tunnel.Client{Server: r.url(), Transport: transport, Events: told.tell, TokenSource: func(context.Context) (string, error) {
				if broken.Load() {
					failed.Add(1)
					return "", errors.New("out of order")
				}
				given.Add(1)
				return i.Token(map[string]any{"aud": "tunnel", "repository": "acme/shop"}), nil
			}}
			if err := c.Serve(t.Context(), tunnel.Options{Name: "web-1"}, hello); codeOf(err) != protocol.Forbidden {
				t.Errorf("a name that the line does not give: %v", err)
			}
			served := make(chan error, 1)
			go func() { served <- c.Serve(t.Context(), tunnel.Options{Name: "shop-1"}, hello) }()
			told.next(t, tunnel.Ready)
			broken.Store(true)
			before, mistakes := given.Load(), failed.Load()
			r.cut()
			told.next(t, tunnel.Disconnected)
			poll.Until(t, "the source is asked again", func() bool { return failed.Load() >= mistakes+2 })
			broken.Store(false)
			told.next(t, tunnel.Reconnected)
			if given.Load() == before {
				t.Error("it is back without a new token")
			}
			if status, body := n.get(t, "shop-1", "/"); status != 200 || body != "hello" {
				t.Errorf("got %d %q", status, body)
			}
			rewrite("another-token")
			told.next(t, tunnel.Disconnected)
			if code := codeOf(told.next(t, tunnel.Closed).Err); code != protocol.TokenRevoked && code != protocol.Unauthorized {
				t.Errorf("without its line it is closed because of %q", code)
			}
			wait(t, "Serve", served)
		})
	}
}

func TestTokenSourceFails(t *testing.T) {
	n := start(t, server.Config{})
	source := func(token string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return token, err }
	}
	out := errors.New("out of order")
	for name, f := range map[string]func(context.Context) (string, error){
		"an error": source("", out), "nothing": source("", nil), "two lines": source("a\nb", nil),
	} {
		c := &tunnel.Client{Server: n.url(), TokenSource: f}
		err := c.Check(t.Context())
		var token *tunnel.TokenError
		if !errors.As(err, &token) || errors.Is(err, tunnel.ErrUnreachable) || name == "an error" && !errors.Is(err, out) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := &tunnel.Client{Server: n.url(), Token: "a-token", TokenSource: source("another", nil)}
	var config *tunnel.ConfigError
	if err := c.Validate(); !errors.As(err, &config) {
		t.Errorf("a token and a source: %v", err)
	}
	// One that hangs has no more time than it is said to have.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c = &tunnel.Client{Server: n.url(), TokenSource: func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}}
	if _, err := c.Listen(ctx, tunnel.Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it hangs: %v", err)
	}
}
