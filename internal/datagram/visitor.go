package datagram

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
)

// visitor is an address that datagrams come from, and its stream.
type visitor struct {
	way
	p       *Port
	began   time.Time
	control []byte         // makes an answer come from where the visitor sent to
	queue   *capsule.Queue // what waits for the stream
	ctx     context.Context
	cancel  context.CancelFunc // ends it

	active   atomic.Int64 // when a datagram last came, of either side, in nanoseconds since the port's start
	bytes    int64        // that went to it; pass's alone
	answered atomic.Bool  // a datagram has gone to it
	moved    time.Time    // when answer last went to the port's lists

	// These are guarded by the port's mu.
	at     *list.Element // in the port's list
	known  bool          // the list is that of the known ones
	listed time.Time     // when it came to the front
}

// run passes datagrams on until the stream ends, or the visitor does.
func (v *visitor) run() {
	err := v.pass()
	v.forget()
	if v.p.c.Ended != nil {
		v.p.c.Ended(Visit{From: v.from, Began: v.began, Bytes: v.bytes, Err: err})
	}
}

// pass opens the stream. The error is of that.
func (v *visitor) pass() error {
	log := v.p.c.log()
	from := netip.AddrPortFrom(v.from.Addr().WithZone(""), v.from.Port())
	stream, err := v.p.c.Dial(v.ctx, from)
	if err != nil {
		log.Debug("datagrams dropped: no way to the client", "visitor", v.from.String(), "err", brief(err))
		return err
	}
	defer stream.Close()
	reset := func() {
		if s, ok := stream.(interface{ Reset() error }); ok {
			s.Reset()
		} else {
			stream.Close()
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
		log.Debug("client ended a visitor", "visitor", v.from.String(), "err", brief(err))
	}
	return nil
}

// brief bounds what the other side may have had a part in, in bytes.
func brief(err error) string { return fmt.Sprintf("%.300q", err.Error()) }

// answer sends what the client brought. Its error ends the visitor.
func (v *visitor) answer(b []byte) error {
	v.answered.Store(true) // before it is there: what the visitor says to it may be read first
	_, _, err := v.p.conn.WriteMsgUDPAddrPort(b, v.control, v.from)
	switch {
	case errors.Is(err, net.ErrClosed):
		return err
	case err != nil:
		v.p.drops.unsent.Add(1)
		return nil
	}
	v.bytes += int64(len(b))
	v.p.out.Add(1)
	now := time.Now()
	v.active.Store(int64(now.Sub(v.p.start)))
	if now.Sub(v.moved) >= listPause {
		v.moved = now
		v.p.mu.Lock()
		defer v.p.mu.Unlock()
		if v.p.visitors[v.way] == v {
			v.p.touch(v, now)
		}
	}
	return nil
}

// forget takes v out of its port.
func (v *visitor) forget() {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	v.p.remove(v)
	v.cancel()
}
