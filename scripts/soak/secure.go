package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// serveTLS is serve with a TLS listener, too.
func (s *site) serveTLS(flags ...string) error {
	var err error
	if s.secure, err = s.FreePort(); err != nil {
		return err
	}
	if s.cert, err = rig.MakeCertificate(s.lab.dir, s.row(), "localhost", "good.localhost", "mine.localhost", "others.localhost"); err != nil {
		return err
	}
	return s.serve(append([]string{"--tls-listen", s.secure, "--cert", s.cert.Cert, "--key", s.cert.Key, "--allow-plain", "*"}, flags...)...)
}

// row makes names of files that are no other row's.
func (s *site) row() string { return "server-" + strings.ReplaceAll(s.secure, ":", "-") }

// greeting is how a visitor of name begins TLS.
func (s *site) greeting(name string, alpn ...string) *tls.Config {
	c := s.cert.Visitors()
	c.ServerName, c.NextProtos = name+".localhost", alpn
	return c
}

// secureVisitors are visitors by https, HTTP/1.1.
func (s *site) secureVisitors() *http.Client {
	c := visitors()
	t := c.Transport.(*http.Transport)
	t.TLSClientConfig, t.TLSHandshakeTimeout = s.cert.Visitors(), rig.Patience
	d := net.Dialer{Timeout: rig.Patience}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "tcp", s.secure) }
	return c
}

func (s *site) getSecure(c *http.Client, name, path string, limit time.Duration) error {
	return s.getURL(c, "https://"+name+".localhost"+path, name+".localhost", limit)
}

// proxyHeader begins each header of the PROXY protocol, version 2.
const proxyHeader = "\r\n\r\n\x00\r\nQUIT\n"

// clientHello is the first message of a handshake, as it goes over the wire.
func clientHello(c *tls.Config) string {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, c).Handshake() // until b is closed
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, _ := b.Read(buf)
	return string(buf[:n])
}

// tlsPeers is slowPeers at the TLS listener, and at both from addresses that may begin with a header of the
// PROXY protocol.
func (t *trial) tlsPeers() error {
	if err := t.serveTLS(quiet, "--trusted-proxies", "127.0.1.0/24"); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "good"); err != nil {
		return err
	}
	hello := clientHello(t.greeting("good", "h2", "http/1.1"))
	kinds := []peer{
		{name: "no ClientHello", tls: true},
		{name: "half a ClientHello", tls: true, say: hello[:len(hello)/2]},
		{name: "slow ClientHello", tls: true, say: hello[:20], dribble: "\x00"},
		{name: "ClientHello, and no more", tls: true, say: hello},
		{name: "ClientHello of 64 KB, in records", tls: true, say: "\x16\x03\x01\x00\x04\x01\x00\xff\xff", dribble: "\x16\x03\x01\x00\x01x"},
		{name: "TLS, and no request", tls: true, alpn: "http/1.1"},
		{name: "TLS, and a slow header", tls: true, alpn: "http/1.1", say: "GET / HTTP/1.1\r\nHost: good.localhost\r\nX-Slow: ", dribble: "x"},
		{name: "TLS, and half an HTTP/2 header", tls: true, alpn: "h2", say: preface + settings + headers},
		{name: "half a PROXY header", say: proxyHeader[:6]},
		{name: "slow PROXY header", say: proxyHeader + "\x21\x11\x00\xff", dribble: "x"},
		{name: "PROXY header of 64 KB", say: proxyHeader + "\x21\x11\xff\xff", dribble: "x"},
		{name: "PROXY header before TLS, slow", tls: true, say: proxyHeader + "\x21\x11\x00\xff", dribble: "x"},
		{name: "PROXY header, and no ClientHello", tls: true, say: proxyHeader + "\x20\x00\x00\x00"},
	}
	for i := range kinds {
		kinds[i].cutAfter = slowLimit
		if kinds[i].alpn != "" {
			kinds[i].cutAfter += time.Second // the server's clock starts when it has read the end of the handshake
		}
	}
	t.crowds(slices.Clip(kinds), true)
	return nil
}
