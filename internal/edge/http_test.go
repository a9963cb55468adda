package edge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// The three values of --host-header, with a proxy in front that speaks TLS.
func TestHostHeader(t *testing.T) {
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/login")
		w.Header().Set("Set-Cookie", "a=b; Domain="+strings.Split(r.Host, ":")[0])
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		seen("app").ServeHTTP(w, r)
	}))
	addr := serve(t, server.Config{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	publish(t, addr, "rewrite", &protocol.Upstream{Scheme: "http", Host: target}, to(t, target, forward.Options{}))
	publish(t, addr, "preserve", nil, to(t, target, forward.Options{}))
	publish(t, addr, "value", &protocol.Upstream{Scheme: "http", Host: "app.test"}, to(t, target, forward.Options{}))
	for name, local := range map[string]string{"rewrite": "http://" + target, "preserve": "", "value": "http://app.test"} {
		for _, port := range []string{"", ":8443"} {
			host := name + ".example.com" + port
			public := "https://" + host
			if name == "preserve" {
				local = public
			}
			a := get(t, addr, "PUT / HTTP/1.1", "Host: "+host, "X-Forwarded-Proto: https", "Origin: "+public,
				"Referer: "+public+"/page", "Destination: "+public+"/there", "X-Other: "+public)
			_, localHost, _ := strings.Cut(local, "://")
			for _, line := range []string{
				"Host: " + localHost, "Origin: " + local, "Referer: " + local + "/page", "Destination: " + local + "/there",
				"X-Other: " + public, "X-Forwarded-Host: " + host, "X-Forwarded-Proto: https", "X-Forwarded-For: 127.0.0.1",
			} {
				if !a.has(line) {
					t.Errorf("%s: the app did not see %q, but\n%s", host, line, a.body)
				}
			}
			want := map[string]string{
				"Location": public + "/login", "Access-Control-Allow-Origin": public,
				"Set-Cookie": "a=b; Domain=" + name + ".example.com",
			}
			if name == "preserve" { // it touches nothing, not even the scheme
				want["Location"] = "http://" + host + "/login"
			}
			for field, value := range want {
				if got := a.Header.Get(field); got != value {
					t.Errorf("%s: %s is %q, want %q", host, field, got, value)
				}
			}
		}
	}
}

// R25: ours answer at the limits, the app is not bothered, and the parser's own
// limit lies well above.
func TestLimits(t *testing.T) {
	var requests atomic.Int64
	target := app(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	const maxURI, maxHeader = 3000, 5000
	addr := exposed(t, server.Config{MaxURIBytes: maxURI, MaxHeaderBytes: maxHeader}, target, forward.Options{})
	// Host and one field, each as name + value + 4.
	const rest = len("Host") + len("demo.example.com") + 4 + len("X") + 4
	for _, c := range []struct {
		uri, header int
		want        string
	}{
		{maxURI - 1, 1000, "200"},
		{maxURI, 1000, "200"},
		{maxURI + 1, 1000, "414 uri_too_long"},
		{2 * maxURI, 1000, "414 uri_too_long"},
		{10, maxHeader - 1, "200"},
		{10, maxHeader, "200"},
		{maxURI, maxHeader, "200"},
		{10, maxHeader + 1, "431 headers_too_large"},
		{10, 2 * maxHeader, "431 headers_too_large"},
		{maxURI + 1, maxHeader + 1, "414 uri_too_long"},
	} {
		uri := "/" + strings.Repeat("u", c.uri-1)
		value := strings.Repeat("v", c.header-rest)
		first := answered(get(t, addr, "GET "+uri+" HTTP/1.1", "Host: demo.example.com", "X: "+value))
		a, _ := getHTTP2(t, addr, [][2]string{
			{":method", "GET"}, {":scheme", "http"}, {":authority", "demo.example.com"}, {":path", uri}, {"x", value},
		})
		for proto, got := range map[string]string{"HTTP/1.1": first, "HTTP/2": answered(a)} {
			if strings.Replace(got, "own", "200", 1) != c.want {
				t.Errorf("%s: URI of %d and header of %d bytes: got %s, want %s", proto, c.uri, c.header, got, c.want)
			}
		}
	}
	if got := requests.Load(); got != 10 {
		t.Errorf("the app had %d requests, want 10", got)
	}
	// Many small fields, and trailers that are announced, count the same.
	small := make([]string, (maxHeader-rest)/7+1)
	for i := range small {
		small[i] = "Ab: c"
	}
	for _, fields := range [][]string{small, {"Transfer-Encoding: chunked", "Trailer: " + manyNames(maxHeader/14)}} {
		v := visit(t, addr)
		v.send(append([]string{"GET / HTTP/1.1", "Host: demo.example.com"}, fields...)...)
		if a := v.receive("GET"); answered(a) != "431 headers_too_large" {
			t.Errorf("%.40q…: got %s", fields[0], answered(a))
		}
	}
	// Far above it is net/http that answers.
	a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com", "X: "+strings.Repeat("v", 4*(maxHeader+maxURI)))
	if a.StatusCode != 431 || a.code() != "" {
		t.Errorf("far above the limit: got %s", answered(a))
	}
	if got := requests.Load(); got != 10 {
		t.Errorf("the app had %d requests, want 10", got)
	}
}

func manyNames(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("X-%04d", i)
	}
	return strings.Join(names, ",")
}

// Requests that are unusual and valid.
func TestUnusualRequests(t *testing.T) {
	addr := exposed(t, server.Config{}, app(t, seen("app")), forward.Options{})

	t.Run("pipelined", func(t *testing.T) {
		v := visit(t, addr)
		v.send("GET /1 HTTP/1.1", "Host: demo.example.com", "", "POST /2 HTTP/1.1", "Host: demo.example.com", "Content-Length: 3", "",
			"abcGET /3 HTTP/1.1", "Host: demo.example.com", "", "GET /4 HTTP/1.1", "Host: nobody.example.com", "",
			"CONNECT demo.example.com:80 HTTP/1.1", "Host: demo.example.com:80", "", "HEAD /6 HTTP/1.1", "Host: nobody.example.com", "",
			"GET /7 HTTP/1.1", "Host: demo.example.com")
		for i, c := range []struct{ method, want string }{
			{"GET", "app"}, {"POST", "app"}, {"GET", "app"}, {"GET", "404 name_unknown"}, {"GET", "400 bad_request"},
			{"HEAD", "404 name_unknown"}, {"GET", "app"},
		} {
			a := v.receive(c.method)
			if answered(a) != c.want || c.want == "app" && !a.has(fmt.Sprintf("%s /%d", c.method, i+1)) {
				t.Errorf("request %d: got %s\n%s", i+1, answered(a), a.body)
			}
		}
	})
	t.Run("HTTP/1.0 keep-alive", func(t *testing.T) {
		v := visit(t, addr)
		for range 2 {
			v.send("GET / HTTP/1.0", "Host: demo.example.com", "Connection: keep-alive")
			if a := v.receive("GET"); answered(a) != "app" || a.Header.Get("Connection") != "keep-alive" {
				t.Errorf("got %s with Connection %q", answered(a), a.Header.Get("Connection"))
			}
		}
		v.send("GET / HTTP/1.0", "Host: nobody.example.com")
		if a := v.receive("GET"); answered(a) != "404 name_unknown" {
			t.Errorf("got %s", answered(a))
		}
		if _, err := v.r.ReadByte(); err != io.EOF {
			t.Errorf("without keep-alive the connection stays: %v", err)
		}
	})
	t.Run("HTTP/2 preface that is none", func(t *testing.T) {
		v := visit(t, addr)
		v.send("PRI * HTTP/2.0", "Host: demo.example.com", "", "SM")
		if a := v.receive("GET"); answered(a) != "400 bad_request" {
			t.Errorf("got %s", answered(a))
		}
	})
	t.Run("OPTIONS * of the own host", func(t *testing.T) {
		if a := get(t, addr, "OPTIONS * HTTP/1.1", "Host: example.com"); a.StatusCode != 400 {
			t.Errorf("got %s", answered(a))
		}
	})
	t.Run("TRACE with spoofed fields", func(t *testing.T) {
		a := get(t, addr, "TRACE / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-For: 6.6.6.6")
		if !a.has("TRACE /") || !a.has("X-Forwarded-For: 127.0.0.1") {
			t.Errorf("the app saw\n%s", a.body)
		}
	})
}

// One line a request, at debug level alone, and nothing secret in it.
func TestAccessLog(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		t.Run(level.String(), func(t *testing.T) {
			log := new(logs)
			addr := exposed(t, server.Config{Log: log.at(level)}, app(t, seen("app")), forward.Options{})
			get(t, addr, "POST /path;x?secret=query HTTP/1.1", "Host: demo.example.com", "Authorization: Bearer secret",
				"Cookie: secret=1", "Referer: http://secret.test/", "User-Agent: secret", "Content-Length: 0")
			if level == slog.LevelDebug {
				poll.Until(t, "the access line", func() bool { return len(access(log)) == 1 })
				line := access(log)[0]
				for _, part := range []string{"level=DEBUG", "remote=127.0.0.1", "method=POST", "host=demo.example.com", "path=/path;x", "proto=HTTP/1.1", "status=200", "bytes=", "ms="} {
					if !strings.Contains(line, part) {
						t.Errorf("no %q in %s", part, line)
					}
				}
			} else if n := len(access(log)); n > 0 {
				t.Errorf("%d access lines", n)
			}
			if all := strings.Join(log.lines(), "\n"); strings.Contains(all, "secret") {
				t.Errorf("a secret in the log:\n%s", all)
			}
		})
	}
}

// access returns the lines of visitors' requests.
func access(log *logs) (found []string) {
	for _, line := range log.lines() {
		if strings.Contains(line, "msg=request ") && !strings.Contains(line, "path=/.well-known/tunnel/") {
			found = append(found, line)
		}
	}
	return found
}

// Whoever scans for names does not fill the log.
func TestUnknownNamesAreLoggedAtDebug(t *testing.T) {
	log := new(logs)
	addr := exposed(t, server.Config{Log: log.at(slog.LevelInfo)}, "127.0.0.1:1", forward.Options{})
	get(t, addr, "GET / HTTP/1.1", "Host: nobody.example.com")
	get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com")
	all := strings.Join(log.lines(), "\n")
	if strings.Contains(all, "nobody") || !strings.Contains(all, `msg="request failed" name=demo code=app_refused`) {
		t.Errorf("the log is\n%s", all)
	}
}

// S22: what a visitor or a client sends stays in one line, and is escaped.
func TestLogInjection(t *testing.T) {
	log := new(logs)
	addr := serve(t, server.Config{Log: log.at(slog.LevelDebug), Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()[protocol.HeaderError] = []string{"\u009b2J" + strings.Repeat("x", 10_000)}
		w.WriteHeader(http.StatusBadGateway)
	}))
	for _, lines := range [][]string{
		{"GET /%0d%0aforged=1%1b[2J HTTP/1.1", "Host: demo.example.com"},
		{"GET / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-Host: \xc2\x9b2J level=ERROR \"forged\""},
		{"GET / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-Host: demo.example.com\tforged"},
		{"GET / HTTP/1.1", "Host: demo.example.com\x1b[2J"},
		{"GET /\x1b[2J HTTP/1.1", "Host: demo.example.com"},
		{"GE\x1bT / HTTP/1.1", "Host: demo.example.com"},
		{"GET / HTTP/1.1\x1b[2J", "Host: demo.example.com"},
	} {
		get(t, addr, append(lines, "Connection: close")...)
	}
	getHTTP2(t, addr, [][2]string{{":method", "G\u009bT"}, {":scheme", "http"}, {":path", "/\u009b2J"}, {":authority", "\u009b2J.example.com"}})
	poll.Until(t, "the access lines", func() bool { return len(access(log)) >= 4 })
	for _, line := range log.lines() {
		if !strings.HasPrefix(line, "time=") || strings.ContainsAny(line, "\x1b\x00\r\t\u009b") || len(line) > 1000 {
			t.Errorf("in the log: %q", line)
		}
	}
}

// What is wrong with the server itself is not hidden among what visitors do.
func TestPanicsAreLogged(t *testing.T) {
	log := new(logs)
	h := &edge.HTTP{Domain: "example.com", Log: log.at(slog.LevelInfo), Own: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("bug")
	})}
	addr := listen(t, h)
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: example.com")
	if _, err := v.r.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the connection's end", err)
	}
	poll.Until(t, "the panic", func() bool {
		all := strings.Join(log.lines(), "\n")
		return strings.Contains(all, "level=ERROR") && strings.Contains(all, "panic") && strings.Contains(all, "bug")
	})
	v = visit(t, addr)                                                                           // what a visitor does wrong is no error of ours
	io.WriteString(v, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+"\x00\x00\x00\x04\x00\x00\x00\x00\x01") // SETTINGS on a stream
	io.Copy(io.Discard, v)
	if n := len(log.lines()); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// listen serves h alone, without a server around it.
func listen(t *testing.T, h *edge.HTTP) (addr string) {
	t.Helper()
	s := h.Server(edge.Limits{})
	return listenOn(t, s, loopback(t))
}

func listenOn(t *testing.T, s *http.Server, l net.Listener) (addr string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		s.Shutdown(context.Background())
		<-done
	})
	return l.Addr().String()
}
