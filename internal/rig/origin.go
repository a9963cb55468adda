package rig

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An Origin is an HTTP server that attaches itself to a tunnel server by PTTH, as somebody else would write
// it: with the standard library alone, by connections of HTTP/1.1.
type Origin struct {
	Proxy   string      // URL of the tunnel server, with a port
	Name    string      // to serve
	Token   string      // any where the server wants none: all connections are to be one's
	Trust   *tls.Config // for https://
	Handler http.Handler
	Conns   int // attached all the time, beside those that were upgraded

	url    string
	given  chan net.Conn // to Accept
	over   chan struct{} // closed when nothing is accepted any more
	server http.Server
	busy   atomic.Int64 // requests, with those whose connection was hijacked
}

const (
	originTime  = 5 * time.Second        // that one attempt to attach may take
	originPause = 200 * time.Millisecond // after one that failed
)

// Run keeps the connections attached, and tells the origin's URL once the first one is. When ctx ends it
// attaches no more, lets end what is under way for grace, and returns an error if that has not ended.
func (o *Origin) Run(ctx context.Context, grace time.Duration, attached func(url string)) error {
	o.given, o.over = make(chan net.Conn), make(chan struct{})
	o.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.busy.Add(1)
		defer o.busy.Add(-1)
		o.Handler.ServeHTTP(w, r)
	})
	o.server.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed || s == http.StateHijacked {
			close(c.(*turnedConn).free)
		}
	}
	go o.server.Serve(originListener{o})
	for o.url == "" && ctx.Err() == nil {
		if err := o.discover(ctx); err != nil {
			pause(ctx)
		}
	}
	var slots sync.WaitGroup
	tell := sync.OnceFunc(func() { attached(o.url) })
	for range o.Conns {
		slots.Go(func() { o.keep(ctx, tell) })
	}
	slots.Wait()
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := o.server.Shutdown(end)
	for err == nil && o.busy.Load() > 0 {
		pause(end)
		err = end.Err()
	}
	return err
}

func pause(ctx context.Context) {
	select {
	case <-time.After(originPause):
	case <-ctx.Done():
	}
}

// discover asks the server for the origin of the name.
func (o *Origin) discover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, originTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Proxy+"/.well-known/tunnel", nil)
	if err != nil {
		return err
	}
	t := &http.Transport{TLSClientConfig: o.Trust, DisableKeepAlives: true}
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var about struct{ Origins string }
	err = json.NewDecoder(res.Body).Decode(&about)
	o.url = strings.ReplaceAll(about.Origins, "*", o.Name)
	return err
}

// keep has one connection attached until ctx ends.
func (o *Origin) keep(ctx context.Context, attached func()) {
	for ctx.Err() == nil {
		c, err := o.attach(ctx)
		if err != nil {
			pause(ctx)
			continue
		}
		attached()
		o.given <- c
		select {
		case <-c.free:
		case <-ctx.Done():
		}
	}
}

// attach asks for the origin's requests on a connection of its own.
func (o *Origin) attach(ctx context.Context) (*turnedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, originTime)
	defer cancel()
	u, err := url.Parse(o.Proxy)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if u.Scheme == "https" {
		conn, err = (&tls.Dialer{Config: o.Trust}).DialContext(ctx, "tcp", u.Host)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, err := o.ask(conn, u.Host)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
	}
	return c, err
}

func (o *Origin) ask(conn net.Conn, host string) (*turnedConn, error) {
	fmt.Fprintf(conn, "GET /.well-known/ptth/%s/ HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: ptth\r\n"+
		"ALPN: http%%2F1.1\r\nAuthorization: Bearer %s\r\n\r\n", url.QueryEscape(o.url), host, o.Token)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return nil, fmt.Errorf("%s: %s", res.Status, why)
	}
	return &turnedConn{Conn: conn, r: r, free: make(chan struct{})}, nil
}

// turnedConn is a connection that has been read ahead of.
type turnedConn struct {
	net.Conn
	r    *bufio.Reader
	free chan struct{} // closed when another is to take its place
}

func (c *turnedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// originListener accepts what was attached.
type originListener struct{ o *Origin }

func (l originListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.o.given:
		return c, nil
	case <-l.o.over:
		return nil, net.ErrClosed
	}
}

// Close is Shutdown's, once nobody attaches any more.
func (l originListener) Close() error   { close(l.o.over); return nil }
func (l originListener) Addr() net.Addr { return &net.TCPAddr{} }
