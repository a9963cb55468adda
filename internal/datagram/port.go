package datagram

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
)

const (
	// maxPayload is the buffer of a port's reader, in bytes: a datagram is no longer.
	maxPayload = 64 << 10
	// newRate and newBurst are how many new visitors a second a port takes, and how many
	// at once: each costs the other side a socket and a stream.
	newRate, newBurst = 500, 1000
	// maxTick is how seldom a port looks for visitors that have been idle.
	maxTick = 5 * time.Second
	// listPause is how seldom a visitor goes to the front of its list.
	listPause = time.Second
	// dropPause is how seldom the log says how much was dropped.
	dropPause = time.Minute
)

// Port passes the datagrams that come to a socket on, on a stream for each visitor, and
// the answers back. Make it with [NewPort], and call Serve, once. The other methods may be
// called from many goroutines.
type Port struct {
	c        Config
	conn     *net.UDPConn
	start    time.Time
	local    bool // conn tells which of this machine's addresses a datagram was sent to
	budget   capsule.Budget
	out      atomic.Int64 // datagrams to visitors
	drops    drops
	visiting sync.WaitGroup // visitors

	mu       sync.Mutex // guards the following
	visitors map[way]*visitor
	// Who has sent something after an answer is known: that address is not forged. Each
	// list has first who was active last, by visitor.listed.
	known, unknown list.List
	ending, closed bool
	in             int64 // datagrams from visitors
	tokens         float64
	filled         time.Time // tokens

	// The rest is Serve's alone.
	told   Dropped
	toldAt time.Time
}

// NewPort returns the port of conn, which is its own from then on.
func NewPort(conn *net.UDPConn, c Config) *Port {
	conn.SetReadBuffer(socketBuffer)
	conn.SetWriteBuffer(socketBuffer)
	return &Port{
		c: c, conn: conn, start: time.Now(), local: tellLocal(conn),
		budget:   capsule.Budget{Max: portQueue, Own: ownQueue, Parent: c.Group.budget()},
		visitors: make(map[way]*visitor), tokens: newBurst, filled: time.Now(),
	}
}

// Stats counts from the port's start.
func (p *Port) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Visitors: int64(len(p.visitors)), In: p.in, Out: p.out.Load(), Dropped: p.drops.read()}
}

// Close closes the socket, and so ends Serve.
func (p *Port) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close()
}

// close is called with mu held.
func (p *Port) close() {
	p.closed = true
	p.conn.Close()
}

// drops is a Dropped that is counted.
type drops struct{ away, full, refused, unsent atomic.Int64 }

func (d *drops) read() Dropped {
	return Dropped{Away: d.away.Load(), Full: d.full.Load(), Refused: d.refused.Load(), Unsent: d.unsent.Load()}
}

// Serve passes datagrams on until the port is closed, or has ended (see End), and
// returns when its visitors have ended, too.
func (p *Port) Serve() {
	buf, control := make([]byte, maxPayload), make([]byte, controlSize)
	next := p.await()
	for {
		n, w, err := p.read(buf, control)
		now := time.Now()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err == nil {
			p.take(buf[:n], w, now)
		}
		// Another error is of a datagram sent before, or there is no memory for one.
		if !now.Before(next) || errors.Is(err, os.ErrDeadlineExceeded) {
			if p.tidy(now) && p.closeQuiet() {
				break
			}
			p.tell(now)
			next = p.await()
		}
	}
	p.mu.Lock()
	p.ending = true
	p.drop()
	p.mu.Unlock()
	p.visiting.Wait()
	p.toldAt = time.Time{}
	p.tell(time.Now())
}

// closeQuiet closes the port where it is to end and has no visitors.
func (p *Port) closeQuiet() (closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ending || len(p.visitors) > 0 {
		return false
	}
	p.close()
	return true
}

// drop ends all visitors. It is called with mu held.
func (p *Port) drop() {
	for _, v := range p.visitors {
		p.remove(v)
		v.cancel()
	}
}

// await sets when tidy is to be called next.
func (p *Port) await() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := time.Now().Add(min(p.idle()/4, maxTick))
	p.conn.SetReadDeadline(next)
	return next
}

// idle is called with mu held.
func (p *Port) idle() time.Duration {
	if p.ending {
		return min(quietTime, p.c.idle())
	}
	return p.c.idle()
}

// End takes no new visitors, and closes the port when those that are there have been
// quiet for a second.
func (p *Port) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.conn.SetReadDeadline(time.Now())
}

// Reopen takes new visitors again, and reports whether it was in time: the port is
// closed otherwise. Visitors that are there are ended where the port was to end, or anew
// is set, since their streams lead to whom it had before.
func (p *Port) Reopen(anew bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.ending || anew {
		p.drop()
	}
	p.ending = false
	return true
}

// way is whom a datagram comes from, and which of this machine's addresses it was sent
// to, which is the one to answer from; that is not valid where the socket has one alone.
type way struct {
	from  netip.AddrPort
	local netip.Addr
}

func (p *Port) read(buf, control []byte) (n int, w way, err error) {
	if p.local {
		var size int
		n, size, _, w.from, err = p.conn.ReadMsgUDPAddrPort(buf, control)
		w.local = localOf(control[:size])
	} else {
		n, w.from, err = p.conn.ReadFromUDPAddrPort(buf)
	}
	w.from = netip.AddrPortFrom(w.from.Addr().Unmap(), w.from.Port())
	return n, w, err
}

// take passes a datagram on.
func (p *Port) take(b []byte, w way, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in++
	v := p.visitors[w]
	if v == nil {
		if v = p.admit(w, now); v == nil {
			p.drops.refused.Add(1)
			return
		}
	}
	if !v.known && v.answered.Load() {
		v.known = true
		p.unknown.Remove(v.at)
		v.at = p.known.PushFront(v)
	}
	p.touch(v, now)
	if !v.queue.Put(b) {
		p.drops.full.Add(1)
	}
}

// admit makes a new visitor, unless there is no room. It is called with mu held.
func (p *Port) admit(w way, now time.Time) *visitor {
	p.tokens = min(newBurst, p.tokens+newRate*now.Sub(p.filled).Seconds())
	p.filled = now
	if p.ending || p.tokens < 1 || p.c.Full != nil && p.c.Full() || p.c.Admits != nil && !p.c.Admits(w.from.Addr()) {
		return nil
	}
	for len(p.visitors) >= p.c.visitors() || p.c.Group.full() {
		oldest := cmp.Or(p.unknown.Back(), p.known.Back())
		if oldest == nil {
			return nil
		}
		v := oldest.Value.(*visitor)
		p.remove(v)
		v.cancel()
	}
	p.tokens--
	v := &visitor{p: p, way: w, began: now, listed: now, control: controlFor(w.local), queue: capsule.NewQueue(&p.budget)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.at = p.unknown.PushFront(v)
	v.active.Store(int64(now.Sub(p.start)))
	p.visitors[w] = v
	p.c.Group.add(1)
	p.visiting.Go(v.run)
	return v
}

// remove forgets v; what waits for its client is dropped. It is called with mu held,
// and does nothing the second time.
func (p *Port) remove(v *visitor) {
	p.drops.away.Add(int64(v.queue.Close()))
	if p.visitors[v.way] != v {
		return
	}
	delete(p.visitors, v.way)
	p.c.Group.add(-1)
	p.list(v).Remove(v.at)
}

func (p *Port) list(v *visitor) *list.List {
	if v.known {
		return &p.known
	}
	return &p.unknown
}

// touch notes that v is active. It is called with mu held.
func (p *Port) touch(v *visitor, now time.Time) {
	v.active.Store(int64(now.Sub(p.start)))
	if now.Sub(v.listed) >= listPause {
		v.listed = now
		p.list(v).MoveToFront(v.at)
	}
}

// tidy ends who has been idle, and reports whether the port may close.
func (p *Port) tidy(now time.Time) (quiet bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle()
	for _, l := range []*list.List{&p.unknown, &p.known} {
		for e := l.Back(); e != nil; e = l.Back() {
			v := e.Value.(*visitor)
			if now.Sub(v.listed) < idle {
				break
			}
			if active := p.start.Add(time.Duration(v.active.Load())); now.Sub(active) < idle {
				v.listed = now // it may be early by listPause, and is looked at again
				l.MoveToFront(e)
				continue
			}
			p.remove(v)
			v.cancel()
		}
	}
	return p.ending && len(p.visitors) == 0
}

// tell logs how much was dropped since it last did.
func (p *Port) tell(now time.Time) {
	d := p.drops.read()
	if d == p.told || now.Sub(p.toldAt) < dropPause {
		return
	}
	p.c.log().Info("datagrams dropped", "client-away", d.Away-p.told.Away, "client-slow", d.Full-p.told.Full,
		"visitors-refused", d.Refused-p.told.Refused, "not-sent", d.Unsent-p.told.Unsent)
	p.told, p.toldAt = d, now
}
