package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/internal/upstream"
)

// TCPName is the name by which a port is known to the registry.
func TCPName(port int) string { return "tcp/" + strconv.Itoa(port) }

// TCP passes the connections that come to ports of the server on to the clients
// that have bound them, byte for byte: the end of one direction is passed on as
// such (R16), and an abort as an abort (R17). Whoever comes while the client is away
// waits, as a request does.
type TCP struct {
	Registry registry.Registry
	// Host is the address to listen at. "": all.
	Host string
	// Proxies are the addresses whose connections may begin with a header of the PROXY
	// protocol, version 2, see [Door]. Those from where nothing comes at first are taken
	// for visitors themselves after 3 s: some wait for the app to speak.
	Proxies []netip.Prefix
	// Park is how long a visitor waits for a client that dropped. 0: not at all.
	Park time.Duration
	// Gate refuses connections where the server's memory is full, and cuts some off at
	// the brim. Nil: none.
	Gate *Gate
	// Log gets why connections failed, and a line for each at debug level. Nil
	// discards.
	Log *slog.Logger

	mu      sync.Mutex // guards the following
	ports   map[int]net.Listener
	closed  bool
	running sync.WaitGroup // ports, and who waits for the end of a hold

	conns raws

	once sync.Once
	stop chan struct{} // closed when the ports are
}

// Open listens on port, which is bound in the registry, until nobody has it any
// more. A port that is open stays so. The error is of listening.
func (t *TCP) Open(port int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	if t.ports[port] != nil {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(t.Host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	if t.Gate == nil {
		t.Gate = new(Gate) // it lets everything in
	}
	l = t.Gate.Listener(l)
	if t.ports == nil {
		t.ports = make(map[int]net.Listener)
	}
	t.ports[port] = l
	t.running.Go(func() { t.serve(port, l) })
	return nil
}

// Released is called when a client gave port back: at once, or for a hold. The port
// is closed when nobody has it any more.
func (t *TCP) Released(port int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.ports[port]; l != nil && !t.closed {
		t.running.Go(func() { t.closeUnbound(port, l) })
	}
}

// closeUnbound waits for the end of the hold.
func (t *TCP) closeUnbound(port int, l net.Listener) {
	for {
		t.mu.Lock()
		_, err := t.Registry.Lookup(context.Background(), TCPName(port))
		var offline *registry.OfflineError
		if !errors.As(err, &offline) || t.closed {
			if err != nil && t.ports[port] == l {
				delete(t.ports, port)
				l.Close()
			}
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		select {
		case <-offline.Changed:
		case <-t.stopped():
		}
	}
}

// Shutdown takes no more connections, and waits for those that are open until ctx
// ends, whose error it returns; then they are reset.
func (t *TCP) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.stopped())
	}
	for _, l := range t.ports {
		l.Close()
	}
	t.mu.Unlock()
	t.running.Wait() // they end at once
	return t.conns.shutdown(ctx)
}

func (t *TCP) stopped() chan struct{} {
	t.once.Do(func() { t.stop = make(chan struct{}) })
	return t.stop
}

// serve accepts until the listener is closed.
func (t *TCP) serve(port int, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.log().Error("port takes no more connections", "port", port, "err", err)
			}
			return
		}
		c.(lingerer).SetLinger(0) // its end is an abort until the app's own has come, also this process's (R1)
		t.Gate.Follow(c, http.StateActive)
		if t.Gate.full() {
			abort(c)
			continue
		}
		t.conns.enter(c, func(v *rawConn) { t.pass(port, v) })
	}
}

// pass passes one connection on.
func (t *TCP) pass(port int, v *rawConn) {
	start := time.Now()
	transport.LimitUnsent(v.Conn)
	visitor, err := t.visitor(v.Conn)
	if err != nil {
		t.log().Info("connection failed", "port", port, "err", brief(err))
		v.abort()
		return
	}
	from, _ := netip.ParseAddrPort(visitor.RemoteAddr().String())
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	stream, err := Dial(v.ctx, t.Registry, TCPName(port), from, t.Park)
	if err != nil {
		t.log().Log(v.ctx, levelOf(err), "connection failed", "port", port, "err", brief(err))
		v.abort()
		return
	}
	up, down := proxy.Splice(visitor, stream, nil)
	t.log().Debug("connection", "port", port, "visitor", from.String(), "received", up, "sent", down, "duration", time.Since(start))
}

// proxyHeaderWait is how long a port waits for a header of the PROXY protocol. A proxy
// sends it first of all.
const proxyHeaderWait = 3 * time.Second

// visitor is c with the address that a proxy names.
func (t *TCP) visitor(c net.Conn) (net.Conn, error) {
	tcp, ok := c.(tcpConn)
	if !ok || !proxied(t.Proxies, c) {
		return c, nil
	}
	c.SetReadDeadline(time.Now().Add(proxyHeaderWait))
	defer c.SetReadDeadline(time.Time{})
	visitor, err := readProxyHeader(tcp)
	if errors.Is(err, errUnsigned) && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)) {
		err = nil
	}
	return visitor, err
}

func (t *TCP) log() *slog.Logger {
	if t.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Log
}

// Dial opens a raw stream to the client that has name, for the visitor at from. It
// waits for a client that dropped, park at most, and less for one that was silent for
// long. A stream that was lost with its session before it was open is opened again:
// nothing that the visitor sent is lost with it. The error wraps the registry's, or one
// of [upstream.Pool]'s, or says that the visitor's address is not let in.
func Dial(ctx context.Context, r registry.Registry, name string, from netip.AddrPort, park time.Duration) (net.Conn, error) {
	began := time.Now()
	parked := time.NewTimer(park)
	defer parked.Stop()
	for {
		route, err := r.Lookup(ctx, name)
		var again <-chan struct{}
		var offline *registry.OfflineError
		switch {
		case err == nil && !route.Policy.Admits(from.Addr()):
			return nil, fmt.Errorf("visitor at %s: %w", from.Addr(), errRefused)
		case err == nil && route.Dial == nil:
			return nil, fmt.Errorf("%s takes no connections: %w", name, registry.ErrUnknown)
		case err == nil:
			stream, err := route.Dial(ctx, from)
			lost := errors.Is(err, upstream.ErrNotSent) || errors.Is(err, upstream.ErrSessionLost)
			if err == nil || !lost || park <= 0 {
				return stream, err
			}
			again = at(notSentRetry) // the registry is about to hear of it
		case errors.As(err, &offline) && park > 0:
			if offline.Silent {
				parked.Reset(min(park, lostPark) - time.Since(began))
			}
			again = offline.Changed
		default:
			return nil, err
		}
		select {
		case <-again:
		case <-parked.C:
			return nil, &registry.OfflineError{Name: name}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
