package server_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// ports are n that are free, for TCP and UDP.
func ports(t *testing.T, n int) server.Ports {
	t.Helper()
	first := rig.FreePorts(t, n)
	return server.Ports{First: first, Last: first + n - 1}
}

func addrOf(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// bindPort claims a port and returns the answer.
func (c *client) bindPort(name string, port int) *protocol.Bound {
	c.t.Helper()
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Kind: protocol.KindTCP, Name: name, Port: port}})
	m := c.read()
	if m.Bound == nil || m.Bound.ID != 7 {
		c.t.Fatalf("no answer to bind but %+v", m)
	}
	return m.Bound
}

// isOpen reports whether something listens at port, also where it resets at once.
func isOpen(port int) bool {
	c, err := net.Dial("tcp", addrOf(port))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// closed waits until nothing listens at port.
func closed(t *testing.T, port int) {
	t.Helper()
	poll.Until(t, "the port is closed", func() bool { return !isOpen(port) })
}

// TestPortsEnd: a port that nobody has any more is closed: after a goodbye at once,
// after a drop when the hold is over, and after an unbind; one that is held is not.
func TestPortsEnd(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 3), Hold: 300 * time.Millisecond})
	c := n.connect("", "one", "")
	one, two := c.must(c.bindPort("one", 0)).Port, c.must(c.bindPort("two", 0)).Port
	if one == two || !isOpen(one) || !isOpen(two) {
		t.Fatalf("ports %d and %d", one, two)
	}
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "one"}})
	closed(t, one)
	if !isOpen(two) {
		t.Error("the other name's port was closed, too")
	}
	c.mux.Close()
	closed(t, two)

	c = n.connect("", "one", "")
	one = c.must(c.bindPort("one", 0)).Port
	c.send(&protocol.Message{Bye: &protocol.Bye{}})
	closed(t, one)
}

// TestPortIsHeld: a port stays with its name while the client is away: other names of
// the same owner do not get it, nor do strangers, nor whoever asks for it.
func TestPortIsHeld(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 1), Hold: time.Minute, Domain: "tunnel.test"})
	c := n.connect("", "token", "")
	b := c.must(c.bindPort("one", 0))
	if want := "tcp://tunnel.test:" + strconv.Itoa(b.Port); b.URL != want {
		t.Errorf("URL %s, want %s", b.URL, want)
	}
	c.mux.Close()
	poll.Until(t, "the drop is noticed", func() bool {
		again := n.connect("", "token", "")
		defer again.mux.Close()
		err := again.bindPort("one", 0).Error
		return err == nil
	})
	for _, other := range []struct{ token, name string }{{"token", "two"}, {"stranger", "one"}} {
		for _, port := range []int{0, b.Port} {
			o := n.connect("", other.token, "")
			if err := o.bindPort(other.name, port).Error; err == nil || err.Code != protocol.PortUnavailable || err.Hint == "" {
				t.Errorf("%v asks for port %d: %v", other, port, err)
			}
			o.mux.Close()
		}
	}
	if !isOpen(b.Port) {
		t.Error("the port was closed within its hold")
	}
}

// TestPortStaysTheSame: across a drop, with another connection of the session, with a
// new process of the same token and name, and with a server that has started again.
func TestPortStaysTheSame(t *testing.T) {
	c := server.Config{TCPPorts: ports(t, 20), Hold: time.Minute}
	n := start(t, c)
	first := n.connect("", "token", "")
	others := n.connect("", "token", "")
	want := first.must(first.bindPort("demo", 0)).Port
	for _, name := range []string{"a", "b", "c", "d"} {
		others.must(others.bindPort(name, 0))
	}
	resumed := n.connect(first.id, "token", first.welcome.Resume)
	if got := resumed.must(resumed.bindPort("demo", want)).Port; got != want {
		t.Errorf("resumed: port %d, want %d", got, want)
	}
	resumed.mux.Close()
	poll.Until(t, "a new process has the port", func() bool {
		next := n.connect("", "token", "")
		defer next.mux.Close()
		b := next.bindPort("demo", 0)
		if b.Error == nil && b.Port != want {
			t.Fatalf("a new process: port %d, want %d", b.Port, want)
		}
		return b.Error == nil
	})
	n.stop()
	err := <-n.done
	n.done <- err
	again := start(t, c)
	next := again.connect("", "token", "")
	if got := next.must(next.bindPort("demo", 0)).Port; got != want {
		t.Errorf("from a new server: port %d, want %d", got, want)
	}
}

// TestPortAfterDisplacement: where the preferred port was another's, the one that was
// given instead is remembered.
func TestPortAfterDisplacement(t *testing.T) {
	free := ports(t, 2)
	n := start(t, server.Config{TCPPorts: free})
	stranger := n.connect("", "stranger", "")
	stranger.must(stranger.bindPort("x", 0))
	c := n.connect("", "token", "")
	port := c.must(c.bindPort("demo", 0)).Port
	stranger.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "x"}})
	closed(t, free.First+free.Last-port)
	c.send(&protocol.Message{Bye: &protocol.Bye{}})
	closed(t, port)
	next := n.connect("", "token", "")
	if got := next.must(next.bindPort("demo", 0)).Port; got != port {
		t.Errorf("port %d, and %d the time before", got, port)
	}
}

// TestPortRefused: why a port is refused is said, with the way out.
func TestPortRefused(t *testing.T) {
	free := ports(t, 2)
	busy, err := net.Listen("tcp", addrOf(free.First)) // of another program
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	n := start(t, server.Config{TCPPorts: free, MaxNames: 2})
	none := start(t, server.Config{})
	c := n.connect("", "token", "")
	refused := func(b *protocol.Bound, want protocol.Code) {
		t.Helper()
		if b.Error == nil || b.Error.Code != want || b.Error.Message == "" {
			t.Errorf("port %d, %v; want %s", b.Port, b.Error, want)
		}
	}
	o := none.connect("", "token", "")
	refused(o.bindPort("demo", 0), protocol.KindUnsupported)
	refused(c.bindPort("demo", 1), protocol.PortUnavailable)
	refused(c.bindPort("demo", free.First), protocol.PortUnavailable)
	if b := c.must(c.bindPort("demo", 0)); b.Port != free.Last {
		t.Errorf("port %d, and only %d is free", b.Port, free.Last)
	}
	two := n.connect("", "token", "")
	refused(two.bindPort("demo", 0), protocol.NameTaken) // its client is there
	refused(two.bindPort("demo", free.First), protocol.NameTaken)
	refused(two.bindPort("other", free.Last), protocol.PortUnavailable)
	refused(two.bindPort("other", 0), protocol.PortUnavailable)
	c.must(c.bind("web"))
	refused(c.bindPort("third", 0), protocol.TooManyNames)
}

// together is a registry that binds nothing before so many have come to bind something.
type together struct {
	registry.Memory
	mu    sync.Mutex
	wants int
	come  chan struct{} // closed when they have
}

func (r *together) expect(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wants, r.come = n, make(chan struct{})
}

func (r *together) Bind(ctx context.Context, route *registry.Route) (registry.Release, error) {
	r.mu.Lock()
	if r.wants--; r.wants == 0 {
		close(r.come)
	}
	come := r.come
	r.mu.Unlock()
	select {
	case <-come:
	case <-time.After(20 * time.Second):
		return nil, errors.New("the others did not come to bind")
	}
	return r.Memory.Bind(ctx, route)
}

// TestPortRace: of clients that claim one name at once, one has it (R31): none of them
// sees another's port, neither when the name had none before nor when it had one.
func TestPortRace(t *testing.T) {
	const clients = 4
	names := new(together)
	n := start(t, server.Config{TCPPorts: ports(t, 10), Registry: names})
	for round := range 6 {
		var got [clients]*protocol.Bound
		var all [clients]*client
		var claiming sync.WaitGroup
		for i := range all {
			all[i] = n.connect("", "token", "")
		}
		names.expect(clients)
		for i := range all {
			claiming.Go(func() { got[i] = all[i].bindPort("demo", 0) })
		}
		claiming.Wait()
		won := 0
		for i, b := range got {
			switch {
			case b.Error == nil:
				won++
				all[i].send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
				closed(t, b.Port)
			case b.Error.Code != protocol.NameTaken:
				t.Error(b.Error)
			}
			all[i].mux.Close()
		}
		if won != 1 {
			t.Fatalf("round %d: %d clients have the name", round, won)
		}
	}
}

// TestPortMovesOnRenewal: where a session's ids run out, its port moves to the next
// connection without a gap, and open connections go on (R24).
func TestPortMovesOnRenewal(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 2), MaxStreams: 8, Park: 20 * time.Second})
	first := n.connect("", "token", "")
	port := first.must(first.bindPort("demo", 0)).Port
	first.serveRaw()
	kept := visit(t, port)
	for range 6 { // seven eighths of its ids are used then
		v := visit(t, port)
		echo(t, v, "x")
		v.Close()
	}
	if m := first.read(); m.Drain == nil {
		t.Fatalf("no drain but %+v", m)
	}
	next := n.connect(first.id, "token", first.welcome.Resume)
	if b := next.must(next.bindPort("demo", port)); b.Port != port {
		t.Errorf("port %d, want %d", b.Port, port)
	}
	next.serveRaw()
	said := make(chan *protocol.Message, 1)
	go func() { m, _ := protocol.Read(first.control); said <- m }()
	echo(t, visit(t, port), "new")
	for range 100 {
		echo(t, kept, "kept")
	}
	select {
	case m := <-said:
		t.Fatalf("a connection is open, and the old session is told %+v", m)
	default:
	}
	kept.Close()
	select {
	case <-first.mux.Done():
	case <-time.After(20 * time.Second):
		t.Error("the old connection does not end")
	}
	echo(t, visit(t, port), "newer")
}

// serveRaw answers each CONNECT, and echoes.
func (c *client) serveRaw() {
	go func() {
		for {
			stream, err := c.mux.Accept()
			if err != nil {
				return
			}
			go func() {
				defer stream.Close()
				for tail := ""; tail != "\r\n\r\n"; {
					var b [1]byte
					if _, err := stream.Read(b[:]); err != nil {
						return
					}
					tail = (tail + string(b[:]))[max(0, len(tail)-3):]
				}
				io.WriteString(stream, "HTTP/1.1 200 OK\r\n\r\n")
				io.Copy(stream, stream)
			}()
		}
	}()
}

func visit(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addrOf(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func echo(t *testing.T, c net.Conn, what string) {
	t.Helper()
	io.WriteString(c, what)
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != what {
		t.Fatalf("sent %q, got %q, %v", what, got, err)
	}
}

// TestPortDrains: what is open when the server drains goes on within the grace, new
// connections are refused, and what is left is reset (R6).
func TestPortDrains(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 1), Grace: time.Second})
	c := n.connect("", "token", "")
	port := c.must(c.bindPort("demo", 0)).Port
	c.serveRaw()
	v := visit(t, port)
	echo(t, v, "before")
	n.stop()
	closed(t, port)
	echo(t, v, "within the grace")
	if _, err := v.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the grace the visitor reads %v", err)
	}
}

// TestPortOfDrainingClient: the client's goodbye closes the port, and waits for what is
// open (R7).
func TestPortOfDrainingClient(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 1)})
	c := n.connect("", "token", "")
	port := c.must(c.bindPort("demo", 0)).Port
	c.serveRaw()
	v := visit(t, port)
	echo(t, v, "before")
	c.send(&protocol.Message{Drain: &protocol.Drain{}})
	closed(t, port)
	drained := make(chan *protocol.Message, 1)
	go func() { m, _ := protocol.Read(c.control); drained <- cmp.Or(m, new(protocol.Message)) }()
	echo(t, v, "goes on")
	select {
	case m := <-drained:
		t.Fatalf("a connection is open, and the server says %+v", m)
	default:
	}
	v.CloseWrite()
	if b, err := io.ReadAll(v); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if m := <-drained; m.Drained == nil {
		t.Errorf("no drained but %+v", m)
	}
}

// TestPortWaitsForItsName: a port that a name gave back goes to others when there is no
// other left, and not before.
func TestPortWaitsForItsName(t *testing.T) {
	n := start(t, server.Config{TCPPorts: ports(t, 8)})
	first := n.connect("", "token", "")
	mine := first.must(first.bindPort("mine", 0)).Port
	first.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "mine"}})
	closed(t, mine)
	others := n.connect("", "another", "")
	for i := range 7 {
		if b := others.must(others.bindPort(strconv.Itoa(i), 0)); b.Port == mine {
			t.Errorf("name %d of 7 has it", i)
		}
	}
	if got := first.must(first.bindPort("mine", 0)).Port; got != mine {
		t.Errorf("port %d, want %d", got, mine)
	}
	first.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "mine"}})
	closed(t, mine)
	if b := others.must(others.bindPort("last", 0)); b.Port != mine {
		t.Errorf("the last one is %d, want %d", b.Port, mine)
	}
}
