package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/server"
)

// Without TLS a visitor is redirected, but for what has to be served so.
func TestRedirect(t *testing.T) {
	challenges := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/.well-known/acme-challenge/known" {
				io.WriteString(w, "proof for "+r.Host)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	config := server.Config{TLS: &server.TLS{Challenges: challenges, AllowPlain: []string{"open"}}}
	config.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	h := secure(t, config)
	publish(t, h.plain, "demo", nil, seen("demo"))
	publish(t, h.plain, "open", nil, seen("open"))
	const afar = "X-Forwarded-For: 203.0.113.7"
	for _, test := range []struct {
		request, host, field string
		want                 string
	}{
		{"GET /a%7Cb?c;d", "demo.example.com", afar, "308 https://demo.example.com:PORT/a%7Cb?c;d"},
		{"POST /", "demo.example.com:80", afar, "308 https://demo.example.com:PORT/"},
		{"OPTIONS *", "demo.example.com", afar, "308 https://demo.example.com:PORT"},
		{"GET http://demo.example.com/x", "demo.example.com", afar, "308 https://demo.example.com:PORT/x"},
		{"GET //evil.test/", "demo.example.com", afar, "308 https://demo.example.com:PORT//evil.test/"},
		{"GET /", "DEMO.Example.com.", afar, "308 https://demo.example.com:PORT/"},
		{"GET /", "nobody.example.com", afar, "404 name_unknown"},
		{"GET /", "evil.test", afar, "421 wrong_host"},
		{"GET /", "open.example.com", afar, "200 open"},
		{"GET /", "demo.example.com", "X-Forwarded-Proto: https", "200 demo"},
		{"GET /", "demo.example.com", "X-Forwarded-Proto: http", "308 https://demo.example.com:PORT/"},
		{"GET /.well-known/acme-challenge/known", "demo.example.com", afar, "200 proof for demo.example.com"},
		{"GET /.well-known/acme-challenge/known", "nobody.example.com", afar, "200 proof for nobody.example.com"},
		{"GET /.well-known/acme-challenge/unknown", "demo.example.com", afar, "308 https://demo.example.com:PORT/.well-known/acme-challenge/unknown"},
		{"GET /", "example.com", afar, "308 https://example.com:PORT/"},
		{"GET /", "[2001:db8::1]", afar, "308 https://[2001:db8::1]:PORT/"},
		{"GET /healthz", "example.com", afar, "200 ok"},
		{"GET /readyz", "127.0.0.1", afar, "200 ok"},
		{"GET /.well-known/tunnel/0123456789abcdef", "example.com", afar, "308 https://example.com:PORT/.well-known/tunnel/0123456789abcdef"},
		// The client that published connected so: from this machine.
		{"GET /.well-known/tunnel/0123456789abcdef", "example.com", "X: y", "426 upgrade_required"},
	} {
		t.Run(test.request+" "+test.host+" "+test.field, func(t *testing.T) {
			a := get(t, h.plain, test.request+" HTTP/1.1", "Host: "+test.host, test.field, "Connection: close")
			got := fmt.Sprint(a.StatusCode, " ", a.Header.Get("Location"))
			switch {
			case a.code() != "":
				got = answered(a)
			case a.StatusCode == 426:
				got = "426 upgrade_required"
			case a.Header.Get("App") != "":
				got = "200 " + a.Header.Get("App")
			case a.StatusCode == 200:
				got = "200 " + strings.TrimSpace(a.body)
			}
			if want := strings.ReplaceAll(test.want, "PORT", h.port); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if a.Header["Strict-Transport-Security"] != nil || a.Header["Alt-Svc"] != nil {
				t.Errorf("it announces %v", a.Header)
			}
		})
	}
	t.Run("a body", func(t *testing.T) {
		v := visit(t, h.plain)
		v.send("POST / HTTP/1.1", "Host: demo.example.com", "Content-Length: 1000000", "", "begin")
		if a := v.receive("POST"); a.StatusCode != 308 || !a.Close {
			t.Errorf("%s, close %v", a.Status, a.Close)
		}
	})
}
