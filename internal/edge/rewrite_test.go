package edge

import (
	"net/http"
	"testing"

	"github.com/revtun/tunnel/internal/policy"
)

func TestRewriteRequest(t *testing.T) {
	local := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	secure := &policy.Policy{Scheme: "https", Host: "app.test"}
	for _, c := range []struct {
		scheme, host string // of the visitor
		policy       *policy.Policy
		in, want     string
	}{
		{"http", "demo.example.com:8080", local, "http://demo.example.com:8080", "http://localhost:3000"},
		{"http", "demo.example.com:8080", local, "http://demo.example.com:8080/a?b#c", "http://localhost:3000/a?b#c"},
		{"http", "demo.example.com", local, "http://demo.example.com?a", "http://localhost:3000?a"},
		{"http", "DEMO.example.com", local, "HTTP://demo.Example.com/A", "http://localhost:3000/A"},
		{"http", "demo.example.com", local, "http://demo.example.com:80/", "http://localhost:3000/"},
		{"http", "demo.example.com:80", local, "http://demo.example.com/", "http://localhost:3000/"},
		{"https", "demo.example.com", local, "https://demo.example.com", "http://localhost:3000"},
		{"https", "demo.example.com", local, "https://demo.example.com:443/", "http://localhost:3000/"},
		{"https", "demo.example.com", secure, "https://demo.example.com/", "https://app.test/"},
		// A proxy in front that does not tell of its TLS.
		{"http", "demo.example.com", local, "https://demo.example.com", "http://localhost:3000"},

		{"http", "demo.example.com:8080", local, "http://demo.example.com", "http://demo.example.com"},
		{"http", "demo.example.com:8080", local, "http://demo.example.com:8081", "http://demo.example.com:8081"},
		{"https", "demo.example.com", local, "http://demo.example.com", "http://demo.example.com"},
		{"https", "demo.example.com", local, "https://demo.example.com:80", "https://demo.example.com:80"},
		{"http", "demo.example.com", local, "http://other.example.com", "http://other.example.com"},
		{"http", "demo.example.com", local, "http://demo.example.com.evil.test", "http://demo.example.com.evil.test"},
		{"http", "demo.example.com", local, "http://demo.example.com@evil.test/", "http://demo.example.com@evil.test/"},
		{"http", "demo.example.com", local, `http://demo.example.com\.evil.test/`, `http://demo.example.com\.evil.test/`},
		{"http", "demo.example.com", local, "ftp://demo.example.com/", "ftp://demo.example.com/"},
		{"http", "demo.example.com", local, "null", "null"},
		{"http", "demo.example.com", local, "", ""},
		{"http", "demo.example.com", local, "/relative//demo.example.com", "/relative//demo.example.com"},
		{"http", "demo.example.com", nil, "http://demo.example.com", "http://demo.example.com"},
		{"http", "demo.example.com", &policy.Policy{}, "http://demo.example.com", "http://demo.example.com"},
	} {
		for _, name := range []string{"Origin", "Referer", "Destination"} {
			out := &http.Request{Header: http.Header{name: {c.in}, "X-Origin": {c.in}}}
			rewriteRequest(out, &visit{scheme: c.scheme, host: c.host}, c.policy)
			if got := out.Header.Get(name); got != c.want {
				t.Errorf("%s://%s, %s: %q became %q, want %q", c.scheme, c.host, name, c.in, got, c.want)
			}
			if out.Header.Get("X-Origin") != c.in {
				t.Errorf("another field was rewritten")
			}
			host := c.host
			if c.policy.Rewrites() {
				host = c.policy.Host
			}
			if out.Host != host {
				t.Errorf("Host is %q, want %q", out.Host, host)
			}
		}
	}
}

func TestRewriteResponse(t *testing.T) {
	local := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	plain := &policy.Policy{Scheme: "http", Host: "app.test"}
	secure := &policy.Policy{Scheme: "https", Host: "app.test"}
	for _, c := range []struct {
		scheme, host string // of the visitor
		policy       *policy.Policy
		in, want     string
	}{
		{"http", "demo.example.com:8080", local, "http://localhost:3000/a?b#c", "http://demo.example.com:8080/a?b#c"},
		{"https", "demo.example.com", local, "http://localhost:3000", "https://demo.example.com"},
		{"https", "demo.example.com", local, "http://LOCALHOST:3000?a", "https://demo.example.com?a"},
		{"https", "demo.example.com", local, "//localhost:3000/a", "https://demo.example.com/a"},
		// The app was told of https by X-Forwarded-Proto.
		{"https", "demo.example.com", local, "https://localhost:3000/", "https://demo.example.com/"},
		{"https", "demo.example.com", plain, "https://app.test/", "https://demo.example.com/"},
		{"http", "demo.example.com:8080", plain, "http://app.test:80/", "http://demo.example.com:8080/"},
		{"http", "demo.example.com:8080", secure, "https://app.test:443/", "http://demo.example.com:8080/"},
		{"http", "demo.example.com:8080", secure, "//app.test", "http://demo.example.com:8080"},

		{"http", "demo.example.com", local, "/a//localhost:3000", "/a//localhost:3000"},
		{"http", "demo.example.com", local, "a", "a"},
		{"http", "demo.example.com", local, "", ""},
		{"http", "demo.example.com", local, "*", "*"},
		{"http", "demo.example.com", local, "http//localhost:3000/", "http//localhost:3000/"},
		{"http", "demo.example.com", local, "http:/localhost:3000/", "http:/localhost:3000/"},
		{"http", "demo.example.com", local, "http://localhost/", "http://localhost/"},
		{"http", "demo.example.com", local, "http://localhost:3001/", "http://localhost:3001/"},
		{"http", "demo.example.com", local, "https://login.test/?to=http://localhost:3000/", "https://login.test/?to=http://localhost:3000/"},
		{"http", "demo.example.com", local, "app://localhost:3000/", "app://localhost:3000/"},
		{"http", "demo.example.com", nil, "http://localhost:3000/", "http://localhost:3000/"},
	} {
		for _, name := range []string{"Location", "Content-Location", "Access-Control-Allow-Origin"} {
			res := &http.Response{Header: http.Header{name: {c.in}}}
			r := &http.Request{Header: http.Header{"Origin": {c.scheme + "://" + c.host}}}
			rewriteResponse(res, r, &visit{scheme: c.scheme, host: c.host}, c.policy)
			if got := res.Header.Get(name); got != c.want {
				t.Errorf("%s://%s, %s: %q became %q, want %q", c.scheme, c.host, name, c.in, got, c.want)
			}
		}
	}
}

// A page that was loaded from the local app itself calls the public name: what
// the app allows is the page, not the public name.
func TestAllowedOriginThatIsLocal(t *testing.T) {
	const name, page = "Access-Control-Allow-Origin", "http://localhost:3000"
	res := &http.Response{Header: http.Header{name: {page}}}
	r := &http.Request{Header: http.Header{"Origin": {page}}}
	rewriteResponse(res, r, &visit{scheme: "http", host: "demo.example.com"}, &policy.Policy{Scheme: "http", Host: "localhost:3000"})
	if got := res.Header.Get(name); got != page {
		t.Errorf("got %q, want %q", got, page)
	}
}

func TestRewriteCookies(t *testing.T) {
	for _, c := range []struct{ local, public, in, want string }{
		{"app.test:3000", "demo.example.com:8080", "a=b; Domain=app.test; Path=/", "a=b; Domain=demo.example.com; Path=/"},
		{"app.test", "Demo.example.com.", "a=b;domain=.APP.test;HttpOnly", "a=b;domain=demo.example.com;HttpOnly"},
		{"www.app.test", "demo.example.com", "a=b; Domain=app.test", "a=b; Domain=demo.example.com"},
		{"[::1]:3000", "demo.example.com", "a=b; Domain=::1", "a=b; Domain=demo.example.com"},
		{"app.test", "demo.example.com", "a=Domain=app.test; Path=/", "a=Domain=app.test; Path=/"},
		{"app.test", "demo.example.com", "Domain=app.test", "Domain=app.test"},
		{"app.test", "demo.example.com", "a=b; Domain=other.test", "a=b; Domain=other.test"},
		{"app.test", "demo.example.com", "a=b; Domain=www.app.test", "a=b; Domain=www.app.test"},
		{"app.test", "demo.example.com", "a=b; Domain=; Secure", "a=b; Domain=; Secure"},
		{"app.test", "demo.example.com", "a=b; Domain", "a=b; Domain"},
		{"myapp.test", "demo.example.com", "a=b; Domain=app.test", "a=b; Domain=app.test"},
	} {
		res := &http.Response{Header: http.Header{"Set-Cookie": {"first=1", c.in}}}
		v := &visit{scheme: "http", host: c.public}
		rewriteResponse(res, &http.Request{}, v, &policy.Policy{Scheme: "http", Host: c.local})
		if got := res.Header["Set-Cookie"]; got[0] != "first=1" || got[1] != c.want {
			t.Errorf("%s to %s: %q became %q, want %q", c.local, c.public, c.in, got[1], c.want)
		}
	}
}

// S20: no tenant sets a cookie for the others.
func TestConfineCookies(t *testing.T) {
	for _, c := range []struct{ domain, in, want string }{
		{"example.com", "a=b; Domain=example.com; Path=/", "a=b; Path=/"},
		{"example.com", "a=b; Path=/;domain = .EXAMPLE.com ;Secure", "a=b; Path=/;Secure"},
		{"example.com", "a=b; Domain=com", "a=b"},
		{"example.com", "a=b; Domain=example.com.", "a=b"},
		{"example.com", "a=b; Domain=..example.com", "a=b"},
		{"example.com", "a=b; Domain=demo.example.com; Domain=example.com", "a=b; Domain=demo.example.com"},
		{"example.com", "a=b; Domain=ex%61mple.com", "a=b"},
		{"example.com", "a=b; Domain=\"example.com\"", "a=b"},
		{"example.com", "a=b; Domain=\uff45xample.com", "a=b"},
		{"localhost", "a=b; Domain=localhost", "a=b"},
		{"localhost", "a=b; Domain=.localhost", "a=b"},

		{"example.com", "a=b; Domain=demo.example.com", "a=b; Domain=demo.example.com"},
		{"example.com", "a=b; Domain=ample.com", "a=b; Domain=ample.com"},
		{"example.com", "a=b; Domain=other.test; Path=/", "a=b; Domain=other.test; Path=/"},
		{"example.com", "a=Domain=example.com ;  Path=/", "a=Domain=example.com ;  Path=/"},
		{"example.com", "Domain=example.com", "Domain=example.com"},
		{"example.com", "a=b; Domain=; Domain", "a=b; Domain=; Domain"},
	} {
		header := http.Header{"Set-Cookie": {"first=1", c.in}}
		(&HTTP{Domain: c.domain}).confineCookies(header)
		if got := header["Set-Cookie"]; got[0] != "first=1" || got[1] != c.want {
			t.Errorf("%s: %q became %q, want %q", c.domain, c.in, got, c.want)
		}
	}
}
