package edge_test

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// guarded is a server whose name demo is shared so, and other is everybody's.
func guarded(t *testing.T, c server.Config, s *protocol.Share) (addr string) {
	t.Helper()
	addr = serve(t, c)
	publishAs(t, addr, tunnel.Options{Name: "demo", Share: s}, seen("demo"))
	publish(t, addr, "other", nil, seen("other"))
	return addr
}

func alice(t *testing.T) []protocol.User {
	t.Helper()
	u, err := protocol.NewUser("alice", "sesame")
	if err != nil {
		t.Fatal(err)
	}
	return []protocol.User{u}
}

const (
	rightful = "Authorization: Basic YWxpY2U6c2VzYW1l"     // alice:sesame
	wrongful = "Authorization: Basic YWxpY2U6c2VzYW1lZQ==" // alice:sesamee
)

// linkKeys are a key of share links, and what the server gets of it.
func linkKeys(t *testing.T) (ed25519.PrivateKey, []byte) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

func good(key ed25519.PrivateKey) string { return protocol.SignLink(key, time.Now().Add(time.Hour)) }

func networks(list ...string) (all []netip.Prefix) {
	for _, one := range list {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func TestBasicAuth(t *testing.T) {
	addr := guarded(t, server.Config{}, &protocol.Share{BasicAuth: alice(t)})
	for _, c := range []struct{ field, want string }{
		{"X: none", "401 login_required"},
		{rightful, "demo"}, {strings.Replace(rightful, "Basic", "basic", 1), "demo"},
		{wrongful, "401 login_required"},
		{"Authorization: Basic " + strings.Repeat("A", 5000), "401 login_required"},
		{"Authorization: Basic", "401 login_required"}, {"Authorization: Bearer YWxpY2U6c2VzYW1l", "401 login_required"},
		{"Authorization: Basic YWxpY2U6", "401 login_required"}, {"Authorization: Basic OnNlc2FtZQ==", "401 login_required"},
		{wrongful + "\r\n" + rightful, "401 login_required"}, {rightful + "\r\n" + wrongful, "401 login_required"},
		{"Cookie: tunnel-share=" + strings.Repeat("A", 96), "401 login_required"}, {"Tunnel-Share: x", "401 login_required"},
		{"X-Forwarded-User: alice", "401 login_required"}, {"Authorization_: Basic YWxpY2U6c2VzYW1l", "401 login_required"},
	} {
		for range 2 { // what was looked at before is no different
			a := get(t, addr, "GET /?tunnel-share=x HTTP/1.1", demo, c.field)
			if got := answered(a); got != c.want {
				t.Errorf("%.60q: got %s, want %s", c.field, got, c.want)
			}
			if asks := a.Header.Get("Www-Authenticate"); (asks == `Basic realm="demo", charset="UTF-8"`) != (c.want != "demo") {
				t.Errorf("%.60q: WWW-Authenticate is %q", c.field, asks)
			}
			if strings.Contains(a.body, "Authorization") {
				t.Errorf("%.60q: the app saw\n%s", c.field, a.body)
			}
		}
	}
	// The app's own logins are its own where there is no other.
	if a := get(t, addr, "GET / HTTP/1.1", "Host: other.example.com", rightful); !a.has(rightful) {
		t.Errorf("the app saw\n%s", a.body)
	}
	// What is called like a link's token may be one, so it is not the app's.
	if a := get(t, addr, "GET /?tunnel-share=x HTTP/1.1", demo, rightful); !a.has("GET /") {
		t.Errorf("the app saw\n%s", a.body)
	}
}

// A visitor that the app's own scheme belongs to is let in by a link.
func TestOtherSchemesGoThrough(t *testing.T) {
	key, public := linkKeys(t)
	addr := guarded(t, server.Config{}, &protocol.Share{BasicAuth: alice(t), Link: public})
	a := get(t, addr, "GET / HTTP/1.1", demo, "Authorization: Bearer app", "Cookie: a=b; tunnel-share="+good(key)+"; c=d")
	if !a.has("Authorization: Bearer app") || !a.has("Cookie: a=b; c=d") {
		t.Errorf("got %s: the app saw\n%s", answered(a), a.body)
	}
	if a := get(t, addr, "GET / HTTP/1.1", demo, rightful, "Cookie: tunnel-share="+good(key)); answered(a) != "demo" || strings.Contains(a.body, "Basic") || strings.Contains(a.body, "Cookie") {
		t.Errorf("got %s: the app saw\n%s", answered(a), a.body)
	}
	if a := get(t, addr, "GET /?tunnel-share="+expired(key)+" HTTP/1.1", demo, rightful); !a.has("GET /") {
		t.Errorf("got %s: the app saw\n%s", answered(a), a.body)
	}
}

func expired(key ed25519.PrivateKey) string {
	return protocol.SignLink(key, time.Now().Add(-time.Hour))
}

// Complaint 15: preflights have no password, and scripts get JSON.
func TestPreflightsAndScripts(t *testing.T) {
	addr := guarded(t, server.Config{}, &protocol.Share{BasicAuth: alice(t), Deny: networks("192.0.2.0/24")})
	const origin, asks = "Origin: https://a.example", "Access-Control-Request-Method: PUT"
	if a := get(t, addr, "OPTIONS /api HTTP/1.1", demo, origin, asks); a.StatusCode != 200 || a.body != "" || a.code() != "" {
		t.Errorf("a preflight: %s, %q", answered(a), a.body)
	}
	for _, lines := range [][]string{
		{"OPTIONS / HTTP/1.1", demo, origin}, {"OPTIONS / HTTP/1.1", demo, asks}, {"GET / HTTP/1.1", demo, origin, asks}, {"OPTIONS * HTTP/1.1", demo},
	} {
		if a := get(t, addr, lines...); answered(a) != "401 login_required" {
			t.Errorf("%q: %s", lines, answered(a))
		}
	}
	for field, want := range map[string]string{
		"Accept: text/html, */*": "text/html; charset=utf-8", "Accept: application/json": "application/json", "Accept: */*": "text/plain; charset=utf-8",
		"X-Requested-With: XMLHttpRequest": "application/json", "Accept: */*\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors": "application/json",
		"Accept: */*\r\nSec-Fetch-Dest: image": "text/plain; charset=utf-8",
	} {
		if a := get(t, addr, "GET / HTTP/1.1", demo, field); a.Header.Get("Content-Type") != want || a.StatusCode != 401 {
			t.Errorf("%q: %d as %s, want %s", field, a.StatusCode, a.Header.Get("Content-Type"), want)
		}
	}
}

// S14: guesses are throttled, also of who has guessed right by then; nobody else is shut out.
func TestGuessesAreThrottled(t *testing.T) {
	trusted := server.Config{LoginFailures: 3, Trusted: networks("127.0.0.0/8")}
	addr := guarded(t, trusted, &protocol.Share{BasicAuth: alice(t)})
	from := func(address, field string) answer {
		return get(t, addr, "GET / HTTP/1.1", demo, field, "X-Forwarded-For: "+address)
	}
	from("192.0.2.1", rightful)
	for i := range 3 {
		guess := fmt.Sprintf("Authorization: Basic %s", []string{"YTpi", "YTpj", "YTpk"}[i])
		if a := from("192.0.2.1", guess); answered(a) != "401 login_required" {
			t.Fatalf("guess %d: %s", i, answered(a))
		}
	}
	for _, field := range []string{wrongful, rightful} {
		if a := from("192.0.2.1", field); answered(a) != "429 login_throttled" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s, Retry-After %q", field, answered(a), a.Header.Get("Retry-After"))
		}
	}
	if a := from("192.0.2.1", "X: none"); answered(a) != "401 login_required" {
		t.Errorf("without a guess: %s", answered(a))
	}
	// What fails at one name shuts nobody out of another.
	publishAs(t, addr, tunnel.Options{Name: "third", Share: &protocol.Share{BasicAuth: alice(t)}}, seen("third"))
	if a := get(t, addr, "GET / HTTP/1.1", "Host: third.example.com", rightful, "X-Forwarded-For: 192.0.2.1"); answered(a) != "third" {
		t.Errorf("at another name: %s", answered(a))
	}
	if a := from("198.51.100.1", rightful); answered(a) != "demo" {
		t.Errorf("another: %s", answered(a))
	}
}

// Guesses that come at once count one after the other.
func TestGuessesAtOnce(t *testing.T) {
	addr := guarded(t, server.Config{LoginFailures: 3}, &protocol.Share{BasicAuth: alice(t)})
	answers := make(chan string, 30)
	var visitors []*visitor
	for range cap(answers) {
		visitors = append(visitors, visit(t, addr))
	}
	for _, v := range visitors {
		go func() {
			io.WriteString(v, "GET / HTTP/1.1\r\n"+demo+"\r\n"+wrongful+"\r\n\r\n")
			res, err := http.ReadResponse(v.r, nil)
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- res.Status
		}()
	}
	looked := 0
	for range cap(answers) {
		switch got := <-answers; got {
		case "401 Unauthorized":
			looked++
		case "429 Too Many Requests":
		default:
			t.Error(got)
		}
	}
	if looked < 3 || looked > 6 { // one more for each third of a minute that it takes
		t.Errorf("%d guesses were looked at", looked)
	}
}

func TestShareLink(t *testing.T) {
	key, public := linkKeys(t)
	_, stranger := linkKeys(t)
	addr := guarded(t, server.Config{}, &protocol.Share{Link: public})
	publishAs(t, addr, tunnel.Options{Name: "third", Share: &protocol.Share{Link: stranger}}, seen("third"))
	token := good(key)
	a := get(t, addr, "GET /page?a=1&tunnel-share="+token+"&b=%2F HTTP/1.1", demo)
	if a.StatusCode != 303 || a.Header.Get("Location") != "/page?a=1&b=%2F" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Fatalf("got %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	set, err := http.ParseSetCookie(a.Header.Get("Set-Cookie"))
	if err != nil || set.Value != token || set.Path != "/" || !set.HttpOnly || set.Secure || set.SameSite != http.SameSiteLaxMode || set.Domain != "" || time.Until(set.Expires) > time.Hour {
		t.Fatalf("the cookie is %v, %v", set, err)
	}
	const required = "403 link_required"
	cookie := "Cookie: tunnel-share=" + token
	for _, c := range []struct{ request, field, want string }{
		{"GET / HTTP/1.1", cookie, "demo"}, {"POST / HTTP/1.1\r\nContent-Length: 0", cookie, "demo"}, {"GET / HTTP/1.1", "Tunnel-Share: " + token, "demo"},
		{"GET / HTTP/1.1", "Cookie: tunnel-share=forged; tunnel-share=" + token, "demo"},
		{"POST /?tunnel-share=" + token + " HTTP/1.1\r\nContent-Length: 0", "X: y", "demo"},
		{"GET /?tunnel-share=" + token + " HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "", "demo"},
		{"GET / HTTP/1.1", "X: y", required}, {"GET / HTTP/1.1", rightful, required},
		{"GET /?tunnel-share= HTTP/1.1", "X: y", required}, {"GET /?tunnel-share=" + token + "A HTTP/1.1", "X: y", required},
		{"GET /?Tunnel-Share=" + token + " HTTP/1.1", "X: y", required}, {"GET /tunnel-share=" + token + " HTTP/1.1", "X: y", required},
		{"GET / HTTP/1.1", "Cookie: tunnel-share2=" + token, required}, {"GET / HTTP/1.1", "Tunnel_Share: " + token, required},
		{"GET / HTTP/1.1", "Cookie: " + strings.Repeat("tunnel-share=x; ", 4) + "tunnel-share=" + token, required},
		{"GET /?tunnel-share=" + expired(key) + " HTTP/1.1", "X: y", "403 link_expired"}, {"GET / HTTP/1.1", "Cookie: tunnel-share=" + expired(key), "403 link_expired"},
		{"GET /?tunnel-share=" + expired(key) + " HTTP/1.1", cookie, "demo"},
	} {
		a := get(t, addr, c.request, demo, c.field, "Connection: close")
		if c.field == "" {
			a = get(t, addr, strings.Replace(c.request, "\r\n\r\n", "\r\n"+demo+"\r\n\r\n", 1))
		}
		if got := answered(a); got != c.want {
			t.Errorf("%.70q, %.70q: got %s, want %s", c.request, c.field, got, c.want)
		}
		if strings.Contains(a.body, token[:20]) || strings.Contains(strings.ToLower(a.body), "tunnel-share") && a.code() == "" {
			t.Errorf("%.70q: the app, or the page, has\n%s", c.request, a.body)
		}
	}
	// Another tenant's link and cookie are worth nothing, and no app is told of ours.
	for host, want := range map[string]string{"third": required, "other": "other"} {
		a := get(t, addr, "GET / HTTP/1.1", "Host: "+host+".example.com", cookie)
		if answered(a) != want || strings.Contains(a.body, token[:20]) && a.code() == "" {
			t.Errorf("%s: got %s\n%s", host, answered(a), a.body)
		}
	}
}

// A link leads back to where it was opened, and nowhere else.
func TestShareLinkRedirects(t *testing.T) {
	key, public := linkKeys(t)
	addr := guarded(t, server.Config{PathNames: true}, &protocol.Share{Link: public})
	q := "tunnel-share=" + good(key)
	for target, want := range map[string]string{
		"/?" + q: "/", "/?" + q + "&a": "/?a", "/?a&" + q: "/?a", "//evil.example/?" + q: "/", `/\evil.example/?` + q: "/", "///?" + q: "/",
		"/%09/evil.example?" + q: "/%09/evil.example", "http://demo.example.com//evil.example/?" + q: "/", "/a//b?" + q: "/a//b",
	} {
		a := get(t, addr, "GET "+target+" HTTP/1.1", demo)
		if got := a.Header.Get("Location"); a.StatusCode != 303 || got != want {
			t.Errorf("%s: %d to %q, want %q", target, a.StatusCode, got, want)
		}
	}
	for target, want := range map[string]string{"/demo/?" + q: "/demo/", "/demo//evil.example?" + q: "/demo//evil.example", "/demo/p?x&" + q: "/demo/p?x"} {
		a := get(t, addr, "GET "+target+" HTTP/1.1", "Host: example.com")
		set, _ := http.ParseSetCookie(a.Header.Get("Set-Cookie"))
		if got := a.Header.Get("Location"); a.StatusCode != 303 || got != want || set == nil || set.Path != "/demo/" {
			t.Errorf("%s: %d to %q with %v, want %q", target, a.StatusCode, got, set, want)
		}
	}
	// With slash or without, what leads to the name needs the link.
	if a := get(t, addr, "GET /demo/ HTTP/1.1", "Host: example.com"); answered(a) != "403 link_required" {
		t.Errorf("got %s", answered(a))
	}
	if a := get(t, addr, "GET /demo/ HTTP/1.1", "Host: example.com", "Cookie: "+q); !a.has("X-Forwarded-Prefix: /demo") {
		t.Errorf("got %s", answered(a))
	}
}

// The same for each version of HTTP, by TLS: the cookie is Secure.
func TestShareOverTLS(t *testing.T) {
	key, public := linkKeys(t)
	h := secure(t, server.Config{})
	publishAs(t, h.plain, tunnel.Options{Name: "demo", Share: &protocol.Share{Link: public, NoIndex: true, Response: &protocol.Edits{Set: []protocol.Field{{Name: "X-Set", Value: "yes"}}}}}, seen("demo"))
	for _, proto := range []string{"1", "2", "3"} {
		c := h.client(t, proto, "")
		base := "https://demo.example.com:" + h.port
		if a := fetch(t, c, request(t, "GET", base, nil)); answered(a) != "403 link_required" {
			t.Errorf("HTTP/%s: got %s", proto, answered(a))
		}
		a := fetch(t, c, request(t, "GET", base+"/p?tunnel-share="+good(key), nil))
		set, err := http.ParseSetCookie(a.Header.Get("Set-Cookie"))
		if err != nil || a.StatusCode != 303 || !set.Secure {
			t.Fatalf("HTTP/%s: %d with %v", proto, a.StatusCode, set)
		}
		r := request(t, "GET", base+a.Header.Get("Location"), nil)
		r.AddCookie(&http.Cookie{Name: "own", Value: "1"})
		r.AddCookie(&http.Cookie{Name: set.Name, Value: set.Value})
		a = fetch(t, c, r)
		if !a.has("GET /p") || !a.has("Cookie: own=1") || a.Header.Get("X-Robots-Tag") != "noindex, nofollow" || a.Header.Get("X-Set") != "yes" {
			t.Errorf("HTTP/%s: got %s, %v\n%s", proto, answered(a), a.Header, a.body)
		}
	}
}

// A WebSocket, or another upgrade, is let in by the cookie, and by the link itself.
func TestShareUpgrade(t *testing.T) {
	key, public := linkKeys(t)
	addr := serve(t, server.Config{})
	publishAs(t, addr, tunnel.Options{Name: "demo", Share: &protocol.Share{Link: public}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Target: %s\r\n\r\n", r.RequestURI)
		rw.Flush()
		io.Copy(conn, rw)
	}))
	for _, c := range []struct {
		target, field string
		want          int
	}{{"/ws", "X: y", 403}, {"/ws", "Cookie: tunnel-share=" + good(key), 101}, {"/ws?tunnel-share=" + good(key), "X: y", 101}} {
		v := visit(t, addr)
		v.send("GET "+c.target+" HTTP/1.1", demo, "Connection: Upgrade", "Upgrade: echo", c.field)
		res, err := http.ReadResponse(v.r, nil)
		if err != nil || res.StatusCode != c.want || c.want == 101 && res.Header.Get("X-Target") != "/ws" {
			t.Fatalf("%s: %v, %v", c.target, res, err)
		}
		if c.want == 101 {
			io.WriteString(v, "hello")
			if got := make([]byte, 5); readFull(v, got) != "hello" {
				t.Errorf("%s: got %q", c.target, got)
			}
		}
	}
}

func readFull(v *visitor, b []byte) string {
	io.ReadFull(v.r, b)
	return string(b)
}

// What the owner changes is his to say, and not the visitor's: also where some spell it
// otherwise, or say it behind the body (S3, S4).
func TestHeaderEdits(t *testing.T) {
	addr := serve(t, server.Config{})
	share := &protocol.Share{
		Request:  &protocol.Edits{Set: []protocol.Field{{Name: "X-Api-Key", Value: "owner"}, {Name: "X-Two", Value: "a"}, {Name: "X-Two", Value: "b"}}, Remove: []string{"User-Agent", "X-Gone"}},
		Response: &protocol.Edits{Set: []protocol.Field{{Name: "Set-Cookie", Value: "a=b; Domain=example.com"}, {Name: "X-Frame-Options", Value: "DENY"}}, Remove: []string{"app", "X-App"}},
	}
	publishAs(t, addr, tunnel.Options{Name: "demo", Share: share}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-App"] = []string{"1", "2"}
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		w.WriteHeader(http.StatusEarlyHints)
		seen("demo").ServeHTTP(w, r)
	}))
	v := visit(t, addr)
	v.send("POST / HTTP/1.1", demo, "X-Api-Key: forged", "x-api-key: forged", "X_Api_Key: forged", "X-Api--Key: forged", "X-Two: forged", "X_Gone: forged", "X-Gone: forged",
		"Connection: X-Api-Key, close", "User-Agent: u", "Trailer: X-Api-Key, X-Fine", "Transfer-Encoding: chunked", "", "1", "x", "0", "X-Api-Key: forged", "X-Fine: 1")
	for {
		early, err := http.ReadResponse(v.r, &http.Request{Method: "POST"})
		if err != nil {
			t.Fatal(err)
		}
		if early.StatusCode == http.StatusEarlyHints && early.Header.Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("an interim answer has %v", early.Header)
		}
		if early.StatusCode != http.StatusEarlyHints {
			body, _ := io.ReadAll(early.Body)
			a := answer{early, string(body)}
			for _, line := range []string{"X-Api-Key: owner", "X-Two: a", "X-Two: b", "trailer X-Fine: [1]"} {
				if !a.has(line) {
					t.Errorf("the app did not see %q, but\n%s", line, a.body)
				}
			}
			if strings.Contains(a.body, "forged") || strings.Contains(a.body, "User-Agent") {
				t.Errorf("the app saw\n%s", a.body)
			}
			// Cookies for all tenants are not to be had in this way either (S20).
			if got := a.Header["Set-Cookie"]; len(got) != 1 || got[0] != "a=b" {
				t.Errorf("Set-Cookie is %q", got)
			}
			if a.Header["X-App"] != nil || a.Header["App"] != nil || a.Header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("the answer has %v", a.Header)
			}
			return
		}
	}
}

// Where a path leads to the name, the owner can't say what holds for the other names.
func TestHeaderEditsBelowAPath(t *testing.T) {
	addr := guarded(t, server.Config{PathNames: true}, &protocol.Share{Response: &protocol.Edits{Set: []protocol.Field{
		{Name: "Strict-Transport-Security", Value: "max-age=1"}, {Name: "Clear-Site-Data", Value: "*"}, {Name: "Set-Cookie", Value: "a=b; Path=/other/"},
	}}})
	a := get(t, addr, "GET /demo/ HTTP/1.1", "Host: example.com")
	if a.Header["Strict-Transport-Security"] != nil || a.Header["Clear-Site-Data"] != nil || a.Header.Get("Set-Cookie") != "a=b; Path=/demo/other/" {
		t.Errorf("the answer has %v", a.Header)
	}
}

func TestNoIndex(t *testing.T) {
	addr := guarded(t, server.Config{}, &protocol.Share{NoIndex: true, BasicAuth: alice(t)})
	a := get(t, addr, "GET /robots.txt?x HTTP/1.1", demo)
	if a.StatusCode != 200 || a.body != "User-agent: *\nDisallow: /\n" || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %d %q", a.StatusCode, a.body)
	}
	if a := get(t, addr, "GET / HTTP/1.1", demo, rightful); a.Header.Get("X-Robots-Tag") != "noindex, nofollow" {
		t.Errorf("the answer has %v", a.Header)
	}
	for _, lines := range [][]string{{"GET /robots.txt/x HTTP/1.1", demo, rightful}, {"POST /robots.txt HTTP/1.1", demo, rightful, "Content-Length: 0"}, {"GET /robots.txt HTTP/1.1", "Host: other.example.com"}} {
		if a := get(t, addr, lines...); a.Header.Get("App") == "" {
			t.Errorf("%q: not the app's, but %q", lines, a.body)
		}
	}
}
