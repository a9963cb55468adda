package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/rig"
)

// The rows of visitors over TLS, each a version of HTTP.
const (
	http1TLS = "tls"
	http2TLS = "h2"
	http3UDP = "h3"
)

// A guest is how visitors come over TLS.
type guest struct {
	version    string // one of the rows above
	addr, host string
	roots      *x509.CertPool
}

func (g guest) config(alpn string) *tls.Config {
	return &tls.Config{ServerName: g.host, RootCAs: g.roots, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}
}

// dial connects, for small exchanges until deadline.
func (g guest) dial(deadline time.Time) (caller, error) {
	if g.version == http1TLS {
		c, err := g.dialTLS(deadline)
		if err != nil {
			return nil, err
		}
		return newVisitor(c, g.host), nil
	}
	return g.exchanger(deadline)
}

// bulk connects to move one body of size bytes.
func (g guest) bulk(size int64, limit time.Duration) (mover, error) {
	deadline := time.Now().Add(limit)
	if g.version == http1TLS {
		c, err := g.dialTLS(deadline)
		return &transfer{host: g.host, bytes: size, conn: c}, err
	}
	x, err := g.exchanger(deadline)
	if err != nil {
		return nil, err
	}
	x.bytes = size
	return x, nil
}

// dialTLS gives a connection for HTTP/1.1 on which the handshake is over.
func (g guest) dialTLS(deadline time.Time) (net.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Deadline: deadline}, Config: g.config("http/1.1")}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", g.addr)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(deadline)
}

// An exchanger is one connection of HTTP/2 or HTTP/3. Its requests may be made at the same time.
type exchanger struct {
	host  string
	proto string // that every answer must have come by
	bytes int64  // of a large body
	ctx   context.Context
	trip  http.RoundTripper
	end   func()
}

func (g guest) exchanger(deadline time.Time) (*exchanger, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	x := &exchanger{host: g.host, ctx: ctx}
	var err error
	if g.version == http2TLS {
		err = x.dialHTTP2(g, cancel)
	} else {
		err = x.dialHTTP3(g, cancel)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return x, nil
}

func (x *exchanger) dialHTTP2(g guest, cancel func()) error {
	t := &http.Transport{TLSClientConfig: g.config("h2"), Protocols: &http.Protocols{}, DisableCompression: true}
	t.Protocols.SetHTTP2(true)
	c, err := t.NewClientConn(x.ctx, "https", g.addr)
	if err != nil {
		return err
	}
	x.proto, x.trip = "HTTP/2.0", c
	x.end = func() { c.Close(); cancel() }
	return nil
}

func (x *exchanger) dialHTTP3(g guest, cancel func()) error {
	c, err := quic.DialAddr(x.ctx, g.addr, g.config(http3.NextProtoH3), nil)
	if err != nil {
		return err
	}
	t := &http3.Transport{DisableCompression: true}
	x.proto, x.trip = "HTTP/3.0", t.NewClientConn(c)
	x.end = func() { _ = c.CloseWithError(0, ""); cancel() }
	return nil
}

func (x *exchanger) close() { x.end() }

// ask makes a request and gives its answer, if that is a 200 by the right version.
func (x *exchanger) ask(method, path string, body io.Reader, length int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(x.ctx, method, "https://"+x.host+path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	resp, err := x.trip.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.Proto != x.proto {
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s, want 200 by %s", resp.Proto, resp.Status, x.proto)
	}
	return resp, nil
}

// small is [caller]'s: one request for the small answer, which is checked.
func (x *exchanger) small() error {
	resp, err := x.ask(http.MethodGet, "/small", nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var buf [2 * len(rig.Hello)]byte
	n, err := io.ReadFull(resp.Body, buf[:])
	if err != io.ErrUnexpectedEOF {
		return fmt.Errorf("an answer of %d bytes: %w", n, err)
	}
	if string(buf[:n]) != rig.Hello || resp.ContentLength != int64(n) {
		return fmt.Errorf("not the app's answer: %.60q, Content-Length %d", buf[:n], resp.ContentLength)
	}
	return nil
}

// down is [mover]'s: it downloads and counts.
func (x *exchanger) down() error {
	resp, err := x.ask(http.MethodGet, fmt.Sprintf("/down/%d", x.bytes), nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf := make([]byte, 256<<10)
	var sum int64
	for {
		n, err := resp.Body.Read(buf)
		sum += int64(n)
		switch {
		case err == io.EOF && sum != x.bytes:
			return fmt.Errorf("the body has %d bytes of %d and looks complete", sum, x.bytes)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// up is [mover]'s: it uploads, and checks that the app got all.
func (x *exchanger) up() error {
	resp, err := x.ask(http.MethodPost, "/up", io.LimitReader(zeros{}, x.bytes), x.bytes)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if want := fmt.Sprint(x.bytes); string(bytes.TrimSpace(text)) != want {
		return fmt.Errorf("the app got %.20q bytes of %s", text, want)
	}
	return nil
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A shared caller is one of several on one connection, which somebody else closes.
type shared struct{ caller }

func (shared) close() {}

// An anew is a visitor that connects for each exchange.
type anew struct {
	dial     func(deadline time.Time) (caller, error)
	deadline time.Time
}

func (a anew) small() error {
	c, err := a.dial(a.deadline)
	if err != nil {
		return err
	}
	defer c.close()
	return c.small()
}

func (anew) close() {}
