package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// serving is a tunnel-server with TLS.
type serving struct {
	plain, tls string
	log        *rig.Buffer
	roots      *x509.CertPool
	end        func() (code int)
}

// serveTLS runs tunnel-server with args until the test ends.
func serveTLS(t *testing.T, roots *x509.CertPool, args ...string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{log: &rig.Buffer{}, roots: roots}
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"tunnel-server", "serve", "--grace", "5s"}, args...), io.Discard, s.log)
	}()
	s.end = func() int { cancel(); code := <-done; done <- code; return code }
	t.Cleanup(func() { s.end() })
	find := func(expression string) string {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if m := regexp.MustCompile(expression).FindStringSubmatch(s.log.String()); m != nil {
				return m[1]
			}
			select {
			case code := <-done:
				done <- code
				t.Fatalf("exit %d: %s", code, s.log.String())
			default:
			}
		}
		t.Fatalf("the log has no %s:\n%s", expression, s.log.String())
		return ""
	}
	s.plain = find(`msg=listening addr=(\S+)`)
	s.tls = find(`msg="listening for HTTPS" addr=(\S+)`)
	return s
}

// get asks for url by the protocol "1", "2" or "3", of this server wherever it leads.
func (s *serving) get(t *testing.T, proto, url string) (*http.Response, string, error) {
	t.Helper()
	config := &tls.Config{RootCAs: s.roots}
	var rt http.RoundTripper
	if proto == "3" {
		tr := &http3.Transport{TLSClientConfig: config}
		tr.Dial = func(ctx context.Context, _ string, c *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, s.tls, c, qc)
		}
		defer tr.Close()
		rt = tr
	} else {
		tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: proto == "2", DisableKeepAlives: true}
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := s.tls
			if strings.HasSuffix(addr, ":80") {
				to = s.plain
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		}
		defer tr.CloseIdleConnections()
		rt = tr
	}
	c := &http.Client{Transport: rt, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// publish runs a client of s until the test ends, and returns its public URL.
func (s *serving) publish(t *testing.T, name string) string {
	t.Helper()
	urls := make(chan string, 1)
	c := &tunnel.Client{Server: "http://" + s.plain, Grace: -1, Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }}
	c.Events = func(e tunnel.Event) {
		if e.Type == tunnel.Ready {
			urls <- e.URL
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Serve(ctx, tunnel.Options{Name: name}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s by %s", name, r.Header.Get("X-Forwarded-Proto"))
		}))
	}()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case u := <-urls:
		return u
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return ""
}

// With certificates from files: every protocol, redirects, and a URL that says so.
func TestServesFiles(t *testing.T) {
	cert := rig.NewCertificate(t, "tunnel.example.com", "*.tunnel.example.com")
	s := serveTLS(t, cert.Roots, "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--domain", "tunnel.example.com",
		"--cert", cert.Cert, "--key", cert.Key, "--allow-plain", "open", "--hsts", "24h")
	_, port, _ := net.SplitHostPort(s.tls)
	if got := s.publish(t, "demo"); got != "https://demo.tunnel.example.com:"+port {
		t.Errorf("it is published as %s", got)
	}
	s.publish(t, "open")
	for _, proto := range []string{"1", "2", "3"} {
		res, body, err := s.get(t, proto, "https://demo.tunnel.example.com/")
		if err != nil || body != "demo by https" || fmt.Sprint(res.ProtoMajor) != proto {
			t.Errorf("HTTP/%s: %q, %v", proto, body, err)
			continue
		}
		if hsts := res.Header.Get("Strict-Transport-Security"); hsts != "max-age=86400" {
			t.Errorf("HSTS is %q", hsts)
		}
	}
	if _, body, err := s.get(t, "1", "http://open.tunnel.example.com/"); err != nil || body != "open by http" {
		t.Errorf("plain: %q, %v", body, err)
	}
	if res, _, err := s.get(t, "1", "http://demo.tunnel.example.com/x"); err != nil || res.Header.Get("Location") != "https://demo.tunnel.example.com:"+port+"/x" {
		t.Errorf("redirect: %v, %v", res, err)
	}
	if code := s.end(); code != 0 {
		t.Errorf("exit %d: %s", code, s.log.String())
	}
}

// A name of the domain that no certificate is for is told of at the start.
func TestWarnsOfNames(t *testing.T) {
	for _, test := range []struct {
		certified, flags []string
		want             []string
	}{
		{[]string{"tunnel.example.com", "*.tunnel.example.com"}, nil, nil},
		{[]string{"app.example.org"}, nil, []string{"tunnel.example.com", "*.tunnel.example.com"}},
		{[]string{"tunnel.example.com"}, nil, []string{"*.tunnel.example.com"}},
		{[]string{"tunnel.example.com"}, []string{"--path-names"}, nil},
	} {
		cert := rig.NewCertificate(t, test.certified...)
		s := serveTLS(t, cert.Roots, append(test.flags, "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0",
			"--domain", "tunnel.example.com", "--cert", cert.Cert, "--key", cert.Key)...)
		s.end()
		var got []string
		for _, m := range regexp.MustCompile(`msg="no --cert is for this name.*" name=(\S+)`).FindAllStringSubmatch(s.log.String(), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("certificate for %q, %q: told of %q, want %q", test.certified, test.flags, got, test.want)
		}
	}
}

// With certificates of an authority, a real one: at the start for the domain, at the
// first visit for a name that is claimed, never for one that is not.
func TestServesACME(t *testing.T) {
	plain, secure := rig.FreePort(t), rig.FreePort(t)
	number := func(addr string) int { return net.TCPAddrFromAddrPort(mustAddr(t, addr)).Port }
	ca := pebble.Start(t, pebble.Config{HTTPPort: number(plain), TLSPort: number(secure)})
	root := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, ca.TLSPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveTLS(t, ca.Roots, "--listen", plain, "--tls-listen", secure, "--domain", "tunnel.example.com",
		"--acme-email", "you@example.com", "--acme-ca", ca.URL, "--acme-ca-root", root, "--acme-storage", filepath.Join(t.TempDir(), "certs"))
	s.publish(t, "demo")
	for _, want := range []struct{ url, body string }{
		{"https://tunnel.example.com/healthz", "ok\n"},
		{"https://demo.tunnel.example.com/", "demo by https"},
	} {
		var body string
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if _, body, err = s.get(t, "2", want.url); err == nil {
				break
			}
		}
		if err != nil || body != want.body {
			t.Fatalf("%s: %q, %v\n%s", want.url, body, err, s.log.String())
		}
	}
	if _, body, err := s.get(t, "3", "https://demo.tunnel.example.com/"); err != nil || body != "demo by https" {
		t.Errorf("HTTP/3: %q, %v", body, err)
	}
	before := ca.Orders()
	if _, body, err := s.get(t, "1", "https://nobody.tunnel.example.com/"); err == nil {
		t.Errorf("a name that nobody has: %q", body)
	}
	if _, body, err := s.get(t, "1", "https://demo/"); err == nil {
		t.Errorf("a name without the domain: %q", body)
	}
	if res, _, err := s.get(t, "1", "http://nobody.tunnel.example.com/"); err != nil || res.StatusCode != 404 {
		t.Errorf("a name that nobody has, plain: %v, %v", res, err)
	}
	if n := ca.Orders() - before; n != 0 {
		t.Errorf("%d orders for names that nobody has", n)
	}
	if code := s.end(); code != 0 {
		t.Errorf("exit %d: %s", code, s.log.String())
	}
}

func mustAddr(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
