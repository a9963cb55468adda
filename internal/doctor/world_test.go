package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer runs a server until the test ends and returns its URL.
func startServer(t *testing.T, c server.Config) string {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Auth == nil {
		c.Auth = auth.Anonymous{}
	}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("server:", err)
		}
	})
	return "http://" + s.Addr().String()
}

// tokens is who knows token alone.
func tokens(t *testing.T, token string) server.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := auth.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return server.Config{Auth: known}
}

// listen has handle called for each connection, until the test ends.
func listen(t *testing.T, config *tls.Config, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if config != nil {
		l = tls.NewListener(l, config)
	}
	listener.On(t, l, handle)
	return addr
}

// join passes bytes on both ways between c and the host of base, and calls heard for
// each piece; nil: nobody is told.
func join(c net.Conn, base string, heard func()) {
	up, err := net.Dial("tcp", base[strings.LastIndex(base, "/")+1:])
	if err != nil {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			p := make([]byte, 4096)
			for {
				n, err := way[0].Read(p)
				if heard != nil {
					heard()
				}
				if _, failed := way[1].Write(p[:n]); err != nil || failed != nil {
					break
				}
			}
			c.Close()
			up.Close()
		})
	}
	both.Wait()
}

// behindTLS is base behind TLS with a certificate.
func behindTLS(t *testing.T, base string, cert tls.Certificate) string {
	t.Helper()
	return "https://" + listen(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(c net.Conn) { join(c, base, nil) })
}

// middlebox is something on the way to base that speaks HTTP.
func middlebox(t *testing.T, base string, change func(w http.ResponseWriter, r *http.Request) (passes bool), answer func(*http.Response) error) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: answer, Transport: &http.Transport{DisableKeepAlives: true},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change == nil || change(w, r) {
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// forwardProxy leads every CONNECT to the host of base, for who shows authorization.
func forwardProxy(t *testing.T, base, authorization string) string {
	t.Helper()
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		defer all.Done()
		if r.Header.Get("Proxy-Authorization") != authorization {
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		join(c, base, nil)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// quiet cuts connections, made once armed, on which nothing is said for a while.
type quiet struct {
	url   string
	armed atomic.Bool
}

func newQuiet(t *testing.T, base string) *quiet {
	q := new(quiet)
	q.url = "http://" + listen(t, nil, func(c net.Conn) {
		if !q.armed.Load() {
			join(c, base, nil)
			return
		}
		const limit = time.Second
		cut := time.AfterFunc(limit, func() { c.Close() })
		defer cut.Stop()
		join(c, base, func() { cut.Reset(limit) })
	})
	return q
}

// authority signs certificates for 127.0.0.1.
func authority(t *testing.T, name string, until time.Time) (tls.Certificate, *tls.Config) {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: ca.NotBefore, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	signer, key := newKey(t), newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), signer); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key}, &tls.Config{RootCAs: roots}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
