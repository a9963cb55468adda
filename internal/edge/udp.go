package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/registry"
)

// UDPName is the name by which a port for datagrams is known to the registry.
func UDPName(port int) string { return "udp/" + strconv.Itoa(port) }

const (
	// allVisitors bounds those of all ports.
	allVisitors = 20_000
	// allQueues bounds the datagrams that wait, or are being read, of all ports, in
	// bytes.
	allQueues = 64 << 20
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

	once  sync.Once
	group datagram.Group
	stop  chan struct{} // closed with closed

	mu      sync.Mutex // guards the following
	ports   map[int]*udpPort
	closed  bool
	running sync.WaitGroup // ports, and who waits for the end of a hold
}

// udpPort is an open port.
type udpPort struct {
	*datagram.Port
	port  int
	owner string // guarded by UDP.mu
}

func (u *UDP) setUp() {
	u.once.Do(func() {
		u.stop = make(chan struct{})
		u.group.Visitors, u.group.Budget.Max = allVisitors, allQueues
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
	if p := u.ports[port]; p != nil && p.Reopen(p.owner != owner) {
		p.owner = owner
		return nil
	}
	c, err := net.ListenPacket("udp", net.JoinHostPort(u.Host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	if u.ports == nil {
		u.ports = make(map[int]*udpPort)
	}
	p := &udpPort{port: port, owner: owner, Port: datagram.NewPort(c.(*net.UDPConn), datagram.Config{
		Dial: func(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
			return Dial(ctx, u.Registry, UDPName(port), from, 0)
		},
		Idle: u.Idle, Visitors: u.Visitors, Full: u.Gate.full, Admits: func(from netip.Addr) bool { return u.admits(port, from) }, Group: &u.group, Log: u.log().With("port", port),
	})}
	u.ports[port] = p
	u.running.Go(func() { u.serve(p) })
	return nil
}

// admits reports whether a visitor at from may have a place. Where nobody is there to say,
// it may: it is looked at again when its stream is opened.
func (u *UDP) admits(port int, from netip.Addr) bool {
	route, err := u.Registry.Lookup(context.Background(), UDPName(port))
	return err != nil || route.Policy.Admits(from)
}

func (u *UDP) serve(p *udpPort) {
	p.Serve()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ports[p.port] == p {
		delete(u.ports, p.port)
	}
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
		p.End()
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
		p.End()
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
		p.Close()
	}
	u.mu.Unlock()
	<-done
	return ctx.Err()
}

func (u *UDP) log() *slog.Logger {
	if u.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return u.Log
}
