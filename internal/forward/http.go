// Package forward passes the tunnel's requests on to the local app: to the one
// target that the user named, and to nothing else, whatever a request says.
package forward

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/rewrite"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	dialTimeout = 10 * time.Second
	// fresh is how long a kept connection to the app may have been idle to carry a
	// POST. Servers close idle connections after 2 s (gunicorn), 5 s (Node) and
	// more; a POST that meets the closing would be lost.
	fresh = time.Second
	// continueTimeout is how long the app may leave Expect: 100-continue unanswered
	// before the body goes out all the same. Apps that know no Expect wait for the
	// body (RFC 9110, section 10.1.1); called directly they get it after 1 s, which
	// is too short for an app that looks the sender up before it accepts (R28).
	continueTimeout = 5 * time.Second
	// maxHeader bounds what a stream may send as a request's header, in bytes. The
	// limit for visitors is the server's, and lower.
	maxHeader = 16 << 20
	// visitorIdle is how long a connection to the app is kept that can carry no other
	// visitor's request.
	visitorIdle = 10 * time.Second
	// unknown stands for a visitor who is not known where connections are a visitor's
	// (RFC 7239, section 6.2).
	unknown = "unknown"
)

// HTTP is the handler that calls the local app. Make it with [New].
type HTTP struct {
	target   Target
	o        Options
	h1       *proxy.Transport
	h2       *http.Transport // nil: the target speaks HTTP/1.1 alone
	server   proxy.Server
	watched  http.Handler // nil: call
	inFlight atomic.Int64
}

// Options tune an HTTP.
type Options struct {
	// Insecure accepts any certificate of an https target.
	Insecure bool
	// Prepare is called with each connection to the app before anything else is sent on
	// it, also TLS, with the visitor's address, which is "" where the server does not say
	// it in [protocol.HeaderVisitor]. Its error fails the request. The connection then carries
	// no other visitor's requests. Nil: nothing is prepared, and any connection does for
	// any visitor.
	Prepare func(app net.Conn, visitor string) error
	// Timeout is how long the app may take from the request to the header of its
	// answer. 0: no limit.
	Timeout time.Duration
	// Upstream is the origin by which the app is called, where the server was not
	// told to rewrite requests and answers, as over PTTH. Nil: they stay as they are.
	Upstream *protocol.Upstream
	// Handler answers in place of an app: the target is not called. Nil: it is.
	Handler http.Handler
	// Ready reports whether the app takes requests. Until it does they are answered with
	// [protocol.AppStarting], and the app is not called. Nil: it does.
	Ready func() bool
	// Watch is called once with the handler of all requests, and returns one that stands
	// before it and may look at what passes. Nil: nothing does.
	Watch func(http.Handler) http.Handler
	// Done is called after each request. May be nil.
	Done func(Exchange)
	// Log gets why requests failed. Nil discards.
	Log *slog.Logger
}

// Exchange is one request that was answered, or failed.
type Exchange struct {
	Method, Path string
	Status       int   // 0: cut off before there was one
	Bytes        int64 // of the answer's body
	Duration     time.Duration
	Code         protocol.Code // why the app gave no answer; "": it did
}

// New returns the handler for target.
func New(target Target, o Options) *HTTP {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &HTTP{target: target, o: o}
	f.h1 = &proxy.Transport{Fresh: fresh, HeaderTimeout: o.Timeout, ContinueTimeout: continueTimeout}
	if o.Prepare != nil {
		f.h1.DialFor, f.h1.IdleTimeout = f.dial, visitorIdle
	} else {
		f.h1.Dial = func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, "") }
	}
	if o.Timeout > 0 {
		f.h1.ContinueTimeout = min(continueTimeout, o.Timeout)
	}
	if target.Scheme != "http" {
		f.h2 = f.http2()
	}
	if o.Watch != nil {
		f.watched = o.Watch(http.HandlerFunc(f.call))
	}
	f.server = proxy.Server{Handler: f.ServeHTTP, MaxHeader: maxHeader, Log: o.Log}
	return f
}

// http2 is for gRPC, which does not work over HTTP/1.1.
func (f *HTTP) http2() *http.Transport {
	t := &http.Transport{
		DialContext:           func(ctx context.Context, _, visitor string) (net.Conn, error) { return f.connect(ctx, visitor) },
		TLSClientConfig:       f.tls("h2"),
		DisableCompression:    true,
		ResponseHeaderTimeout: f.o.Timeout,
		ExpectContinueTimeout: continueTimeout,
		Protocols:             new(http.Protocols),
	}
	if f.o.Prepare != nil {
		t.IdleConnTimeout = visitorIdle
	}
	if f.target.Scheme == "https" {
		t.Protocols.SetHTTP2(true)
	} else {
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

func (f *HTTP) tls(protocols ...string) *tls.Config {
	host, _, _ := net.SplitHostPort(f.target.Addr)
	return &tls.Config{ServerName: host, InsecureSkipVerify: f.o.Insecure, NextProtos: protocols}
}

// connect reaches the app, without TLS, for a request of visitor.
func (f *HTTP) connect(ctx context.Context, visitor string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, f.target.Network, f.target.Addr)
	if err != nil || f.o.Prepare == nil {
		return conn, err
	}
	if err := f.o.Prepare(conn, address(visitor)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (f *HTTP) dial(ctx context.Context, visitor string) (net.Conn, error) {
	conn, err := f.connect(ctx, visitor)
	if err != nil || f.target.Scheme != "https" {
		return conn, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	secure := tls.Client(conn, f.tls("http/1.1"))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tls handshake with the app: %w", err)
	}
	return secure, nil
}

// Close closes the idle connections to the app.
func (f *HTTP) Close() {
	f.h1.CloseIdle()
	if f.h2 != nil {
		f.h2.CloseIdleConnections()
	}
}

// InFlight is how many requests are under way.
func (f *HTTP) InFlight() int64 { return f.inFlight.Load() }

// ServeConn serves the requests of one stream of the tunnel, until that ends, and
// closes it. It is http.Server with HTTP as its handler, at a smaller price: see
// [proxy.Server].
func (f *HTTP) ServeConn(stream net.Conn) { f.server.ServeConn(stream) }

func (f *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.watched != nil {
		f.watched.ServeHTTP(w, r)
		return
	}
	f.call(w, r)
}

// call has the app answer.
func (f *HTTP) call(w http.ResponseWriter, r *http.Request) {
	f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	if f.o.Done == nil {
		f.serve(w, r)
		return
	}
	t := &proxy.Tally{ResponseWriter: w}
	e := Exchange{Method: r.Method, Path: r.URL.EscapedPath()}
	start := time.Now()
	defer func() {
		e.Status, e.Bytes, e.Duration = t.Status, t.Bytes, time.Since(start)
		f.o.Done(e)
	}()
	e.Code = f.serve(t, r)
}

// serve answers with a code where the app gave no answer.
func (f *HTTP) serve(w http.ResponseWriter, r *http.Request) protocol.Code {
	err := f.pass(w, r)
	if err == nil {
		return ""
	}
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the visitor has gone
	}
	code := codeOf(err)
	level := slog.LevelWarn
	if code == protocol.AppStarting {
		level = slog.LevelDebug // visitors who wait would fill the log
		w.Header().Set("Retry-After", "2")
	}
	f.o.Log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.EscapedPath(), "target", f.target.String(), "code", string(code), "err", err)
	w.Header().Set(protocol.HeaderError, string(code))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code.Status())
	return code
}

// errDestination is of a request that says where to connect. An app that is a
// proxy would do so, and the server choose what the client's machine dials (S18).
var errDestination = errors.New("request is for a proxy")

// errStarting is of a request that came before the app was ready for it.
var errStarting = errors.New("the app is not ready yet")

// pass is the last hop: the request goes to the app as it came.
func (f *HTTP) pass(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodConnect || r.RequestURI != "*" && !strings.HasPrefix(r.RequestURI, "/") {
		return errDestination
	}
	if f.o.Ready != nil && !f.o.Ready() {
		return errStarting
	}
	if f.o.Handler != nil {
		f.o.Handler.ServeHTTP(w, r)
		return nil
	}
	rt := f.transport(r)
	visitor := address(r.Header.Get(protocol.HeaderVisitor))
	public, asked := f.public(r), r.Header["Origin"]
	return proxy.Forward(w, r, rt, proxy.Options{
		Owned: true,
		Request: func(out *http.Request) {
			out.Header.Del(protocol.HeaderRoute)
			out.Header.Del(protocol.HeaderVisitor)
			if f.o.Upstream != nil {
				rewrite.Request(out, public, rewrite.Origin{Scheme: f.o.Upstream.Scheme, Host: f.o.Upstream.Host})
			}
			if rt == f.h2 || f.o.Prepare != nil {
				out.URL = f.url(out, visitor)
			}
		},
		Response: func(res *http.Response) error {
			// It would pass for the tunnel's own.
			res.Header.Del(protocol.HeaderError)
			if f.o.Upstream != nil {
				public := public
				if public.Scheme == "" {
					public.Scheme = "http"
				}
				rewrite.Response(res, asked, rewrite.Origin{Host: f.o.Upstream.Host}, public)
			}
			if rt == f.h2 && res.ContentLength > 0 {
				res.Body = &ended{ReadCloser: res.Body, left: res.ContentLength}
			}
			return nil
		},
		Abort: func(err error) { f.o.Log.Info("response cut off", "path", r.URL.EscapedPath(), "err", err) },
	})
}

// public is where the visitor believes to be, as the server tells.
func (f *HTTP) public(r *http.Request) rewrite.Origin {
	o := rewrite.Origin{Host: r.Host}
	if r.Header.Get("X-Forwarded-Proto") == "https" {
		o.Scheme = "https" // or it is either, see package edge
	}
	return o
}

// transport chooses by what the request needs: an upgrade is HTTP/1.1's, gRPC is
// HTTP/2's, and a target of h2c speaks HTTP/2 for everything else too.
func (f *HTTP) transport(r *http.Request) http.RoundTripper {
	switch {
	case f.h2 == nil, r.Header.Get("Upgrade") != "":
		return f.h1
	case f.target.Scheme == "h2c", isGRPC(r.Header.Get("Content-Type")):
		return f.h2
	}
	return f.h1
}

// isGRPC tells gRPC from gRPC-Web, which is for HTTP/1.1.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// url is for the transports: by its host they tell connections apart, which are the
// visitor's own where they were prepared. For http.Transport there is the request
// target as it came in Opaque, which it would otherwise encode anew.
func (f *HTTP) url(out *http.Request, visitor string) *url.URL {
	u := &url.URL{Scheme: f.target.OriginScheme(), Host: f.target.Host}
	if f.o.Prepare != nil {
		u.Host = cmp.Or(visitor, unknown)
	}
	if out.RequestURI == "*" {
		u.Path = "*"
	} else {
		u.Opaque = "//" + out.Host + out.RequestURI
	}
	return u
}

func codeOf(err error) protocol.Code {
	var dial *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(err, errDestination), errors.Is(err, proxy.ErrInvalidRequest), errors.Is(err, proxy.ErrRequestBody):
		return protocol.BadRequest
	case errors.Is(err, errStarting):
		return protocol.AppStarting
	case errors.Is(err, proxy.ErrHeaderTimeout), errors.As(err, &timeout) && timeout.Timeout():
		return protocol.AppTimeout
	case errors.As(err, &dial) && dial.Op == "dial":
		return protocol.AppRefused
	}
	return protocol.AppBadResponse // also of a TLS handshake that failed
}
