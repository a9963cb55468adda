package edge_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// spellings are those that a CGI-like app takes for X-Forwarded-For.
var spellings = []string{
	"X-Forwarded-For", "x-forwarded-for", "X_Forwarded_For", "x_forwarded-for", "X-Forwarded_For",
	"X.Forwarded.For", "X!Forwarded~For", "X-Forwarded.For",
}

// S3, S4: what a visitor says of itself does not arrive, however it is spelled.
func TestForwardingFieldsOfVisitors(t *testing.T) {
	addr := exposed(t, server.Config{}, app(t, seen("app")), forward.Options{})
	var lines []string
	for _, s := range spellings {
		lines = append(lines, s+": 6.6.6.6")
	}
	for _, name := range []string{
		"Forwarded", "forwarded", "X-Real-IP", "x_real_ip", "X-Forwarded-Host", "X-Forwarded-Proto",
		"X-Forwarded-Port", "X-Forwarded-User", "X-Forwarded", "X-Forwarded-", "X_Forwarded_Proto",
		"Tunnel-Route", "tunnel_route", "Tunnel.Error", "Tunnel-Error", "Tunnel-Anything",
	} {
		lines = append(lines, name+": 6.6.6.6")
	}
	for _, connection := range []string{
		"Connection: close",
		"Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto",
		"Connection: X-Forwarded-For\r\nConnection: x-forwarded-proto,close",
		"Connection: close, x_forwarded_for",
	} {
		request := append([]string{"GET / HTTP/1.1", "Host: demo.example.com", connection, "X-Kept: yes"}, lines...)
		want := "GET /\nHost: demo.example.com\nX-Forwarded-For: 127.0.0.1\nX-Forwarded-Host: demo.example.com\nX-Forwarded-Proto: http\nX-Kept: yes\n"
		if a := get(t, addr, request...); a.body != want {
			t.Errorf("%q: the app saw\n%s", connection, a.body)
		}
	}
}

// S3: a server that takes trailers for header fields is not told either.
func TestForwardingFieldsInTrailers(t *testing.T) {
	addr := exposed(t, server.Config{}, app(t, seen("app")), forward.Options{})
	for _, announced := range []string{"", "Trailer: X-Forwarded-For, X-Kept, Tunnel-Route\r\n"} {
		v := visit(t, addr)
		v.send("POST / HTTP/1.1", "Host: demo.example.com", announced+"Transfer-Encoding: chunked", "",
			"3", "abc", "0", "X-Forwarded-For: 6.6.6.6", "X_Forwarded_Proto: https", "Tunnel-Route: other", "X-Kept: yes")
		a := v.receive("POST")
		if !a.has("trailer X-Kept: [yes]") || strings.Count(a.body, "trailer ") != 1 {
			t.Errorf("announced %q: the app saw\n%s", announced, a.body)
		}
	}
}

func TestForwardingFieldsOfTrustedProxies(t *testing.T) {
	config := server.Config{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	addr := exposed(t, config, app(t, seen("app")), forward.Options{})
	a := get(t, addr, "GET / HTTP/1.1", "Host: localhost",
		"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 2001:db8::1", "X-Forwarded-Host: demo.example.com:8443",
		"X-Forwarded-Proto: https", "X-Forwarded-Port: 8443", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1",
		"X_Forwarded_For: 6.6.6.6", "Tunnel-Route: other", "Tunnel-Error: app_refused", "Connection: close")
	want := []string{
		"GET /", "Host: demo.example.com:8443", "Forwarded: for=192.0.2.1",
		"X-Forwarded-For: 192.0.2.1, 2001:db8::1, 127.0.0.1", "X-Forwarded-Host: demo.example.com:8443",
		"X-Forwarded-Port: 8443", "X-Forwarded-Proto: https", "X-Real-Ip: 192.0.2.1",
	}
	if got := strings.Split(strings.TrimSpace(a.body), "\n"); !slices.Equal(got, want) {
		t.Errorf("the app saw\n%s", a.body)
	}
}

// A client that asked is told who each visitor is, on connections of its own and of
// HTTP/1.1 that others may have used before, and only by the server.
func TestVisitorIsNamed(t *testing.T) {
	for _, asks := range []bool{false, true} {
		addr := serve(t, server.Config{})
		publishAs(t, addr, tunnel.Options{Name: "demo", Visitor: asks}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header[protocol.HeaderVisitor])
		}))
		for range 3 {
			v := visit(t, addr)
			want := "[]"
			if asks {
				want = "[" + v.LocalAddr().String() + "]"
			}
			for _, lie := range []string{"Tunnel-Visitor: 6.6.6.6:6", "tunnel_visitor: 6.6.6.6:6", "Connection: Tunnel-Visitor", "X-Forwarded-For: 6.6.6.6"} {
				v.send("GET / HTTP/1.1", "Host: demo.example.com", lie)
				if a := v.receive("GET"); a.body != want {
					t.Errorf("asked %v, %s: the client is told %s, want %s", asks, lie, a.body, want)
				}
			}
		}
	}
}

func TestForwardedIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6 loopback:", err)
	} else {
		l.Close()
	}
	addr := exposed(t, server.Config{Listen: "[::1]:0"}, app(t, seen("app")), forward.Options{})
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); !a.has("X-Forwarded-For: ::1") {
		t.Errorf("the app saw\n%s", a.body)
	}
}

func TestForwardedProto(t *testing.T) {
	public, _ := url.Parse("https://example.com")
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		config server.Config
		field  string
		want   string
	}{
		{server.Config{}, "https", "http"},
		{server.Config{PublicURL: public}, "http", "https"},
		{server.Config{Trusted: trusted}, "https", "https"},
		{server.Config{Trusted: trusted}, "HTTPS", "https"},
		{server.Config{Trusted: trusted}, "wss", "https"},
		{server.Config{Trusted: trusted}, "http, https", "https"},
		{server.Config{Trusted: trusted}, "https, http", "http"},
		{server.Config{Trusted: trusted, PublicURL: public}, "http", "http"},
		{server.Config{Trusted: trusted, PublicURL: public}, "ws", "http"},
		{server.Config{Trusted: trusted, PublicURL: public}, "gopher", "https"},
		{server.Config{Trusted: trusted, PublicURL: public}, "", "https"},
		{server.Config{Trusted: trusted}, "", "http"},
	} {
		addr := serve(t, c.config)
		publish(t, addr, "demo", nil, seen("demo"))
		a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-Proto: "+c.field)
		if !a.has("X-Forwarded-Proto: " + c.want) {
			t.Errorf("public %v, trusted %v, %q: the app saw\n%s", c.config.PublicURL, c.config.Trusted, c.field, a.body)
		}
	}
}

// The local app cannot send a Tunnel-Error of its own, in any answer.
func TestTunnelErrorOfTheApp(t *testing.T) {
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("tunnel-error", "app_refused")
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", r.URL.Query().Get("trailer"))
		w.WriteHeader(http.StatusBadGateway)
		w.Write([]byte("the app's own"))
		w.Header().Set("tunnel-error", "app_refused")
		w.Header().Set(http.TrailerPrefix+"tunnel-error", "app_refused")
		w.Header().Set(http.TrailerPrefix+"Kept", "yes")
	}))
	addr := exposed(t, server.Config{}, target, forward.Options{})
	v := visit(t, addr)
	for _, announced := range []string{"", "Tunnel-Error"} {
		v.send("GET /?trailer="+announced+" HTTP/1.1", "Host: demo.example.com")
		for _, status := range []int{103, 502} {
			a := v.receive("GET")
			if a.StatusCode != status || len(a.Header[protocol.HeaderError]) > 0 || a.Header.Get("Link") == "" {
				t.Errorf("got %d with %q, want %d without Tunnel-Error", a.StatusCode, a.Header, status)
			}
			if _, ok := a.Trailer[protocol.HeaderError]; ok || status == 502 && a.Trailer.Get("Kept") != "yes" {
				t.Errorf("announced %q: the trailers are %q", announced, a.Trailer)
			}
		}
	}
}

// What a client says of its app becomes our page, and nothing that only the
// server can know may be said so.
func TestCodesOfTheClient(t *testing.T) {
	addr := serve(t, server.Config{})
	publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()[protocol.HeaderError] = []string{r.URL.Query().Get("code")}
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusTeapot)
		w.Write([]byte("the client's own page"))
	}))
	for said, want := range map[string]string{
		"app_refused": "502 app_refused", "app_timeout": "504 app_timeout", "app_bad_response": "502 app_bad_response",
		"overloaded": "503 overloaded", "bad_request": "400 bad_request",
		"name_unknown": "502 app_bad_response", "session_lost": "502 app_bad_response", "wrong_host": "502 app_bad_response",
		"unauthorized": "502 app_bad_response", "<script>": "502 app_bad_response", "": "502 app_bad_response",
	} {
		a := get(t, addr, "GET /?code="+url.QueryEscape(said)+" HTTP/1.1", "Host: demo.example.com", "Accept: text/html")
		if answered(a) != want || strings.Contains(a.body, "client's own") || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%q: got %s %q", said, answered(a), a.body)
		}
	}
	// Also where it comes with an interim response.
	publish(t, addr, "early", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()[protocol.HeaderError] = []string{"app_timeout"}
		w.WriteHeader(http.StatusEarlyHints)
	}))
	if a := get(t, addr, "GET / HTTP/1.1", "Host: early.example.com"); answered(a) != "504 app_timeout" {
		t.Errorf("interim: got %s", answered(a))
	}
}

// One name needs no Tunnel-Route.
func TestNoRouteFieldForOneName(t *testing.T) {
	addr := serve(t, server.Config{})
	publish(t, addr, "demo", nil, seen("client"))
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); strings.Contains(a.body, "Tunnel-") {
		t.Errorf("the client saw\n%s", a.body)
	}
}

// S20, through a route without a policy and one with.
func TestCookieOfTheParent(t *testing.T) {
	addr := serve(t, server.Config{})
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "a=b; Domain=example.com; Secure")
	}))
	publish(t, addr, "plain", nil, to(t, target, forward.Options{}))
	publish(t, addr, "rewritten", &protocol.Upstream{Scheme: "http", Host: "app.test"}, to(t, target, forward.Options{}))
	for _, name := range []string{"plain", "rewritten"} {
		a := get(t, addr, "GET / HTTP/1.1", "Host: "+name+".example.com")
		if got := a.Header.Get("Set-Cookie"); got != "a=b; Secure" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// A Tunnel-Error that a client lets through must not pass for ours, nor what a
// CGI-like visitor would take for it.
func TestTunnelErrorSpelled(t *testing.T) {
	addr := serve(t, server.Config{})
	publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tunnel_Error", "app_refused")
		w.Header()["tunnel.error"] = []string{"app_refused"}
		w.Header().Set("Tunnel_Kept", "yes")
		w.Header().Set("Trailer", r.URL.Query().Get("trailer"))
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		for _, name := range []string{"Tunnel-Error", "Tunnel_Error", "tunnel.error"} {
			w.Header()[http.TrailerPrefix+name] = []string{"app_refused"}
		}
		w.Header().Set("Tunnel_error", "app_refused")
		w.Header().Set(http.TrailerPrefix+"Kept", "yes")
	}))
	for _, announced := range []string{"", "Tunnel_error"} {
		a := get(t, addr, "GET /?trailer="+announced+" HTTP/1.1", "Host: demo.example.com")
		if a.body != "body" || a.Header.Get("Tunnel_kept") != "yes" || a.Trailer.Get("Kept") != "yes" {
			t.Errorf("got %q with %q and %q", a.body, a.Header, a.Trailer)
		}
		for _, fields := range []http.Header{a.Header, a.Trailer} {
			for name := range fields {
				if strings.EqualFold(strings.NewReplacer("_", "-", ".", "-").Replace(name), protocol.HeaderError) {
					t.Errorf("announced %q: the visitor sees %s", announced, name)
				}
			}
		}
	}
}
