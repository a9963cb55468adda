//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// foreign is a proxy that speaks PTTH, without a line of ours: it grants one path to
// whoever knows the password, and sends visitors to the newest connection.
type foreign struct {
	path, authorization, alpn string

	mu      sync.Mutex // guards the following
	visitor http.Handler
	conn    net.Conn
}

func (f *foreign) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	offers := strings.Contains(r.Header.Get("ALPN"), url.PathEscape(f.alpn))
	switch {
	case r.Host == "app.example" && f.visitor != nil:
		visitor := f.visitor
		f.mu.Unlock()
		defer f.mu.Lock()
		visitor.ServeHTTP(w, r)
	case r.RequestURI != f.path:
		http.NotFound(w, r)
	case r.Header.Get("Authorization") != f.authorization:
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(map[string]string{"detail": "you are [" + r.Header.Get("Authorization") + "]"})
	case !offers:
		http.Error(w, "{}", http.StatusNotAcceptable)
	default:
		f.grant(w)
	}
}

// grant is called with mu held.
func (f *foreign) grant(w http.ResponseWriter) {
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: %s\r\n\r\n", url.PathEscape(f.alpn))
	brw.Flush()
	spoken := new(http.Protocols)
	spoken.SetUnencryptedHTTP2(f.alpn == "h2")
	spoken.SetHTTP1(f.alpn != "h2")
	t := &http.Transport{Protocols: spoken, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	f.conn = conn
	f.visitor = &httputil.ReverseProxy{
		Transport: t, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "app.example"})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
	}
}

// tunnel-client serves an origin behind a proxy that is not ours, comes back to it, and
// ends well.
func TestPTTHForeignProxy(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s by %s: %s", r.Method, r.URL, r.Header.Get("X-Forwarded-Host"), body)
	}))
	defer app.Close()
	for _, alpn := range []string{"h2", "http/1.1"} {
		t.Run(strings.ReplaceAll(alpn, "/", "-"), func(t *testing.T) {
			f := &foreign{path: "/base/.well-known/ptth/https%3A%2F%2Fapp.example/", authorization: "Bearer secret", alpn: alpn}
			s := httptest.NewServer(f)
			defer s.Close()
			defer func() { f.mu.Lock(); defer f.mu.Unlock(); f.conn.Close() }()
			cmd := withToken(clientCommand(app.URL, "--transport", "ptth", "--server", s.URL+"/base", "--origin", "https://app.example"), "secret")
			c := readyClient(t, cmd)
			if c.url != "https://app.example" {
				t.Errorf("the URL is %q", c.url)
			}
			var ready struct{ Transport, Protocol string }
			first, _, _ := strings.Cut(c.out.String(), "\n")
			if json.Unmarshal([]byte(first), &ready); ready.Transport != "ptth" || ready.Protocol != alpn {
				t.Errorf("the first line is %s", first)
			}
			visit := func() bool {
				req, _ := http.NewRequestWithContext(bounded(t, patience), "POST", s.URL+"/x?y", strings.NewReader("text"))
				req.Host = "app.example"
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					return false
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				return string(body) == "POST /x?y by app.example: text"
			}
			if !visit() {
				t.Error("the first visitor got no answer")
			}
			if alpn == "h2" {
				f.mu.Lock()
				f.conn.Close()
				f.mu.Unlock()
				c.await(t, "reconnected")
				eventually(t, "a visitor is answered again", visit)
			}
			c.signal(t, syscall.SIGTERM)
			if code := c.exit(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			c.await(t, "closed")
		})
	}
}

// What a foreign proxy says no to, and what is none, has an exit code and a hint.
func TestPTTHForeignProxyRefuses(t *testing.T) {
	s := httptest.NewServer(&foreign{path: "/.well-known/ptth/https%3A%2F%2Fapp.example/", authorization: "Bearer secret", alpn: "h2"})
	defer s.Close()
	for _, c := range []struct {
		args, hint string
		code       int
	}{
		{"--origin https://app.example", "you are [] (forbidden)", 3},
		{"--origin https://other.example", "--server", 5},
		{"--name demo", "--origin URL", 2},
	} {
		cmd := clientCommand("3000", append([]string{"--transport", "ptth", "--server", s.URL}, strings.Fields(c.args)...)...)
		code, _, stderr := run(t, cmd)
		if code != c.code || !strings.Contains(stderr, c.hint) {
			t.Errorf("%s: exit code %d, want %d\n%s", c.args, code, c.code, stderr)
		}
	}
}
