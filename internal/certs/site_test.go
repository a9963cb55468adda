package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/pebble"
)

// site is what an ACME answers through: a plain listener and one of TLS, and an
// authority that checks names there.
type site struct {
	ca   *pebble.CA
	addr string // of TLS
	web  string // of HTTP
	log  *logged

	mu   sync.Mutex
	acme *ACME
}

// logged is a log that may be read while it is written.
type logged struct{ rig.Buffer }

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// newSite listens. (Tests in parallel need names of their own: certmagic knows
// the checks that run in a process by name.)
//
// Its authority checks names there, but for a port that c names:
// 1 is where nobody is.
func newSite(t *testing.T, c pebble.Config) *site {
	t.Helper()
	s := &site{log: &logged{}}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr, s.web = secure.Addr().String(), plain.Addr().String()
	if c.HTTPPort == 0 {
		c.HTTPPort = plain.Addr().(*net.TCPAddr).Port
	}
	if c.TLSPort == 0 {
		c.TLSPort = secure.Addr().(*net.TCPAddr).Port
	}
	s.ca = pebble.Start(t, c)

	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the app") })
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.current().HTTPChallenge(app).ServeHTTP(w, r)
	})}
	var ended sync.WaitGroup
	ended.Go(func() { _ = web.Serve(plain) })
	ended.Go(func() { s.serve(secure) })
	t.Cleanup(func() {
		web.Close()
		secure.Close()
		ended.Wait()
	})
	return s
}

func (s *site) current() *ACME {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acme
}

// serve says nothing after the handshake.
func (s *site) serve(l net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer c.Close()
			conn := tls.Server(c, &tls.Config{
				GetCertificate: s.current().GetCertificate,
				NextProtos:     []string{"http/1.1", ALPN},
			})
			c.SetDeadline(time.Now().Add(30 * time.Second))
			if conn.Handshake() == nil && conn.ConnectionState().NegotiatedProtocol != ALPN {
				io.WriteString(conn, "the app")
			}
			conn.Close()
		})
	}
}

// start makes an ACME of c, which it fills up, and returns how to end it.
func (s *site) start(t *testing.T, c ACMEConfig) *ACME {
	t.Helper()
	if c.Domain == "" {
		c.Domain = "tunnel.example.test"
	}
	if c.Storage == "" {
		c.Storage = t.TempDir()
	}
	if c.Wait == 0 {
		c.Wait = 20 * time.Second
	}
	c.CA, c.CARoots, c.Log = s.ca.URL, s.ca.TLSRoots, s.log.logger()
	a, err := NewACME(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	s.mu.Lock()
	s.acme = a
	s.mu.Unlock()
	return a
}

// run is Run until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// visit is the certificate that a visitor of name gets, and has checked.
func (s *site) visit(name string) (*x509.Certificate, error) {
	return s.visitWith(&tls.Config{ServerName: name, RootCAs: s.ca.Roots})
}

func (s *site) visitWith(c *tls.Config) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", s.addr, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// mustVisit visits until there is a certificate: a handshake waits for its order for
// defaultWait, and on a slow machine an order may take longer, and goes on.
func (s *site) mustVisit(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		began := time.Now()
		cert, err := s.visit(name)
		if err == nil {
			return cert
		}
		if now := time.Now(); now.Sub(began) < defaultWait || now.After(deadline) {
			t.Fatalf("visit %s: %v\n%s", name, err, s.log)
		}
	}
}

// expiring is a visit whose visitor checks all of the certificate but whether it has
// expired meanwhile, as one of seconds may have when it arrives.
func (s *site) expiring(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	cert, err := s.visitWith(&tls.Config{ServerName: name, InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
		leaf, more := c.PeerCertificates[0], x509.NewCertPool()
		for _, cert := range c.PeerCertificates[1:] {
			more.AddCert(cert)
		}
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: s.ca.Roots, Intermediates: more, CurrentTime: leaf.NotAfter})
		return err
	}})
	if err != nil {
		t.Fatalf("visit %s: %v\n%s", name, err, s.log)
	}
	return cert
}

// hello is what a visitor of name begins with, without a connection.
func hello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
	}
}

// anyName allows each.
func anyName(context.Context, string) error { return nil }
