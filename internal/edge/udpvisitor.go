package edge

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
)

// udpVisitor is an address that datagrams come from, and its stream to the client.
type udpVisitor struct {
	udpWay
	p       *udpPort
	control []byte         // makes an answer come from where the visitor sent to
	queue   *capsule.Queue // what waits for the client
	ctx     context.Context
	cancel  context.CancelFunc // ends it

	active   atomic.Int64 // when a datagram last came, of either side, in nanoseconds since the port's start
	answered atomic.Bool  // a datagram has gone to it
	moved    time.Time    // when answer last went to the port's lists

	// These are guarded by the port's mu.
	at     *list.Element // in the port's list
	known  bool          // the list is that of the known ones
	listed time.Time     // when it came to the front
}

// run opens the stream and passes datagrams on until it ends, or the visitor does.
func (v *udpVisitor) run() {
	defer v.forget()
	u := v.p.u
	from := netip.AddrPortFrom(v.from.Addr().WithZone(""), v.from.Port())
	stream, err := Dial(v.ctx, u.Registry, UDPName(v.p.port), from, 0)
	if err != nil {
		u.log().Debug("datagrams dropped: no way to the client", "port", v.p.port, "visitor", v.from.String(), "err", brief(err))
		return
	}
	defer stream.Close()
	reset := func() {
		if s, ok := stream.(interface{ Reset() error }); ok {
			s.Reset()
		}
	}
	stop := context.AfterFunc(v.ctx, reset)
	defer stop()
	var writing sync.WaitGroup
	writing.Go(func() { v.queue.Run(stream) }) // where it fails, Receive sees it, too
	err = capsule.Receive(stream, &v.p.budget, v.answer, func() { v.p.drops.full.Add(1) })
	reset() // what is being written is nobody's any more
	v.forget()
	writing.Wait()
	if v.ctx.Err() == nil {
		u.log().Debug("client ended a visitor", "port", v.p.port, "visitor", v.from.String(), "err", brief(err))
	}
}

// answer sends what the client brought. Its error ends the visitor.
func (v *udpVisitor) answer(b []byte) error {
	_, _, err := v.p.conn.WriteMsgUDPAddrPort(b, v.control, v.from)
	switch {
	case errors.Is(err, net.ErrClosed):
		return err
	case err != nil:
		v.p.drops.unsent.Add(1)
		return nil
	}
	v.p.out.Add(1)
	v.answered.Store(true)
	now := time.Now()
	v.active.Store(int64(now.Sub(v.p.start)))
	if now.Sub(v.moved) >= listPause {
		v.moved = now
		v.p.mu.Lock()
		defer v.p.mu.Unlock()
		if v.p.visitors[v.udpWay] == v {
			v.p.touch(v, now)
		}
	}
	return nil
}

// forget takes v out of its port.
func (v *udpVisitor) forget() {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	v.p.remove(v)
	v.cancel()
}
