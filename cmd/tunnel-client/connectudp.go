package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// connectUDPTime is how long the first datagrams of a local address wait for the way
	// to the endpoint. Later than that most who sent one have sent it again.
	connectUDPTime = 5 * time.Second
	// maxLocal is how many local addresses have a way at once. It stays below what the
	// server has for one session, 256, also while some are just ending.
	maxLocal = 200
	// tellPause is how seldom the log says why there is no way, while it is the same.
	tellPause = time.Minute
)

// datagrams is the entrance of kind UDP.
type datagrams struct {
	*datagram.Port
	addr net.Addr
}

// enterUDP opens the entrance for datagrams. r.connector is to be there when it is run.
func (r *reached) enterUDP() (entrance, error) {
	c, err := r.at.listenUDP()
	if err != nil {
		return nil, err
	}
	return &datagrams{addr: c.LocalAddr(), Port: datagram.NewPort(c, datagram.Config{
		Dial: r.dialUDP, Ended: r.ended, Idle: r.idle, Visitors: maxLocal, Log: r.log.With("private", r.name),
	})}, nil
}

func (d *datagrams) Addr() net.Addr { return d.addr }

func (d *datagrams) run(context.Context) error {
	d.Serve()
	return nil
}

func (d *datagrams) refuse() { d.End() }

func (d *datagrams) wait() {} // run does

func (d *datagrams) Close() error {
	d.Port.Close()
	return nil
}

// dialUDP is the way of a local address to the endpoint.
func (r *reached) dialUDP(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	r.open.Add(1)
	waiting, cancel := context.WithTimeout(ctx, connectUDPTime)
	defer cancel()
	stream, err := r.connector.DialCapsules(waiting, r.name)
	if err != nil && ctx.Err() == nil {
		code, cause, hint := r.explainAway(err)
		if r.told.now(code) {
			r.log.Warn("datagrams dropped", "private", r.name, "code", string(code), "err", cause, "hint", hint)
		}
	}
	return stream, err
}

// ended shows what became of a local address.
func (r *reached) ended(v datagram.Visit) {
	r.open.Add(-1)
	e := forward.Exchange{Method: "UDP", Path: v.From.String(), Status: http.StatusSwitchingProtocols, Bytes: v.Bytes, Duration: time.Since(v.Began)}
	switch {
	case errors.Is(v.Err, context.Canceled):
		e.Status = 0
	case v.Err != nil:
		e.Code, _, _ = r.explainAway(v.Err)
		e.Status = e.Code.Status()
	}
	r.out.request(request{Exchange: e})
}

// told remembers what the log was last told of. The zero value is of nothing.
type told struct {
	mu   sync.Mutex // guards the following
	code protocol.Code
	at   time.Time
}

// now reports whether to tell of code, which is noted.
func (t *told) now(code protocol.Code) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if code == t.code && !t.at.IsZero() && time.Since(t.at) < tellPause {
		return false
	}
	t.code, t.at = code, time.Now()
	return true
}
