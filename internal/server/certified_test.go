package server_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// secureNode is a server that takes certificates of ann's authority.
type secureNode struct {
	*testing.T
	at  string // its TLS address
	own *rig.Certificate
	why string // of the last refusal
}

// ask asks for the requests of hosts, shows a certificate if not nil, and returns the
// status, or 0 if there was no answer. Where it is 101, a request is answered with "ann".
func (s *secureNode) ask(shown *rig.Certificate, hosts ...string) int {
	s.Helper()
	config := &tls.Config{RootCAs: s.own.Roots, ServerName: "tunnel.test", NextProtos: []string{"http/1.1"}}
	if shown != nil {
		config.Certificates = []tls.Certificate{shown.TLS}
	}
	conn, err := tls.Dial("tcp", s.at, config)
	if err != nil {
		return 0
	}
	s.Cleanup(func() { conn.Close() })
	var origins []protocol.Origin
	for _, host := range hosts {
		o, err := protocol.ParseOrigin("https://" + host + s.at[len("127.0.0.1"):])
		if err != nil {
			s.Fatal(err)
		}
		origins = append(origins, o)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: tunnel.test\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: http%%2F1.1\r\n\r\n", protocol.PTTHPath(origins))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0 // TLS 1.3 tells of a bad certificate with the first read
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		s.why = string(body)
	} else {
		go func() {
			if _, err := http.ReadRequest(r); err == nil {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nann")
			}
		}()
	}
	return res.StatusCode
}

// visit is a visitor's request. It returns the body, and whether a certificate was asked for.
func (s *secureNode) visit(host string) (body string, asked bool) {
	s.Helper()
	visitor := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.own.Roots, ServerName: host, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return new(tls.Certificate), nil
	}}}
	defer visitor.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://"+s.at, nil)
	req.Host = host
	res, err := visitor.RoundTrip(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b), asked
}

// An origin that shows a certificate of a configured authority may serve that one's
// names, without a token, and no others; a stranger's certificate is none, and a tenant's
// visitors are not asked for any.
func TestPTTHByCertificate(t *testing.T) {
	own := rig.NewCertificate(t, "tunnel.test", "*.tunnel.test")
	ann, stranger := rig.NewCertificate(t, "ann.tunnel.test", "app.example.org"), rig.NewCertificate(t, "ann.tunnel.test")
	node, err := server.New(server.Config{
		Listen: "127.0.0.1:0", Domain: "tunnel.test", Resolver: &zone{}, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n"),
		TLS: &server.TLS{Listen: "127.0.0.1:0", GetCertificate: own.Get, ClientCAs: ann.Roots},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, node)
	s := &secureNode{T: t, at: node.TLSAddr().String(), own: own}
	for name, c := range map[string]struct {
		shown *rig.Certificate
		hosts []string
		want  int
	}{
		"no certificate":   {nil, []string{"ann.tunnel.test"}, 401},
		"a stranger's":     {stranger, []string{"ann.tunnel.test"}, 0},
		"another's name":   {ann, []string{"ann.tunnel.test", "bob.tunnel.test"}, 403},
		"another's domain": {ann, []string{"app.example.com"}, 403},
		"its own":          {ann, []string{"ann.tunnel.test", "app.example.org"}, 101},
		"once more":        {ann, []string{"ann.tunnel.test"}, 101},
	} {
		if got := s.ask(c.shown, c.hosts...); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
		if name == "another's name" && !strings.Contains(s.why, "this certificate may not") {
			t.Errorf("%s: got %s", name, s.why)
		}
	}
	if got := s.ask(ann, "ann.tunnel.test"); got != 101 {
		t.Errorf("got %d", got)
	}
	if body, asked := s.visit("ann.tunnel.test"); body != "ann" || asked {
		t.Errorf("got %q; a visitor was asked for a certificate: %v", body, asked)
	}
}

// A connection of HTTP/1.1 carries one request after the other by TLS, too: an origin that
// has to attach itself again for each of them cannot keep up.
func TestPTTHKeepsSecureLines(t *testing.T) {
	own := rig.NewCertificate(t, "localhost", "*.localhost")
	s, err := server.New(server.Config{
		Listen: "127.0.0.1:0", Domain: "localhost", Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n"), Hold: time.Minute, Park: 10 * time.Second,
		TLS: &server.TLS{Listen: "127.0.0.1:0", GetCertificate: own.Get, AllowPlain: []string{"demo"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	_, port, _ := net.SplitHostPort(s.TLSAddr().String())
	o := &rig.Origin{
		Proxy: "https://localhost:" + port, Name: "demo", Token: "token-of-ann", Trust: &tls.Config{RootCAs: own.Roots}, Conns: 1,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
		}),
	}
	ctx, end := context.WithCancel(t.Context())
	attached, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- o.Run(ctx, 10*time.Second, func(url string) { attached <- url }) }()
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-attached
	n := &node{t: t, addr: s.Addr().String()}
	first := ""
	for range 5 {
		res, body := n.get("demo.localhost:"+port, "/")
		if first == "" {
			first = body
		}
		if res.StatusCode != 200 || body == "" || body != first {
			t.Fatalf("got %s %q after %q", res.Status, body, first)
		}
	}
}

// A certificate that ends takes its connection along.
func TestPTTHCertificateEnds(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(6 * time.Second) // time for the handshake, on a slow machine, too
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: end, DNSNames: []string{"ann.tunnel.test"},
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	own, authority := rig.NewCertificate(t, "tunnel.test"), x509.NewCertPool()
	authority.AddCert(leaf)
	s, err := server.New(server.Config{
		Listen: "127.0.0.1:0", Domain: "tunnel.test", Auth: auth.Anonymous{},
		TLS: &server.TLS{Listen: "127.0.0.1:0", GetCertificate: own.Get, ClientCAs: authority},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	at := s.TLSAddr().String()
	conn, err := tls.Dial("tcp", at, &tls.Config{
		RootCAs: own.Roots, ServerName: "tunnel.test", Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: tunnel.test\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: http%%2F1.1\r\n\r\n",
		protocol.PTTHPath([]protocol.Origin{{Scheme: "https", Host: "ann.tunnel.test", Port: at[len("127.0.0.1:"):]}}))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", res, err)
	}
	if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(end.Truncate(time.Second)) {
		t.Errorf("got %v, %v before the end", err, time.Until(end))
	}
}
