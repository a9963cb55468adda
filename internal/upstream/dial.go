package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/protocol"
)

// dialTime is how long a client may take to reach its local app for a raw stream.
// It has a shorter limit of its own, and says what went wrong.
const dialTime = 15 * time.Second

// Dial returns what opens raw streams to the client for name: a route's Dial. The
// error of a call wraps one of RoundTrip's, or is a [*protocol.Error] with the
// client's own code. A stream is under way until it is closed, and [Pool.Drain] waits
// for it.
func (p *Pool) Dial(name string) func(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
	p.routes.Add(1)
	return func(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
		req := &http.Request{Method: http.MethodConnect, RequestURI: name, Host: name, Header: http.Header{}}
		return p.dial(ctx, req, from, http.StatusOK)
	}
}

// DialUDP is Dial for a route of kind UDP: a stream carries the capsules of one
// visitor's datagrams (RFC 9298).
func (p *Pool) DialUDP(name string) func(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
	p.routes.Add(1)
	return func(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
		req := &http.Request{Method: http.MethodGet, RequestURI: protocol.PathUDP + name + "/0/", Host: name, Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {protocol.UpgradeUDP}, "Capsule-Protocol": {"?1"},
		}}
		if p.routes.Load() > 1 {
			req.Header.Set(protocol.HeaderRoute, name) // a visitor's own request may look the same
		}
		return p.dial(ctx, req, from, http.StatusSwitchingProtocols)
	}
}

// dial sends what asks for a raw stream.
func (p *Pool) dial(ctx context.Context, req *http.Request, from netip.AddrPort, want int) (net.Conn, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	if from.IsValid() {
		req.Header.Set("Forwarded", "for="+strconv.Quote(from.String())) // RFC 7239, section 6: of IPv6 it is in brackets
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	res, err := p.streams.RoundTrip(req.WithContext(ctx))
	if err != nil {
		p.leave()
		return nil, p.explain(err)
	}
	conn, ok := res.Body.(rawConn)
	if !ok {
		res.Body.Close()
		p.leave()
		return nil, refusedBy(res)
	}
	if res.StatusCode != want {
		conn.Reset()
		p.leave()
		return nil, refusedBy(res)
	}
	waited := want == http.StatusOK
	if !waited {
		p.finish() // datagrams have no end to wait for
	}
	return &raw{rawConn: conn, pool: p, waited: waited}, nil
}

// refusedBy is the error of an answer that is no stream.
func refusedBy(res *http.Response) error {
	code := protocol.Code(res.Header.Get(protocol.HeaderError))
	switch code {
	case protocol.AppRefused, protocol.AppTimeout, protocol.Overloaded:
		return &protocol.Error{Code: code, Message: "the client did not reach its local app"}
	}
	return fmt.Errorf("%w: status %d in place of a stream", proxy.ErrBadResponse, res.StatusCode)
}

// rawConn is what a handed-over stream can do.
type rawConn interface {
	net.Conn
	CloseWrite() error
	Reset() error
	OnAbort(f func()) (stop func() bool)
}

// raw counts itself as under way until it is closed.
type raw struct {
	rawConn
	pool   *Pool
	waited bool // by Drain
	closed atomic.Bool
}

func (r *raw) Close() error {
	err := r.rawConn.Close()
	if r.closed.Swap(true) {
		return err
	}
	if r.waited {
		r.pool.leave()
	} else {
		r.pool.active.Add(-1)
	}
	return err
}
