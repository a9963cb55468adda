package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/registry"
)

// UDPName is the name by which a port for datagrams is known to the registry.
func UDPName(port int) string { return "udp/" + strconv.Itoa(port) }

const (
	// defaultIdle is the least that RFC 4787, section 4.3, wants of a NAT.
	defaultIdle     = 2 * time.Minute
	defaultVisitors = 1000
	// allVisitors bounds those of all ports.
	allVisitors = 20_000
	// portQueue and allQueues bound the datagrams that wait, or are being read, of a port
	// and of all, in bytes; ownQueue is not counted with the others'.
	portQueue, allQueues, ownQueue = 8 << 20, 64 << 20, 256 << 10
	// socketBuffer is what the kernel may hold of a port, in bytes, where it lets it be.
	socketBuffer = 1 << 20
	// quietTime is after how long a visitor has ended, of a port that is to close.
	quietTime = time.Second
)

// UDP passes the datagrams that come to ports of the server on to the clients that
// have bound them, and the answers back: on a stream for each visitor, which is an
// address and port. They stay in their order, and are as they were.
//
// Nothing waits that could hold up others: a datagram is dropped, and counted, where
// its client is away, where too much waits for its client, and where it comes from a
// visitor who is one too many. Who sends from many addresses, which can be forged,
// takes the places of visitors who never answered to an answer, the oldest first, and
// those of others only when there are no such.
type UDP struct {
	Registry registry.Registry
	// Host is the address to listen at. "": all.
	Host string
	// Idle is how long a visitor is remembered of whom and for whom nothing came. 0: 2
	// minutes.
	Idle time.Duration
	// Visitors is how many a port may have at once. 0: 1,000.
	Visitors int
	// Gate refuses new visitors where the server's memory is full. Nil: none.
	Gate *Gate
	// Log gets how much was dropped, at most once a minute for each port. Nil discards.
	Log *slog.Logger

	visitors atomic.Int64
	once     sync.Once
	budget   capsule.Budget
	stop     chan struct{} // closed with closed

	mu      sync.Mutex // guards the following
	ports   map[int]*udpPort
	closed  bool
	running sync.WaitGroup // ports, visitors, and who waits for the end of a hold
}

// UDPStats counts what a [UDP] has passed on and dropped.
type UDPStats struct {
	Visitors int64 // that there are now
	In, Out  int64 // datagrams from visitors, and to them
	Dropped  UDPDropped
}

// UDPDropped counts datagrams by why they were dropped.
type UDPDropped struct {
	Away    int64 // the client was not there, or went away
	Full    int64 // too much waited for the client
	Refused int64 // of a new visitor: too many of them, or too fast, or memory was full
	Unsent  int64 // to a visitor: the network did not take it
}

// Stats counts from when port was opened; all is zero where it is not.
func (u *UDP) Stats(port int) UDPStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.ports[port]
	if p == nil {
		return UDPStats{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return UDPStats{Visitors: int64(len(p.visitors)), In: p.in, Out: p.out.Load(), Dropped: p.drops.read()}
}

func (u *UDP) setUp() {
	u.once.Do(func() {
		u.stop = make(chan struct{})
		u.budget.Max = allQueues
	})
}

// Open listens on port, which owner has bound in the registry, until nobody has it any
// more. A port that is open stays so; its visitors stay where it is the same owner's.
// The error is of listening.
func (u *UDP) Open(port int, owner string) error {
	u.setUp()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return net.ErrClosed
	}
	if p := u.ports[port]; p != nil {
		p.reopen(owner)
		return nil
	}
	c, err := net.ListenPacket("udp", net.JoinHostPort(u.Host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	if u.ports == nil {
		u.ports = make(map[int]*udpPort)
	}
	udp := c.(*net.UDPConn)
	udp.SetReadBuffer(socketBuffer)
	udp.SetWriteBuffer(socketBuffer)
	p := newUDPPort(u, port, owner, udp)
	u.ports[port] = p
	u.running.Go(p.serve)
	return nil
}

// Released is called when a client gave port back: at once, or for a hold. The port
// takes no new visitors when nobody has it any more, and is closed when those that
// are there have been quiet for a second.
func (u *UDP) Released(port int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.ports[port]; p != nil && !u.closed {
		if held := u.held(p); held != nil {
			u.running.Go(func() { u.awaitHold(p, held) })
		}
	}
}

// held lets p end where nobody has it, and returns the end of its hold where there is
// one. It is called with mu held, so that Open comes before or after.
func (u *UDP) held(p *udpPort) <-chan struct{} {
	_, err := u.Registry.Lookup(context.Background(), UDPName(p.port))
	var offline *registry.OfflineError
	switch {
	case errors.As(err, &offline) && !u.closed:
		return offline.Changed
	case err != nil:
		p.end()
	}
	return nil
}

func (u *UDP) awaitHold(p *udpPort, changed <-chan struct{}) {
	for changed != nil {
		select {
		case <-changed:
		case <-u.stop:
			return // Shutdown ends the port
		}
		u.mu.Lock()
		changed = nil
		if u.ports[p.port] == p {
			changed = u.held(p)
		}
		u.mu.Unlock()
	}
}

// closeQuiet closes p where it is to end and has no visitors.
func (u *UDP) closeQuiet(p *udpPort) (closed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ending || len(p.visitors) > 0 {
		return false
	}
	u.forget(p)
	return true
}

// forget is called with mu held.
func (u *UDP) forget(p *udpPort) {
	if u.ports[p.port] == p {
		delete(u.ports, p.port)
	}
	p.conn.Close()
}

// Shutdown takes no new visitors, and waits until those that are there have been quiet
// for a second, or ctx ends, whose error it returns.
func (u *UDP) Shutdown(ctx context.Context) error {
	u.setUp()
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		close(u.stop)
	}
	for _, p := range u.ports {
		p.end()
	}
	u.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	u.mu.Lock()
	for _, p := range u.ports {
		p.conn.Close()
	}
	u.mu.Unlock()
	<-done
	return ctx.Err()
}

func (u *UDP) idle() time.Duration { return cmp.Or(u.Idle, defaultIdle) }

func (u *UDP) log() *slog.Logger {
	if u.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return u.Log
}
