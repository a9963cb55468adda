package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/internal/server"
)

// tlsServer is a server with TLS for *.tunnel.example.com.
type tlsServer struct {
	url  string // for clients
	addr string // for visitors
	log  *rig.Buffer

	mu    sync.Mutex
	asked []string // names for which its own certificate was wanted
}

func startTLSServer(t *testing.T) *tlsServer {
	t.Helper()
	own := rig.NewCertificate(t, "server")
	s := &tlsServer{log: new(rig.Buffer)}
	node, err := server.New(server.Config{
		Listen: "127.0.0.1:0", Domain: "tunnel.example.com", Auth: auth.Anonymous{}, Hold: time.Minute, Park: patience,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		TLS: &server.TLS{Listen: "127.0.0.1:0", NoHTTP3: true, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = append(s.asked, hello.ServerName)
			return &own.TLS, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("server:", err)
		}
	})
	s.url, s.addr = "http://"+node.Addr().String(), node.TLSAddr().String()
	return s
}

// visit opens TLS to name. roots nil: any certificate will do.
func (s *tlsServer) visit(name string, roots *x509.CertPool) (*tls.Conn, error) {
	d := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: patience},
		Config:    &tls.Config{ServerName: name + ".tunnel.example.com", RootCAs: roots, InsecureSkipVerify: roots == nil},
	}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	return c.(*tls.Conn), nil
}

// ask makes a request of HTTP on v, and returns the answer's body and whose
// certificate was shown.
func ask(t *testing.T, v *tls.Conn) (body string, shown *x509.Certificate) {
	t.Helper()
	defer v.Close()
	io.WriteString(v, "GET /secret-path HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(v)
	if err != nil {
		t.Error(err)
	}
	_, body, _ = strings.Cut(string(answer), "\r\n\r\n")
	return body, v.ConnectionState().PeerCertificates[0]
}

// The app's own TLS passes through: the server shows no certificate for it.
func TestTLS(t *testing.T) {
	home(t)
	s := startTLSServer(t)
	cert := rig.NewCertificate(t, "app")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.TLS}})
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from the app") })}
	go app.Serve(l)
	t.Cleanup(func() { app.Close() })
	c := startCommand(t, "tls", "--json", "--server", s.url, "--name", "demo", l.Addr().String())
	_, port, _ := net.SplitHostPort(s.addr)
	if e := c.next("ready"); e.URL != "tls://demo.tunnel.example.com:"+port || e.Name != "demo" {
		t.Errorf("ready: %s", e.line)
	}
	v, err := s.visit("demo", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, shown := ask(t, v); body != "from the app" || shown.Subject.CommonName != "app" {
		t.Errorf("%q by %s", body, shown.Subject.CommonName)
	}
	if len(s.asked) > 0 {
		t.Errorf("the server was asked for %q", s.asked)
	}
	// The name is one with those of HTTP (S5).
	t.Setenv("XDG_STATE_HOME", t.TempDir()) // another machine
	if code := start(t, "--server", s.url, "--name", "demo", "3000").exit(); code != int(exitTaken) {
		t.Errorf("a second one of the name: exit %d", code)
	}
}

// A server without TLS says so.
func TestTLSUnsupported(t *testing.T) {
	home(t)
	c := startCommand(t, "tls", "--server", startServer(t, server.Config{}), "--name", "demo", "3000")
	if code := c.exit(); code != int(exitRuntime) {
		t.Errorf("exit %d", code)
	}
	wantText(t, c.stderr.String(), "kind_unsupported", "no TLS of its own", "--acme-email")
}

// The client ends TLS with a certificate of a real authority, which it gets through
// its own tunnel. Neither the key nor what is inside comes to the server's sight.
func TestTerminate(t *testing.T) {
	home(t)
	state := os.Getenv("XDG_STATE_HOME")
	s := startTLSServer(t)
	_, port, _ := net.SplitHostPort(s.addr)
	ca := pebble.Start(t, pebble.Config{TLSPort: atoi(t, port)})
	root := filepath.Join(t.TempDir(), "root.pem")
	writeFile(t, root, string(ca.TLSPEM))
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain "+r.URL.Path) })
	u, _ := url.Parse(app)
	args := []string{"tls", "--json", "--terminate", "--server", s.url, "--name", "sealed", "--acme-ca", ca.URL, "--acme-ca-root", root, "--acme-email", "you@example.com", u.Host}
	var shown *x509.Certificate
	for range 2 { // the second one has the certificate
		c := startCommand(t, args...)
		c.next("ready")
		var v *tls.Conn
		eventually(t, "there is a certificate", func() bool {
			var err error
			v, err = s.visit("sealed", ca.Roots)
			return err == nil
		})
		var body string
		if body, shown = ask(t, v); body != "plain /secret-path" {
			t.Errorf("got %q", body)
		}
		c.signal(syscall.SIGTERM)
		if code := c.exit(); code != 0 {
			t.Errorf("exit %d", code)
		}
	}
	if n := ca.Orders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	if len(s.asked) > 0 {
		t.Errorf("the server was asked for a certificate of %q", s.asked)
	}
	wantKey(t, state, shown)
	if log := s.log.String(); strings.Contains(log, "secret-path") {
		t.Errorf("the server knows what was asked:\n%s", log)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// wantKey fails unless below dir there is the key of cert, for nobody else.
func wantKey(t *testing.T, dir string, cert *x509.Certificate) {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte("PRIVATE KEY")) {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		block, _ := pem.Decode(data)
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err == nil && key.PublicKey.Equal(cert.PublicKey) {
			found = true
		}
		return nil
	})
	if err != nil || !found {
		t.Errorf("the key of the certificate is not kept: %v", err)
	}
}

// Where no certificate is to be had visitors get an alert, and the user the cause.
func TestTerminateWithoutCertificate(t *testing.T) {
	home(t)
	s := startTLSServer(t)
	ca := pebble.Start(t, pebble.Config{}) // it reaches nobody
	root := filepath.Join(t.TempDir(), "root.pem")
	writeFile(t, root, string(ca.TLSPEM))
	c := startCommand(t, "tls", "--json", "--terminate", "--server", s.url, "--name", "bare", "--acme-ca", ca.URL, "--acme-ca-root", root, "3000")
	c.next("ready")
	eventually(t, "it is said why", func() bool {
		_, err := s.visit("bare", ca.Roots)
		if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
			t.Fatalf("the visitor got %v, want an alert", err)
		}
		return strings.Contains(c.stderr.String(), "handshake failed") // it comes after the cause
	})
	wantText(t, c.stderr.String(), "bare.tunnel.example.com", "--cert FILE --key FILE", "port 443")
}

// With a certificate of the user's, and an app that is not there: a reset, and no end
// that looks like one.
func TestTerminateWithFiles(t *testing.T) {
	home(t)
	s := startTLSServer(t)
	cert := rig.NewCertificate(t, "own")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := startCommand(t, "tls", "--json", "--terminate", "--server", s.url, "--name", "own", "--cert", cert.Cert, "--key", cert.Key, "--alpn", "imap", l.Addr().String())
	c.next("ready")
	v, err := s.visit("own", nil)
	if err != nil {
		t.Fatal(err)
	}
	app, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if who := v.ConnectionState().PeerCertificates[0].Subject.CommonName; who != "own" {
		t.Errorf("%s was shown", who)
	}
	io.WriteString(app, "* OK\r\n") // the app speaks first
	greeting := make([]byte, 6)
	if _, err := io.ReadFull(v, greeting); err != nil || string(greeting) != "* OK\r\n" {
		t.Errorf("got %q, %v", greeting, err)
	}
	v.CloseWrite() // R16
	if rest, err := io.ReadAll(app); len(rest) > 0 || err != nil {
		t.Errorf("the app got %q, %v, want the end", rest, err)
	}
	app.(*net.TCPConn).SetLinger(0) // R17
	app.Close()
	if rest, err := io.ReadAll(v); err == nil {
		t.Errorf("the visitor got %q and an end, want an error", rest)
	}
	v.Close()
	l.Close()
	v, err = s.visit("own", nil)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(v); err == nil {
		t.Errorf("without the app the visitor got %q and an end, want an error", rest)
	}
	v.Close()
}

func TestTLSFlags(t *testing.T) {
	home(t)
	cert := rig.NewCertificate(t, "own")
	for args, want := range map[string]string{
		"--cert x 3000":                           "--cert is of no use without --terminate",
		"--alpn h2 3000":                          "--alpn is of no use without --terminate",
		"--terminate --cert x 3000":               "--cert and --key belong together",
		"--terminate --alpn acme-tls/1 3000":      "--alpn",
		"--terminate --alpn h2,, 3000":            "--alpn",
		"--terminate --acme-ca-root /none 3000":   "--acme-ca-root",
		"--terminate --cert /none --key /none 80": "/none",
		"--terminate --acme-email a@b.c --cert " + cert.Cert + " --key " + cert.Key + " 80": "exclude each other",
		"": "TARGET",
	} {
		c := startCommand(t, append([]string{"tls"}, strings.Fields(args)...)...)
		if code := c.exit(); code != int(exitUsage) {
			t.Errorf("%s: exit %d", args, code)
		}
		wantText(t, c.stderr.String(), want)
	}
}
