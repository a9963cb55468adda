package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	defaultMaxIdle     = 256
	defaultIdleTimeout = time.Minute
	defaultMaxHeader   = 1 << 20
	bufferSize         = 4 << 10
)

// Errors of [Transport.RoundTrip]; each is wrapped with its cause.
var (
	// ErrNotSent says that no byte of the request has left: it may be tried again
	// on another transport, whatever its method.
	ErrNotSent = errors.New("request was not sent")
	// ErrBadResponse says that what came back is not an HTTP response, or none
	// came before the connection ended.
	ErrBadResponse = errors.New("no valid response")
	// ErrUnanswered says that no byte of a response came, to a request that may be
	// sent again: its method is safe (RFC 9110, section 9.2.1), and it has no body.
	ErrUnanswered = errors.New("no answer")
	// ErrHeaderTimeout says that Transport.HeaderTimeout passed.
	ErrHeaderTimeout = errors.New("timed out waiting for the response")
	// ErrRequestBody says that reading the request's body failed: the fault is the
	// sender's.
	ErrRequestBody = errors.New("request body was cut off")
	// ErrInvalidRequest says that the request can't be written as HTTP/1.1, such as
	// one of HTTP/2 whose path has a space.
	ErrInvalidRequest = errors.New("invalid request")
)

// Transport is an http.RoundTripper that sends HTTP/1.1 requests on connections
// that it dials and keeps. Unlike http.Transport it works on the caller's
// goroutine, writes the request line as it came ([http.Request.RequestURI],
// where it is set), adds no header field, sends no byte of a body with Expect
// before it is accepted, and repeats no request whose repetition could be noticed.
//
// Trailers may come unannounced: what the request's Trailer holds when its body
// has ended is sent. CONNECT is refused, unless Connect is set, since what follows
// it is no HTTP.
//
// 1xx responses go to the httptrace of the request's context. The body of a 101, and
// of a 2xx that answers CONNECT, is an io.ReadWriteCloser that takes the connection
// out of the pool.
type Transport struct {
	// Dial makes a connection. An error is returned wrapped in ErrNotSent.
	Dial func(ctx context.Context) (net.Conn, error)
	// DialFor is called in place of Dial with the URL.Host of the request that the
	// connection is for, and only requests with the same one are sent on it. Nil: any
	// connection does for any request.
	DialFor func(ctx context.Context, host string) (net.Conn, error)
	// MaxIdle is how many idle connections are kept. Default 256.
	MaxIdle int
	// IdleTimeout is how long an idle connection is kept. Default 1 minute.
	IdleTimeout time.Duration
	// Fresh is how long a connection may have been idle to carry a request that
	// must not be repeated; such a request gets a new connection then, as the
	// server may be closing the idle one just now. 0: no limit, for servers that
	// close no idle connection.
	Fresh time.Duration
	// HeaderTimeout is how long the response's header may take from when the
	// request was sent. 0: no limit.
	HeaderTimeout time.Duration
	// ContinueTimeout is how long a server may leave Expect unanswered before the
	// body is sent all the same, as clients do: some servers know no Expect, and
	// wait for the body (RFC 9110, section 10.1.1). 0: no limit.
	ContinueTimeout time.Duration
	// MaxHeader bounds the response's header in bytes. Default 1 MiB.
	MaxHeader int64
	// Connect lets CONNECT requests pass (RFC 9110, section 9.3.6), which are the
	// caller's own and nobody else's.
	Connect bool

	mu    sync.Mutex
	idle  []*conn // the most recently used last
	sweep *time.Timer
}

// conn is a connection of a Transport. One request uses it at a time.
type conn struct {
	net.Conn
	t     *Transport
	host  string           // whom it was dialled for, by DialFor
	r     *bufio.Reader    // reads limit; nil while idle
	limit io.LimitedReader // reads the conn; bounds the header
	wait  func()           // called before a Read that may wait; nil: nothing
	since time.Time        // when it became idle

	kept     bool // it has carried a request before
	sending  bool // the current request's body is a goroutine's, which closes it
	answered bool // a byte of the current response was seen
	sent     int  // bytes of the current request that were written

	watcher *time.Timer // calls watch
	mu      sync.Mutex  // guards the following field, and watched of it
	current *exchange   // nil while idle
}

func (c *conn) Read(p []byte) (int, error) {
	if c.wait != nil {
		c.wait()
	}
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += n
	return n, err
}

// RoundTrip sends req and returns the response's header. The body must be
// closed; read to its end it gives the connection back.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.RoundTripInterim(req, nil)
}

// RoundTripInterim is RoundTrip with the 1xx responses for got1xx, whose error ends
// the exchange. Nil: they go to the httptrace.
func (t *Transport) RoundTripInterim(req *http.Request, got1xx func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	if err := t.valid(req); err != nil {
		closeBody(req)
		return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	if err := req.Context().Err(); err != nil {
		closeBody(req)
		return nil, err // a kept connection is not given away for it
	}
	var sent error // why the first attempt failed, where it may have been seen
	for fresh := false; ; fresh = true {
		c, err := t.get(req, fresh)
		if err != nil {
			closeBody(req)
			if sent != nil {
				return nil, sent
			}
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		res, err := c.exchange(req, got1xx)
		if err == nil {
			return res, nil
		}
		// An idle connection that the server had just closed fails so. Once more,
		// then, where nobody can tell, on a new one.
		again := errors.Is(err, ErrNotSent) || errors.Is(err, ErrUnanswered)
		if fresh || !c.kept || !again {
			if !c.sending {
				closeBody(req)
			}
			if sent != nil && errors.Is(err, ErrNotSent) {
				return nil, sent
			}
			return nil, err
		}
		if !errors.Is(err, ErrNotSent) {
			sent = err
		}
	}
}

// valid reports why req can't be sent.
func (t *Transport) valid(req *http.Request) error {
	if req.Method == http.MethodConnect && !t.Connect {
		return fmt.Errorf("method %q", req.Method)
	}
	return Valid(req)
}

// Valid reports why req can't be sent, by whichever version of HTTP. What net/http has
// parsed is valid, but not what HTTP/2 or a caller's own change has put there.
func Valid(req *http.Request) error {
	switch {
	case !httpguts.ValidHeaderFieldName(req.Method): // both are tokens
		return fmt.Errorf("method %q", req.Method)
	case strings.ContainsFunc(target(req), notInTarget):
		return fmt.Errorf("target %q", target(req))
	case !httpguts.ValidHostHeader(req.Host):
		return fmt.Errorf("host %q", req.Host)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("header field name %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("value of header field %q", name) // may be a secret
			}
		}
	}
	return nil
}

func notInTarget(r rune) bool { return r <= ' ' || r == 0x7f }

// target is what stands in the request line.
func target(req *http.Request) string {
	if req.RequestURI != "" {
		return req.RequestURI
	}
	return req.URL.RequestURI()
}

// Repeatable reports whether req may be sent twice: RFC 9110, section 9.2.1.
func Repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return !hasBody(req)
	}
	return false
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// get takes a kept connection, the warmest first, or dials.
func (t *Transport) get(req *http.Request, fresh bool) (*conn, error) {
	for !fresh {
		c := t.takeIdle(req)
		if c == nil {
			break
		}
		if stale(c.Conn) {
			c.Close()
			continue
		}
		return c, nil
	}
	c := &conn{t: t}
	var err error
	if t.DialFor != nil {
		c.host = req.URL.Host
		c.Conn, err = t.DialFor(req.Context(), c.host)
	} else {
		c.Conn, err = t.Dial(req.Context())
	}
	if err != nil {
		return nil, err
	}
	c.limit = io.LimitedReader{R: c, N: math.MaxInt64}
	c.watcher = time.AfterFunc(watchAfter, c.watch)
	return c, nil
}

// takeIdle takes the warmest connection that may carry req, or nil.
func (t *Transport) takeIdle(req *http.Request) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := len(t.idle) - 1
	for t.DialFor != nil && i >= 0 && t.idle[i].host != req.URL.Host {
		i--
	}
	if i < 0 || t.Fresh > 0 && time.Since(t.idle[i].since) > t.Fresh && !Repeatable(req) {
		return nil
	}
	c := t.idle[i]
	t.idle = slices.Delete(t.idle, i, i+1)
	return c
}

func (t *Transport) maxHeader() int64 {
	if t.MaxHeader > 0 {
		return t.MaxHeader
	}
	return defaultMaxHeader
}

// put keeps c for the next request.
func (t *Transport) put(c *conn) {
	maxIdle := t.MaxIdle
	if maxIdle == 0 {
		maxIdle = defaultMaxIdle
	}
	c.kept = true
	c.since = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) >= maxIdle {
		go t.idle[0].Close() // may have to wait for a slow peer
		t.idle = slices.Delete(t.idle, 0, 1)
	}
	t.idle = append(t.idle, c)
	if t.sweep == nil {
		t.sweep = time.AfterFunc(t.idleTimeout(), t.closeOld)
	}
}

func (t *Transport) idleTimeout() time.Duration {
	if t.IdleTimeout > 0 {
		return t.IdleTimeout
	}
	return defaultIdleTimeout
}

// closeOld closes what was idle for too long and comes again while any is left.
func (t *Transport) closeOld() {
	t.mu.Lock()
	n := 0
	for n < len(t.idle) && time.Since(t.idle[n].since) >= t.idleTimeout() {
		n++
	}
	old := append([]*conn(nil), t.idle[:n]...)
	t.idle = append(t.idle[:0], t.idle[n:]...)
	clear(t.idle[len(t.idle):cap(t.idle)])
	t.sweep = nil
	if len(t.idle) > 0 {
		t.sweep = time.AfterFunc(t.idleTimeout()-time.Since(t.idle[0].since), t.closeOld)
	}
	t.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

// CloseIdle closes the idle connections.
func (t *Transport) CloseIdle() {
	t.mu.Lock()
	old := t.idle
	t.idle = nil
	if t.sweep != nil {
		t.sweep.Stop()
		t.sweep = nil
	}
	t.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

// abort ends a connection so that the peer sees an error, not an end.
func abort(c io.Closer) {
	switch c := c.(type) {
	case interface{ Reset() error }:
		c.Reset()
	case interface{ SetLinger(int) error }:
		c.SetLinger(0)
	case interface{ NetConn() net.Conn }:
		abort(c.NetConn()) // TLS would say close_notify, which is an end
	}
	c.Close()
}
