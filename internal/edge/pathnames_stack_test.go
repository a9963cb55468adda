package edge_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// S5, S13: one tenant for each path, however it is spelled, or none; and what is the
// server's own is never a tenant's.
func TestPathNames(t *testing.T) {
	public, _ := url.Parse("https://public.example.com")
	addr := tenants(t, server.Config{PathNames: true, PublicURL: public})
	const (
		unknown, missing, bad, wrong = "404 name_unknown", "404 not_found", "400 bad_request", "421 wrong_host"
	)
	for _, c := range []struct{ request, host, want, target string }{
		{"GET /demo/ HTTP/1.1", "example.com", "demo", "/"},
		{"GET /demo/a/b?c HTTP/1.1", "Example.COM.:8080", "demo", "/a/b?c"},
		{"GET /other/x HTTP/1.1", "public.example.com", "other", "/x"},
		{"GET /demo/ HTTP/1.1", "127.0.0.1", "demo", "/"},
		{"GET /demo/ HTTP/1.1", "localhost", "demo", "/"},
		{"GET http://example.com/demo/a HTTP/1.1", "example.com", "demo", "/a"},
		{"GET /demo//a/%2F;x?y=;z HTTP/1.1", "example.com", "demo", "//a/%2F;x?y=;z"},
		{"GET /demo/other/ HTTP/1.1", "example.com", "demo", "/other/"},
		{"GET /demo/healthz HTTP/1.1", "example.com", "demo", "/healthz"},
		{"GET /demo/.well-known/tunnel HTTP/1.1", "example.com", "demo", "/.well-known/tunnel"},
		{"GET /demo/a/../b HTTP/1.1", "example.com", "demo", "/a/../b"},
		// By its host a name is reached all the same, and there the path is the app's.
		{"GET /other/x HTTP/1.1", "demo.example.com", "demo", "/other/x"},
		{"GET /../x HTTP/1.1", "demo.example.com", "demo", "/../x"},

		{"GET /nobody/ HTTP/1.1", "example.com", unknown, ""},
		{"GET /nobody HTTP/1.1", "example.com", unknown, ""},
		{"GET /demo/../other/ HTTP/1.1", "example.com", bad, ""},
		{"GET /demo/%2e%2E/other/ HTTP/1.1", "example.com", bad, ""},
		{"GET /demo/..%2fother/ HTTP/1.1", "example.com", bad, ""},
		{"GET /demo/..;/other/ HTTP/1.1", "example.com", bad, ""},
		{`GET /demo/..\other/ HTTP/1.1`, "example.com", bad, ""},
		{"GET /demo/ HTTP/1.1", "example.org", wrong, ""},

		{"GET / HTTP/1.1", "example.com", "own", ""},
		{"GET /healthz HTTP/1.1", "example.com", "own", ""},
		{"GET /readyz HTTP/1.1", "example.com", "own", ""},
		{"GET /.well-known/tunnel HTTP/1.1", "example.com", "own", ""},
		{"GET /%68ealthz HTTP/1.1", "example.com", "own", ""},
		{"GET /healthz/ HTTP/1.1", "example.com", missing, ""},
		{"GET /.well-known/acme-challenge/demo HTTP/1.1", "example.com", missing, ""},
		{"GET /.well-known/tunnel/demo/ HTTP/1.1", "example.com", missing, ""},
		{"GET /%64emo/ HTTP/1.1", "example.com", missing, ""},
		{"GET /demo%2F HTTP/1.1", "example.com", missing, ""},
		{"GET /demo;x/ HTTP/1.1", "example.com", missing, ""},
		{"GET /Demo/ HTTP/1.1", "example.com", missing, ""},
		{"GET /favicon.ico HTTP/1.1", "example.com", missing, ""},
		{"GET /demo%5c/ HTTP/1.1", "example.com", missing, ""},
	} {
		a := get(t, addr, c.request, "Host: "+c.host, "Connection: close")
		if got := answered(a); got != c.want {
			t.Errorf("%s at %s: answered by %s, want %s", c.request, c.host, got, c.want)
		} else if c.target != "" && !strings.HasPrefix(a.body, "GET "+c.target+"\n") {
			t.Errorf("%s at %s: the app saw %.60q, want %s", c.request, c.host, a.body, c.target)
		}
	}
	// What is no name, but cleaned would be one, is the server's to answer.
	for _, target := range []string{"//demo/", "/./demo/", "/../demo/", "/x/../demo/", "/%2e%2e/demo/", "//other/../demo/x"} {
		a := get(t, addr, "GET "+target+" HTTP/1.1", "Host: example.com", "Connection: close")
		if got := answered(a); got == "demo" || got == "other" {
			t.Errorf("%s: answered by %s", target, got)
		}
	}
	off := tenants(t, server.Config{})
	if got := answered(get(t, off, "GET /demo/ HTTP/1.1", "Host: example.com")); got != missing {
		t.Errorf("without path names: %s", got)
	}
}

// The page of a name is below it, wherever its links lead.
func TestPathNameBare(t *testing.T) {
	addr := tenants(t, server.Config{PathNames: true})
	for request, want := range map[string]string{"GET /demo HTTP/1.1": "/demo/", "POST /demo?a=/b HTTP/1.1": "/demo/?a=/b", "HEAD /demo HTTP/1.1": "/demo/"} {
		v := visit(t, addr)
		v.send(request, "Host: example.com", "Connection: close")
		method, _, _ := strings.Cut(request, " ")
		if a := v.receive(method); a.StatusCode != http.StatusPermanentRedirect || a.Header.Get("Location") != want {
			t.Errorf("%s: %d to %q", request, a.StatusCode, a.Header.Get("Location"))
		}
	}
}

// X-Forwarded-Prefix is ours, where there is one and where there is none.
func TestForwardedPrefix(t *testing.T) {
	addr := tenants(t, server.Config{PathNames: true})
	for _, field := range []string{"X-Forwarded-Prefix", "x-forwarded-prefix", "X_Forwarded_Prefix", "Connection: X-Forwarded-Prefix\r\nX-Forwarded-Prefix"} {
		a := get(t, addr, "GET /demo/ HTTP/1.1", "Host: example.com", field+": /evil")
		if strings.Contains(a.body, "evil") || strings.Count(strings.ToLower(a.body), "forwarded-prefix") != 1 || !a.has("X-Forwarded-Prefix: /demo") {
			t.Errorf("%s: the app saw\n%s", field, a.body)
		}
		if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com", field+": /evil"); strings.Contains(strings.ToLower(a.body), "prefix:") {
			t.Errorf("%s by the host: the app saw\n%s", field, a.body)
		}
	}
}

// A whole way: what the app redirects to, and sets cookies for, comes back below
// its name, and the app sees itself at its root.
func TestPathNameRoundTrip(t *testing.T) {
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b; Path=/; Domain=example.com")
		w.Header().Set("Location", "http://"+r.Host+"/next?from="+r.URL.Path)
		w.Header().Set("Referer-Seen", r.Header.Get("Referer"))
		w.WriteHeader(http.StatusSeeOther)
	}))
	addr := serve(t, server.Config{PathNames: true})
	publish(t, addr, "demo", &protocol.Upstream{Scheme: "http", Host: target}, to(t, target, forward.Options{}))
	a := get(t, addr, "GET /demo/first HTTP/1.1", "Host: example.com", "Referer: http://example.com/demo/zero")
	for name, want := range map[string]string{
		"Location": "http://example.com/demo/next?from=/first", "Set-Cookie": "a=b; Path=/demo/", "Referer-Seen": "http://" + target + "/zero",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
