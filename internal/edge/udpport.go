package edge

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
	// at once: each costs the client a socket and a stream.
	newRate, newBurst = 500, 1000
	// maxTick is how seldom a port looks for visitors that have been idle.
	maxTick = 5 * time.Second
	// listPause is how seldom a visitor goes to the front of its list.
	listPause = time.Second
	// dropPause is how seldom the log says how much was dropped.
	dropPause = time.Minute
)

// udpPort is an open port, and its visitors.
type udpPort struct {
	u      *UDP
	port   int
	conn   *net.UDPConn
	start  time.Time
	local  bool // conn tells which of the server's addresses a datagram was sent to
	budget capsule.Budget
	out    atomic.Int64 // datagrams to visitors
	drops  drops

	mu       sync.Mutex // guards the following
	owner    string
	visitors map[udpWay]*udpVisitor
	// Who has sent something after an answer is known: that address is not forged. Each
	// list has first who was active last, by udpVisitor.listed.
	known, unknown list.List
	ending         bool
	in             int64 // datagrams from visitors
	tokens         float64
	filled         time.Time // tokens

	// The rest is serve's alone.
	told   UDPDropped
	toldAt time.Time
}

func newUDPPort(u *UDP, port int, owner string, c *net.UDPConn) *udpPort {
	return &udpPort{
		u: u, port: port, owner: owner, conn: c, start: time.Now(), local: tellLocal(c), budget: capsule.Budget{Max: portQueue, Own: ownQueue, Parent: &u.budget},
		visitors: make(map[udpWay]*udpVisitor), tokens: newBurst, filled: time.Now(),
	}
}

// drops is a UDPDropped that is counted.
type drops struct{ away, full, refused, unsent atomic.Int64 }

func (d *drops) read() UDPDropped {
	return UDPDropped{Away: d.away.Load(), Full: d.full.Load(), Refused: d.refused.Load(), Unsent: d.unsent.Load()}
}

// serve reads until the socket is closed, and then ends the visitors.
func (p *udpPort) serve() {
	buf, control := make([]byte, maxPayload), make([]byte, controlSize)
	next := p.await()
	for {
		n, way, err := p.read(buf, control)
		now := time.Now()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err == nil {
			p.take(buf[:n], way, now)
		}
		// Another error is of a datagram sent before, or there is no memory for one.
		if !now.Before(next) || errors.Is(err, os.ErrDeadlineExceeded) {
			if p.tidy(now) && p.u.closeQuiet(p) {
				break
			}
			p.tell(now)
			next = p.await()
		}
	}
	p.mu.Lock()
	for _, v := range p.visitors {
		p.remove(v)
		v.cancel()
	}
	p.mu.Unlock()
	p.toldAt = time.Time{}
	p.tell(time.Now())
	p.u.mu.Lock()
	p.u.forget(p)
	p.u.mu.Unlock()
}

// await sets when tidy is to be called next.
func (p *udpPort) await() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := time.Now().Add(min(p.idle()/4, maxTick))
	p.conn.SetReadDeadline(next)
	return next
}

// idle is called with mu held.
func (p *udpPort) idle() time.Duration {
	if p.ending {
		return min(quietTime, p.u.idle())
	}
	return p.u.idle()
}

// end lets the port close when it is quiet.
func (p *udpPort) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.conn.SetReadDeadline(time.Now())
}

// reopen takes new visitors again. Those of another owner are not the new one's: what
// they send would go to the old one's client.
func (p *udpPort) reopen(owner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending || p.owner != owner {
		for _, v := range p.visitors {
			p.remove(v)
			v.cancel()
		}
	}
	p.ending, p.owner = false, owner
}

// udpWay is whom a datagram comes from, and which of the server's addresses it was sent
// to, which is the one to answer from; that is not valid where the socket has one alone.
type udpWay struct {
	from  netip.AddrPort
	local netip.Addr
}

func (p *udpPort) read(buf, control []byte) (n int, way udpWay, err error) {
	if p.local {
		var size int
		n, size, _, way.from, err = p.conn.ReadMsgUDPAddrPort(buf, control)
		way.local = localOf(control[:size])
	} else {
		n, way.from, err = p.conn.ReadFromUDPAddrPort(buf)
	}
	way.from = netip.AddrPortFrom(way.from.Addr().Unmap(), way.from.Port())
	return n, way, err
}

// take passes a datagram on.
func (p *udpPort) take(b []byte, way udpWay, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in++
	v := p.visitors[way]
	if v == nil {
		if v = p.admit(way, now); v == nil {
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
func (p *udpPort) admit(way udpWay, now time.Time) *udpVisitor {
	p.tokens = min(newBurst, p.tokens+newRate*now.Sub(p.filled).Seconds())
	p.filled = now
	if p.ending || p.tokens < 1 || p.u.Gate.full() {
		return nil
	}
	for len(p.visitors) >= cmp.Or(p.u.Visitors, defaultVisitors) || p.u.visitors.Load() >= allVisitors {
		oldest := cmp.Or(p.unknown.Back(), p.known.Back())
		if oldest == nil {
			return nil
		}
		v := oldest.Value.(*udpVisitor)
		p.remove(v)
		v.cancel()
	}
	p.tokens--
	v := &udpVisitor{p: p, udpWay: way, listed: now, control: controlFor(way.local), queue: capsule.NewQueue(&p.budget)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.at = p.unknown.PushFront(v)
	v.active.Store(int64(now.Sub(p.start)))
	p.visitors[way] = v
	p.u.visitors.Add(1)
	p.u.running.Go(v.run)
	return v
}

// remove forgets v; what waits for its client is dropped. It is called with mu held,
// and does nothing the second time.
func (p *udpPort) remove(v *udpVisitor) {
	p.drops.away.Add(int64(v.queue.Close()))
	if p.visitors[v.udpWay] != v {
		return
	}
	delete(p.visitors, v.udpWay)
	p.u.visitors.Add(-1)
	p.list(v).Remove(v.at)
}

func (p *udpPort) list(v *udpVisitor) *list.List {
	if v.known {
		return &p.known
	}
	return &p.unknown
}

// touch notes that v is active. It is called with mu held.
func (p *udpPort) touch(v *udpVisitor, now time.Time) {
	v.active.Store(int64(now.Sub(p.start)))
	if now.Sub(v.listed) >= listPause {
		v.listed = now
		p.list(v).MoveToFront(v.at)
	}
}

// tidy ends who has been idle, and reports whether the port may close.
func (p *udpPort) tidy(now time.Time) (quiet bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle()
	for _, l := range []*list.List{&p.unknown, &p.known} {
		for e := l.Back(); e != nil; e = l.Back() {
			v := e.Value.(*udpVisitor)
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
func (p *udpPort) tell(now time.Time) {
	d := p.drops.read()
	if d == p.told || now.Sub(p.toldAt) < dropPause {
		return
	}
	p.u.log().Info("datagrams dropped", "port", p.port, "client-away", d.Away-p.told.Away, "client-slow", d.Full-p.told.Full,
		"visitors-refused", d.Refused-p.told.Refused, "not-sent", d.Unsent-p.told.Unsent)
	p.told, p.toldAt = d, now
}
