package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/pkg/protocol"
)

const audience = "https://tunnel.example.com"

// line is one of a token file for i.
func line(i *rig.Issuer, rest string) string {
	return "oidc=" + i.URL + " aud=" + audience + " " + rest + "\n"
}

// shop are the claims of a token that may come in.
func shop(more map[string]any) map[string]any {
	claims := map[string]any{"aud": audience, "repository": "acme/shop", "sub": "repo:acme/shop:pull_request"}
	maps.Copy(claims, more)
	return claims
}

// enter is what a client at the door does.
func enter(t *testing.T, tokens *Tokens, token string) (Identity, error) {
	t.Helper()
	tokens.Prepare(t.Context(), token)
	return tokens.Authenticate(token, "session")
}

func wantEntry(t *testing.T, tokens *Tokens, token string) Identity {
	t.Helper()
	id, err := enter(t, tokens, token)
	if err != nil || !tokens.Valid(id) {
		t.Fatalf("got %v, %v", id, err)
	}
	return id
}

func wantNoEntry(t *testing.T, tokens *Tokens, token string, code protocol.Code, says string) {
	t.Helper()
	id, err := enter(t, tokens, token)
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, says) || id != (Identity{}) {
		t.Errorf("got %v, %v; want %s with %q", id, err, code, says)
	} else if strings.Contains(e.Error()+e.Hint, token) || strings.Contains(e.Error(), "eyJ") {
		t.Errorf("%v shows the token", err)
	}
}

// Who shows a token of an issuer is let in by the line that it fits, with the line's rights.
func TestIssuedTokens(t *testing.T) {
	i := rig.StartIssuer(t)
	tokens := open(t, tokenFile(t, alpha+"\n"+
		line(i, "claim:repository=acme/web claim:ref=refs/heads/main domain=web.example.org")+
		line(i, "claim:repository=acme/shop,acme/store-* name=shop-*")+
		line(i, "claim:groups=admins,ops-* claim:run=7 claim:protected=true")))
	first := wantEntry(t, tokens, i.Token(shop(nil)))
	if again := wantEntry(t, tokens, i.Token(shop(map[string]any{"aud": []string{"other", audience}}))); again != first {
		t.Errorf("a second run is %v, the first %v", again, first)
	}
	if !strings.HasPrefix(first.ID, "oidc:") || len(first.ID) != len("oidc:")+16 || first.Stranger || first.OfSession() {
		t.Errorf("it is %+v", first)
	}
	if got, want := tokens.Rights(first), (Rights{Names: []string{"shop-*"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("rights %+v, want %+v", got, want)
	}
	web := wantEntry(t, tokens, i.Token(map[string]any{"aud": audience, "repository": "acme/web", "ref": "refs/heads/main"}))
	if r := tokens.Rights(web); web == first || !r.Domain("web.example.org") || !r.Name("any") {
		t.Errorf("%v has the rights %+v", web, r)
	}
	wantEntry(t, tokens, i.Token(map[string]any{"aud": audience, "groups": []string{"all", "ops-7"}, "run": 7, "protected": true}))
	wantIn(t, tokens, alpha)
	if i.Asked() != 1 {
		t.Errorf("the issuer was asked for its keys %d times", i.Asked())
	}
}

// Each check refuses by itself, and says which one it was.
func TestIssuedTokensRefused(t *testing.T) {
	i, other := rig.StartIssuer(t), rig.StartIssuer(t)
	tokens := open(t, tokenFile(t, line(i, "claim:repository=acme/shop claim:sub=repo:acme/shop:*")))
	wantEntry(t, tokens, i.Token(shop(nil)))
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	good := i.Token(shop(nil))
	head := func(alg string) map[string]any { return map[string]any{"alg": alg, "kid": "first"} }
	for name, tt := range map[string]struct{ token, says string }{
		"no signature":         {i.Sign(head("none"), shop(nil)), "(alg) is none"},
		"HS256, public key":    {i.Sign(head("HS256"), shop(nil)), "(alg) is none"},
		"unknown algorithm":    {i.Sign(head("XY256"), shop(nil)), "(alg) is none"},
		"not the key's":        {strings.Replace(good, good[:strings.Index(good, ".")], i.Sign(head("RS512"), nil)[:strings.Index(i.Sign(head("RS512"), nil), ".")], 1), "(alg) is not that"},
		"another's signature":  {other.Sign(head("RS256"), shop(map[string]any{"iss": i.URL})), "signature"},
		"no signature at all":  {good[:strings.LastIndex(good, ".")+1], "signature"},
		"another issuer":       {other.Token(shop(nil)), "(iss)"},
		"issuer with a slash":  {i.Token(shop(map[string]any{"iss": i.URL + "/"})), "(iss)"},
		"no issuer":            {i.Token(shop(map[string]any{"iss": nil})), "(iss)"},
		"another audience":     {i.Token(shop(map[string]any{"aud": "https://tunnel.example.com.evil.example"})), "(aud)"},
		"no audience":          {i.Token(shop(map[string]any{"aud": nil})), "(aud)"},
		"expired":              {i.Token(shop(map[string]any{"exp": ago(2 * time.Minute)})), "(exp)"},
		"without end":          {i.Token(shop(map[string]any{"exp": nil})), "(exp)"},
		"not yet":              {i.Token(shop(map[string]any{"nbf": ago(-2 * time.Minute)})), "(nbf)"},
		"of the future":        {i.Token(shop(map[string]any{"iat": ago(-2 * time.Minute)})), "(iat)"},
		"unknown key":          {i.Sign(map[string]any{"alg": "RS256", "kid": "x"}, shop(map[string]any{"iat": ago(2 * time.Second)})), "(kid)"},
		"no time of issue":     {i.Token(shop(map[string]any{"iat": nil})), "(iat)"},
		"neither time nor key": {i.Sign(map[string]any{"alg": "RS256", "kid": "x"}, shop(map[string]any{"iat": nil})), "(iat)"},
		"a long header":        {i.Sign(map[string]any{"alg": "RS256", "kid": "first", "more": strings.Repeat("x", 2<<10)}, shop(nil)), "does not know"},
		"another repository":   {i.Token(shop(map[string]any{"repository": "acme/shop2"})), `repository is "acme/shop2"`},
		"the second condition": {i.Token(shop(map[string]any{"sub": "repo:acme/shopping:x"})), "claim sub is"},
		"no claim":             {i.Token(shop(map[string]any{"repository": nil})), "repository is missing"},
		"null":                 {i.Token(shop(map[string]any{"repository": json.RawMessage("null")})), "repository is missing"},
		"an object":            {i.Token(shop(map[string]any{"repository": map[string]string{"a": "acme/shop"}})), "repository is missing"},
		"control characters":   {i.Token(shop(map[string]any{"repository": "a\r\n\x1b[31m"})), `"a\r\n\x1b[31m"`},
		"no JSON":              {"eyJ.eyJ.eyJ", "does not know"},
		"too long":             {i.Token(shop(map[string]any{"more": strings.Repeat("x", maxJWT)})), "does not know"},
	} {
		t.Run(name, func(t *testing.T) { wantNoEntry(t, tokens, tt.token, protocol.Unauthorized, tt.says) })
	}
	if other.Asked() != 0 {
		t.Error("an issuer was asked that the file does not name")
	}
	// What one issuer may say is not another's to say.
	both := open(t, tokenFile(t, line(i, "claim:repository=acme/shop")+line(other, "claim:repository=bob/shop")))
	wantNoEntry(t, both, other.Token(shop(nil)), protocol.Unauthorized, `repository is "acme/shop"`)
	// What is a minute off is for clocks.
	wantEntry(t, tokens, i.Token(shop(map[string]any{"exp": ago(20 * time.Second), "nbf": ago(-20 * time.Second), "iat": ago(-20 * time.Second)})))
}

// A line that is taken out, or says something else, ends what came in by it; its rights may
// change.
func TestIssuedTokensFollowTheFile(t *testing.T) {
	i := rig.StartIssuer(t)
	path := tokenFile(t, line(i, "claim:repository=acme/shop name=shop-*")+alpha)
	tokens := open(t, path)
	id := wantEntry(t, tokens, i.Token(shop(nil)))
	write(t, path, "oidc="+i.URL+" name=web-* claim:repository=acme/shop aud="+audience+"\n"+alpha)
	if again := wantEntry(t, tokens, i.Token(shop(nil))); again != id || !tokens.Rights(id).Name("web-1") || tokens.Rights(id).Name("shop-1") {
		t.Errorf("with other rights %v is %v, which may %+v", id, again, tokens.Rights(id))
	}
	write(t, path, line(i, "claim:repository=acme/shop,acme/web")+alpha)
	if again := wantEntry(t, tokens, i.Token(shop(nil))); again == id || tokens.Valid(id) {
		t.Errorf("with other conditions %v is valid still, or the same", id)
	}
	write(t, path, alpha)
	wantNoEntry(t, tokens, i.Token(shop(nil)), protocol.Unauthorized, "does not know")
	if tokens.Valid(id) || tokens.Rights(id).Name("web-1") {
		t.Error("without its line it is valid still")
	}
	write(t, path, line(i, "claim:repository=acme/shop")+"oidc=broken\n")
	wantNoEntry(t, tokens, i.Token(shop(nil)), protocol.AuthUnavailable, "")
}

// transport answers as i, in the time of a synctest bubble.
type transport struct{ i *rig.Issuer }

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(time.Second)
	w := httptest.NewRecorder()
	f.i.ServeHTTP(w, r)
	return w.Result(), nil
}

// Whoever comes with unknown keys has the issuer asked once in a while, at once for all of
// them; whose key is known does not wait for that, and a new key is known in the end.
func TestIssuerIsNotHammered(t *testing.T) {
	i := rig.NewIssuer(t, "https://issuer.example")
	path := tokenFile(t, line(i, "claim:repository=acme/shop"))
	synctest.Test(t, func(t *testing.T) {
		tokens := open(t, path)
		tokens.client.Transport = transport{i}
		flood := func() {
			var all sync.WaitGroup
			for n := range 200 {
				all.Go(func() {
					tokens.Prepare(t.Context(), i.Sign(map[string]any{"alg": "RS256", "kid": fmt.Sprint("kid-", n)}, shop(nil)))
				})
			}
			all.Wait()
		}
		var first sync.WaitGroup
		for range 5 {
			first.Go(func() {
				if _, err := enter(t, tokens, i.Token(shop(nil))); err != nil {
					t.Errorf("of those that came first, one got %v", err)
				}
			})
		}
		flood()
		first.Wait()
		if i.Asked() != 1 {
			t.Fatalf("a flood at the beginning had the issuer asked %d times", i.Asked())
		}
		start := time.Now()
		known := i.Token(shop(nil))
		wantEntry(t, tokens, known)
		i.Rotate("second")
		for range 3 {
			flood()
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > 4*time.Second || i.Asked() != 1 {
			t.Fatalf("the next floods took %v, and the issuer was asked %d times", took, i.Asked())
		}
		// Nobody knows yet, so it is not refused for good.
		wantNoEntry(t, tokens, i.Token(shop(nil)), protocol.AuthUnavailable, "")
		time.Sleep(askEvery)
		asking := make(chan struct{})
		go func() { defer close(asking); flood() }()
		synctest.Wait()
		start = time.Now()
		wantEntry(t, tokens, known)
		if time.Since(start) != 0 {
			t.Errorf("who has a known key waited %v for who has not", time.Since(start))
		}
		<-asking
		wantEntry(t, tokens, i.Token(shop(nil)))
		if i.Asked() != 2 {
			t.Errorf("the issuer was asked %d times", i.Asked())
		}
		time.Sleep(keysFresh)
		asking = make(chan struct{})
		go func() { defer close(asking); enter(t, tokens, i.Token(shop(nil))) }()
		synctest.Wait()
		start = time.Now()
		wantEntry(t, tokens, i.Token(shop(nil)))
		if time.Since(start) != 0 {
			t.Errorf("who has an old key waited %v for who asks anew", time.Since(start))
		}
		<-asking
		if i.Asked() != 3 {
			t.Errorf("after %v the issuer was asked %d times", keysFresh, i.Asked())
		}
	})
}

// An issuer that is away shuts nobody out for good, and nobody at all for a day whose key is
// known.
func TestIssuerAway(t *testing.T) {
	i := rig.NewIssuer(t, "https://issuer.example")
	path := tokenFile(t, line(i, "claim:repository=acme/shop")+alpha)
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		tokens, err := OpenTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		tokens.client.Transport = transport{i}
		i.Down(true)
		wantNoEntry(t, tokens, i.Token(shop(nil)), protocol.AuthUnavailable, "cannot get the keys")
		wantIn(t, tokens, alpha)
		if !strings.Contains(log.String(), i.URL) || !strings.Contains(log.String(), "503") || strings.Contains(log.String(), "eyJ") {
			t.Errorf("the log says %q", &log)
		}
		i.Down(false)
		time.Sleep(askEvery)
		wantEntry(t, tokens, i.Token(shop(nil)))
		i.Down(true)
		time.Sleep(keysLast - time.Minute)
		wantEntry(t, tokens, i.Token(shop(nil)))
		time.Sleep(time.Minute)
		wantNoEntry(t, tokens, i.Token(shop(nil)), protocol.AuthUnavailable, "")
		i.Down(false)
		time.Sleep(askEvery)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if _, err := enter(t, tokens, i.Token(shop(nil))); err != nil {
					t.Errorf("when it is back one of two got %v", err)
				}
			})
		}
		both.Wait()
	})
}

// roundTrip is an issuer's side of one request.
type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// Who waits for an issuer holds up neither others at the door nor the file, and goes when
// its client goes.
func TestIssuerHangs(t *testing.T) {
	i := rig.NewIssuer(t, "https://issuer.example")
	path := tokenFile(t, line(i, "claim:repository=acme/shop")+alpha)
	synctest.Test(t, func(t *testing.T) {
		tokens := open(t, path)
		tokens.client.Transport = roundTrip(func(r *http.Request) *http.Response {
			<-r.Context().Done()
			return &http.Response{StatusCode: 504, Body: http.NoBody}
		})
		door := &Throttle{Auth: tokens, PerMinute: 10}
		from := netip.MustParseAddr("192.0.2.1")
		start := time.Now()
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				if _, err := door.Authenticate(t.Context(), from, i.Token(shop(nil)), "s"); !errors.Is(err, &protocol.Error{Code: protocol.AuthUnavailable}) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if _, err := door.Authenticate(t.Context(), from, alpha, "s"); err != nil || time.Since(start) != 0 {
			t.Errorf("an ordinary token: %v after %v", err, time.Since(start))
		}
		waiting.Wait()
		if took := time.Since(start); took != askTime {
			t.Errorf("the others waited %v", took)
		}
	})
}

// Failed tokens are failed logins.
func TestIssuedTokensAreThrottled(t *testing.T) {
	i := rig.StartIssuer(t)
	door := &Throttle{Auth: open(t, tokenFile(t, line(i, "claim:repository=acme/shop"))), PerMinute: 3}
	from := netip.MustParseAddr("192.0.2.1")
	for n := range 4 {
		_, err := door.Authenticate(t.Context(), from, i.Token(shop(map[string]any{"aud": "other"})), "s")
		var throttled *Throttled
		if errors.As(err, &throttled) != (n == 3) {
			t.Errorf("login %d: %v", n, err)
		}
	}
}

// prepared counts what is asked for ahead.
type prepared struct {
	*Tokens
	times int
}

func (p *prepared) Prepare(ctx context.Context, token string) {
	p.times++
	p.Tokens.Prepare(ctx, token)
}

// Tokens that are made up, which nobody can tell from an issuer's newest, are looked at as often
// as wrong ones are, and so is one that comes again; then not at all. Others at the same address
// are let in, and so are others' tokens.
func TestMadeUpTokensAreThrottled(t *testing.T) {
	i := rig.NewIssuer(t, "https://issuer.example")
	path := tokenFile(t, alpha+"\n"+line(i, "claim:repository=acme/shop"))
	unknown := func(n int) string {
		return i.Sign(map[string]any{"alg": "RS256", "kid": fmt.Sprint("kid-", n)}, shop(map[string]any{"iat": time.Now().Add(time.Hour).Unix()}))
	}
	wrong := i.Token(shop(map[string]any{"aud": "other"}))
	for name, tt := range map[string]struct {
		token func(n int) string
		want  protocol.Code
		away  bool
	}{
		"an unknown key":   {unknown, protocol.AuthUnavailable, false},
		"the issuer away":  {unknown, protocol.AuthUnavailable, true},
		"the same, wrong":  {func(int) string { return wrong }, protocol.Unauthorized, false},
		"the same, untold": {func(int) string { return unknown(1) }, protocol.AuthUnavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &prepared{Tokens: open(t, path)}
				p.client.Transport = transport{i}
				i.Down(tt.away)
				door := &Throttle{Auth: p, PerMinute: 4}
				for n := range 20 {
					want := string(tt.want)
					if n >= 4 {
						want = throttled
					}
					wantLogin(t, door, addr(1), tt.token(n), want)
				}
				if p.times != 4 {
					t.Errorf("of 20 tokens %d were looked at", p.times)
				}
				wantLogin(t, door, addr(1), i.Token(shop(nil)), throttled)
				i.Down(false)
				time.Sleep(askEvery)
				if tt.want == protocol.AuthUnavailable {
					wantLogin(t, door, addr(1), alpha, in)
				}
				wantLogin(t, door, addr(2), i.Token(shop(nil)), in)
				time.Sleep(time.Minute)
				wantLogin(t, door, addr(1), i.Token(shop(nil)), in)
			})
		})
	}
}

// Whoever has many networks shuts out no address that logged in by an issuer's token before.
func TestMadeUpTokensOfMany(t *testing.T) {
	i := rig.NewIssuer(t, "https://issuer.example")
	path := tokenFile(t, line(i, "claim:repository=acme/shop"))
	synctest.Test(t, func(t *testing.T) {
		p := open(t, path)
		p.client.Transport = transport{i}
		door := &Throttle{Auth: p, PerMinute: 1}
		wantLogin(t, door, addr(1), i.Token(shop(nil)), in)
		for n := range 2 * firstFactor {
			login(t, door, addr(100+n), "a.b.c")
		}
		wantLogin(t, door, addr(2), i.Token(shop(nil)), throttled)
		wantLogin(t, door, addr(1), i.Token(shop(nil)), in)
	})
}

// What an issuer answers is not believed because it answers.
func TestIssuerAnswers(t *testing.T) {
	i := rig.StartIssuer(t)
	var about, keys http.HandlerFunc
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { about(w, r) })
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) { keys(w, r) })
	liar := httptest.NewServer(mux)
	defer liar.Close()
	says := func(format string, args ...any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, format, args...) }
	}
	right := says(`{"issuer": %q, "jwks_uri": %q}`, liar.URL, liar.URL+"/keys")
	relay := func(w http.ResponseWriter, r *http.Request) { i.ServeHTTP(w, r) }
	for name, tt := range map[string]struct {
		about, keys http.HandlerFunc
		says        string
	}{
		"another issuer":  {says(`{"issuer": %q, "jwks_uri": %q}`, i.URL, i.URL+"/keys"), relay, "it says that it is the issuer"},
		"plain keys":      {says(`{"issuer": %q, "jwks_uri": "http://keys.example/"}`, liar.URL), relay, "no https://"},
		"no keys":         {says(`{"issuer": %q}`, liar.URL), relay, "no https://"},
		"a redirect":      {http.RedirectHandler(i.URL+"/keys", http.StatusFound).ServeHTTP, relay, "302"},
		"keys elsewhere":  {right, http.RedirectHandler(i.URL+"/keys", http.StatusTemporaryRedirect).ServeHTTP, "307"},
		"too much":        {right, says(`{"keys": [], "more": %q}`, strings.Repeat("x", maxAnswer)), "is over"},
		"no JSON":         {right, says("<html>"), "invalid character"},
		"a secret key":    {right, says(`{"keys": [{"kty": "oct", "kid": "first", "k": "c2VjcmV0"}]}`), "no public key"},
		"for encryption":  {right, says(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "enc", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`), "no public key"},
		"right, at last ": {right, relay, ""},
	} {
		t.Run(name, func(t *testing.T) {
			about, keys = tt.about, tt.keys
			var log strings.Builder
			tokens, err := OpenTokens(tokenFile(t, "oidc="+liar.URL+" aud="+audience+" claim:repository=acme/shop\n"), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			token := i.Token(shop(map[string]any{"iss": liar.URL}))
			if tt.says == "" {
				wantEntry(t, tokens, token)
				return
			}
			wantNoEntry(t, tokens, token, protocol.AuthUnavailable, "")
			if !strings.Contains(log.String(), tt.says) {
				t.Errorf("the log says %q, want %q", &log, tt.says)
			}
		})
	}
}

func TestLines(t *testing.T) {
	const good = "oidc=https://issuer.example aud=a claim:sub=x"
	for name, tt := range map[string]struct{ content, want string }{
		"no issuer":          {"oidc= aud=a claim:sub=x", "line 1: oidc= is to have the issuer"},
		"plain http":         {"oidc=http://issuer.example aud=a claim:sub=x", "https://"},
		"no host":            {"oidc=https:///x aud=a claim:sub=x", "https://"},
		"a user":             {"oidc=https://secret@issuer.example aud=a claim:sub=x", "https://"},
		"a query":            {"oidc=https://issuer.example?a=secret aud=a claim:sub=x", "https://"},
		"no audience":        {"\noidc=https://issuer.example claim:sub=x", "line 2: an oidc= line without aud="},
		"empty audience":     {"oidc=https://issuer.example aud= claim:sub=x", "one audience"},
		"two audiences":      {good + " aud=b", "one audience"},
		"no claim":           {"oidc=https://issuer.example aud=a name=demo", "lets in whoever"},
		"every value":        {"oidc=https://issuer.example aud=a claim:sub=**", "fits everything"},
		"every other value":  {"oidc=https://issuer.example aud=a claim:sub=x,*", "fits everything"},
		"empty value":        {"oidc=https://issuer.example aud=a claim:sub=", "empty"},
		"no name of a claim": {"oidc=https://issuer.example aud=a claim:=x", "name behind it"},
		"claim without =":    {"oidc=https://issuer.example aud=a claim:sub", "not aud="},
		"claim twice":        {good + " claim:sub=y", "twice"},
		"issuer as a claim":  {"oidc=https://issuer.example aud=a claim:iss=https://issuer.example", "looked at anyway"},
		"claim without form": {"oidc=https://issuer.example aud=a sub=secret", "not aud="},
		"a token behind":     {good + " secret-token", "not aud="},
		"bad name":           {good + " name=Secret", "lower case"},
		"name twice":         {good + " name=a name=b", "twice"},
		"other rights":       {good + "\n" + good + " name=demo", "line 2: an oidc= line with the audience and claims of one above"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]byte(tt.content))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "ecret") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	held, err := parse([]byte(good + "\n" + good + " name=*\noidc=http://127.0.0.1:80/realm aud=a\tclaim:b=y,x claim:a=x\noidc=http://127.0.0.1:80/realm claim:a=x claim:b=x,y aud=a"))
	if err != nil || held.size() != 2 {
		t.Errorf("got %+v, %v", held, err)
	}
	// What the id is made of is no token.
	if _, err := parse([]byte(good)); err != nil {
		t.Error(err)
	}
	wantOut(t, open(t, tokenFile(t, good)), "https://issuer.example\na\nsub=x")
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"a", []string{"a"}, []string{"", "aa", "b", "*"}},
		{"acme/*", []string{"acme/", "acme/shop", "acme/a/b"}, []string{"acme", "evil/acme/", "acme-evil/shop"}},
		{"*:main", []string{":main", "a:main", ":main:main"}, []string{"main", "a:main2"}},
		{"a*b*c", []string{"abc", "a-b-b-c", "abcc"}, []string{"ac", "acb", "ab", "bc"}},
		{"ab*ba", []string{"abba", "ab-ba"}, []string{"aba"}},
		{"a**b", []string{"ab", "a-b"}, []string{"a"}},
		{"x*", []string{"x"}, []string{"", "ax"}},
	} {
		for want, all := range map[bool][]string{true: c.yes, false: c.no} {
			for _, s := range all {
				if like(c.pattern, s) != want {
					t.Errorf("%q, %q: %v", c.pattern, s, !want)
				}
			}
		}
	}
}
