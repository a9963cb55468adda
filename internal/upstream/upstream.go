// Package upstream reaches a client: it is the http.RoundTripper over a
// session's streams, and keeps the streams. Everything a visitor sends goes
// through it, so what it costs is what the tunnel costs.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Errors of a route's RoundTrip, beside those of [proxy.Transport].
var (
	// ErrOverloaded says that the session has MaxRequests under way.
	ErrOverloaded = errors.New("too many concurrent requests")
	// ErrSessionLost says that the session ended while the request was under way.
	ErrSessionLost = errors.New("session lost")
	// ErrNotSent says that nothing of the request has left: the session had ended
	// or was draining. It may be sent by the session that comes after.
	ErrNotSent = proxy.ErrNotSent
	// ErrUnanswered says, beside ErrSessionLost, that nobody can tell if the request
	// is sent once more.
	ErrUnanswered = proxy.ErrUnanswered
)

// Pool sends requests over the streams of one session.
type Pool struct {
	session mux.Session
	max     int64
	streams proxy.Transport
	active  atomic.Int64 // requests under way and upgraded connections
	pending atomic.Int64 // what Drain waits for, and one for the pool until it is drained
	routes  atomic.Int64
	drained atomic.Bool
	idle    chan struct{} // closed when drained and nothing is active
	once    sync.Once     // closes idle
}

// NewPool makes a pool for session. maxRequests is how many requests may be
// under way at once; 0 is 10,000.
func NewPool(session mux.Session, maxRequests int) *Pool {
	if maxRequests <= 0 {
		maxRequests = 10_000
	}
	p := &Pool{session: session, max: int64(maxRequests), idle: make(chan struct{})}
	p.pending.Store(1)
	p.streams.Connect = true
	p.streams.Dial = func(ctx context.Context) (net.Conn, error) {
		stream, err := p.session.Open(ctx)
		if errors.Is(err, mux.ErrExhausted) {
			p.session.Close() // its client left it at that, and is to connect again
		}
		return stream, err
	}
	return p
}

// Route returns what sends the requests for name. Requests name their route
// once the session has more than one.
func (p *Pool) Route(name string) http.RoundTripper {
	p.routes.Add(1)
	return &route{pool: p, name: name}
}

// Drop says that a route is no more.
func (p *Pool) Drop() { p.routes.Add(-1) }

// Drain lets no new request through (they get ErrNotSent) and waits for the
// requests under way and the raw streams of connections, the session's end, or ctx,
// whose error it returns.
// Upgraded connections, such as WebSockets, have no end to wait for.
func (p *Pool) Drain(ctx context.Context) error {
	if p.drained.CompareAndSwap(false, true) {
		p.finish() // the pool's own part in pending
	}
	defer p.streams.CloseIdle()
	select {
	case <-p.idle:
		return nil
	case <-p.session.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Active is how many requests are under way, with upgraded connections.
func (p *Pool) Active() int { return int(p.active.Load()) }

func (p *Pool) enter() error {
	p.pending.Add(1) // before drained is read: Drain does it the other way round
	if n := p.active.Add(1); n > p.max {
		p.leave()
		return ErrOverloaded
	}
	if p.drained.Load() {
		p.leave()
		return fmt.Errorf("%w: session is draining", ErrNotSent)
	}
	return nil
}

func (p *Pool) leave() {
	p.active.Add(-1)
	p.finish()
}

func (p *Pool) leaveUpgraded() { p.active.Add(-1) }

// counter knows how many requests are under way.
type counter interface {
	leave()
	leaveUpgraded() // for an upgraded connection
}

func (p *Pool) finish() {
	if p.pending.Add(-1) == 0 {
		p.once.Do(func() { close(p.idle) })
	}
}

// route is a Pool's RoundTripper for one name.
type route struct {
	pool *Pool
	name string
}

// RoundTrip sends req to the session's client. The error wraps one of this
// package's, or of [proxy.Transport]'s.
func (r *route) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.RoundTripInterim(req, nil)
}

// RoundTripInterim is what [proxy.Forward] asks for.
func (r *route) RoundTripInterim(req *http.Request, got1xx func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	p := r.pool
	if err := p.enter(); err != nil {
		return nil, err
	}
	open := false // the answer has a body to come
	defer func() {
		if !open {
			p.leave() // also where who takes an interim response panics
		}
	}()
	if p.routes.Load() > 1 {
		req.Header.Set(protocol.HeaderRoute, r.name)
	}
	res, err := p.streams.RoundTripInterim(req, got1xx)
	if err != nil {
		return nil, p.explain(err)
	}
	if res.Body == http.NoBody {
		return res, nil
	}
	open = true
	if rwc, ok := res.Body.(io.ReadWriteCloser); ok {
		p.finish()
		res.Body = &upgraded{ReadWriteCloser: rwc, pool: p}
	} else {
		delete(res.Trailer, protocol.HeaderError) // where it was announced
		res.Body = &body{ReadCloser: res.Body, pool: p, res: res}
	}
	return res, nil
}

func (p *Pool) explain(err error) error {
	if errors.Is(err, ErrNotSent) || errors.Is(err, context.Canceled) {
		return err
	}
	select {
	case <-p.session.Done():
		if errors.Is(err, ErrUnanswered) {
			return fmt.Errorf("%w: %w: %w", ErrSessionLost, ErrUnanswered, p.session.Err())
		}
		return fmt.Errorf("%w: %w", ErrSessionLost, p.session.Err())
	default:
		return err
	}
}

// body counts its request as under way until it is closed. At its end it takes
// the one trailer away that would pass for the tunnel's own.
type body struct {
	io.ReadCloser
	pool   counter
	res    *http.Response
	closed atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		delete(b.res.Trailer, protocol.HeaderError)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	if !b.closed.Swap(true) {
		b.pool.leave()
	}
	return err
}

// BeforeWait passes on what [proxy.Forward] flushes by.
func (b *body) BeforeWait(f func()) bool {
	w, ok := b.ReadCloser.(interface{ BeforeWait(func()) bool })
	return ok && w.BeforeWait(f)
}

// upgraded is the same for what follows a 101.
type upgraded struct {
	io.ReadWriteCloser
	pool   counter
	closed atomic.Bool
}

func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	if !u.closed.Swap(true) {
		u.pool.leaveUpgraded()
	}
	return err
}

func (u *upgraded) CloseWrite() error {
	if c, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return u.ReadWriteCloser.Close()
}

// OnAbort tells of the client's abort, see [proxy.Splice].
func (u *upgraded) OnAbort(f func()) (stop func() bool) {
	if c, ok := u.ReadWriteCloser.(interface{ OnAbort(func()) func() bool }); ok {
		return c.OnAbort(f)
	}
	return func() bool { return false }
}

// NetConn returns the connection below, for its options; a stream has none.
func (u *upgraded) NetConn() net.Conn {
	if c, ok := u.ReadWriteCloser.(interface{ NetConn() net.Conn }); ok {
		return c.NetConn()
	}
	return nil
}

func (u *upgraded) Reset() error {
	if c, ok := u.ReadWriteCloser.(interface{ Reset() error }); ok {
		return c.Reset()
	}
	return u.ReadWriteCloser.Close()
}
