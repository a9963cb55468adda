package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/pkg/protocol"
)

// udpPatience is how long a test waits for what should happen at once.
const udpPatience = 20 * time.Second

// udpRig is a UDP with one open port, whose client is the test.
type udpRig struct {
	*edge.UDP
	t       *testing.T
	names   *registry.Memory
	port    int
	release registry.Release
	streams chan *udpStream // that were opened to the client
	log     *rig.Buffer
}

// udpStream is the client's end of a visitor's stream.
type udpStream struct {
	net.Conn
	from netip.AddrPort
	*capsule.Reader
}

// resettable is a stream that nothing is lost of by an abort that counts here.
type resettable struct{ net.Conn }

func (r resettable) Reset() error      { return r.Close() }
func (r resettable) CloseWrite() error { return r.Close() }

func newUDPRig(t *testing.T, u *edge.UDP) *udpRig {
	t.Helper()
	r := &udpRig{UDP: u, t: t, names: new(registry.Memory), streams: make(chan *udpStream, 100_000), log: new(rig.Buffer)}
	u.Registry, u.Log = r.names, slog.New(slog.NewTextHandler(r.log, nil))
	switch u.Host {
	case "":
		u.Host = "127.0.0.1"
	case "all":
		u.Host = ""
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.port = free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	r.release = r.bind("owner", r.dial)
	if err := r.Open(r.port, "owner"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		r.Shutdown(now)
		for len(r.streams) > 0 {
			(<-r.streams).Close()
		}
	})
	return r
}

func (r *udpRig) bind(owner string, dial func(context.Context, netip.AddrPort) (net.Conn, error)) registry.Release {
	r.t.Helper()
	release, err := r.names.Bind(context.Background(), &registry.Route{Name: edge.UDPName(r.port), Owner: owner, Kind: protocol.KindUDP, Dial: dial})
	if err != nil {
		r.t.Fatal(err)
	}
	return release
}

func (r *udpRig) dial(_ context.Context, from netip.AddrPort) (net.Conn, error) {
	near, far := net.Pipe()
	r.streams <- &udpStream{far, from, capsule.NewReader(far)}
	return resettable{near}, nil
}

// visitor is a new visitor's socket.
func (r *udpRig) visitor() net.Conn {
	r.t.Helper()
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(udpPatience))
	return c
}

// stream is the next one that is opened to the client.
func (r *udpRig) stream() *udpStream {
	r.t.Helper()
	select {
	case s := <-r.streams:
		s.SetDeadline(time.Now().Add(udpPatience))
		r.t.Cleanup(func() { s.Close() })
		return s
	case <-time.After(udpPatience):
		r.t.Fatal("no stream was opened")
		return nil
	}
}

// enter makes a visitor who has sent something, and returns both ends.
func (r *udpRig) enter(text string) (net.Conn, *udpStream) {
	r.t.Helper()
	v := r.visitor()
	io.WriteString(v, text)
	s := r.stream()
	if got := s.receive(r.t); got != text {
		r.t.Fatalf("the client got %q, want %q", got, text)
	}
	if s.from.String() != v.LocalAddr().String() {
		r.t.Fatalf("the client was told of %s, want %s", s.from, v.LocalAddr())
	}
	return v, s
}

func (s *udpStream) receive(t *testing.T) string {
	t.Helper()
	n, err := s.Next()
	b := make([]byte, n)
	if err == nil {
		err = s.Payload(b)
	}
	if err != nil {
		t.Fatalf("the client: %v", err)
	}
	return string(b)
}

func (s *udpStream) send(t *testing.T, text string) {
	t.Helper()
	if _, err := s.Write(capsule.Append(nil, []byte(text))); err != nil {
		t.Fatalf("the client: %v", err)
	}
}

func heard(t *testing.T, v net.Conn) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := v.Read(b)
	if err != nil {
		t.Fatalf("the visitor: %v", err)
	}
	return string(b[:n])
}

// ended waits until the server has ended the stream.
func (s *udpStream) ended(t *testing.T) {
	t.Helper()
	if n, err := s.Next(); err == nil {
		t.Fatalf("a datagram of %d bytes came in place of the stream's end", n)
	} else if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
		t.Fatal("the stream did not end")
	}
}

func (r *udpRig) await(what string, ok func(datagram.Stats) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(udpPatience); !ok(r.Stats(r.port)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not with %+v", what, r.Stats(r.port))
		}
	}
}

// awaitClosed waits until nothing listens at the port.
func (r *udpRig) awaitClosed() {
	r.t.Helper()
	poll.Until(r.t, "the port is closed", func() bool {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.port})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Two visitors have a stream each, and get their own answers.
func TestUDPVisitorsAreApart(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	one, first := r.enter("one")
	two, second := r.enter("two")
	second.send(t, "for two")
	first.send(t, "for one")
	if got := heard(t, one); got != "for one" {
		t.Errorf("the first visitor got %q", got)
	}
	if got := heard(t, two); got != "for two" {
		t.Errorf("the second visitor got %q", got)
	}
	io.WriteString(one, "again")
	if got := first.receive(t); got != "again" {
		t.Errorf("on the first stream came %q", got)
	}
	r.await("all is counted", func(s datagram.Stats) bool { return s == datagram.Stats{Visitors: 2, In: 3, Out: 2} })
}

// Who is idle is forgotten, and is a new visitor with the next datagram.
func TestUDPIdle(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Idle: 100 * time.Millisecond})
	v, s := r.enter("one")
	s.ended(t)
	r.await("the visitor is forgotten", func(s datagram.Stats) bool { return s.Visitors == 0 })
	io.WriteString(v, "two")
	if got := r.stream().receive(t); got != "two" {
		t.Errorf("the client got %q", got)
	}
}

// Answers alone keep a visitor, too.
func TestUDPAnswersKeepAVisitor(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Idle: 400 * time.Millisecond})
	v, s := r.enter("one")
	// For three times as long as who is idle would be kept.
	for start := time.Now(); time.Since(start) < 1200*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		s.send(t, "tick")
		heard(t, v)
	}
}

// A port has as many visitors as it may. Places are taken from who was idle longest,
// and not from who has answered to an answer: the addresses of those are not forged.
func TestUDPCapSparesTheKnown(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Visitors: 3})
	v, known := r.enter("hello")
	known.send(t, "who are you?")
	heard(t, v)
	io.WriteString(v, "it is me")
	known.receive(t)
	_, oldest := r.enter("one")
	r.enter("two")
	for i := range 20 {
		r.enter(fmt.Sprint("more ", i))
	}
	oldest.ended(t)
	if s := r.Stats(r.port); s.Visitors != 3 {
		t.Errorf("%d visitors, want 3", s.Visitors)
	}
	known.send(t, "still there?")
	if got := heard(t, v); got != "still there?" {
		t.Errorf("the known visitor got %q", got)
	}
}

// Where all are known, the one who was idle longest goes.
func TestUDPCapAmongTheKnown(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Visitors: 1})
	v, known := r.enter("hello")
	known.send(t, "who are you?")
	heard(t, v)
	io.WriteString(v, "it is me")
	known.receive(t)
	r.enter("another")
	known.ended(t)
}

// A flood from many addresses, which take no answers, costs a bounded amount of memory,
// and is counted.
func TestUDPFloodOfVisitors(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Visitors: 200})
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.port}
	before := heapInUse()
	payload := bytes.Repeat([]byte("x"), 1400)
	for sent := 0; r.Stats(r.port).Dropped.Refused == 0; sent++ {
		if sent > 50_000 {
			t.Fatalf("all were let in: %+v", r.Stats(r.port))
		}
		c, err := net.DialUDP("udp", nil, to)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(payload)
		c.Close()
	}
	if n := r.Stats(r.port).Visitors; n > 200 {
		t.Errorf("%d visitors, want 200 at most", n)
	}
	if grown := heapInUse() - before; grown > 64<<20 {
		t.Errorf("%d visitors and those that went hold %d bytes", r.Stats(r.port).Visitors, grown)
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// A client that takes nothing has its visitor's datagrams dropped, and counted, not
// queued without bound. What waited comes in its order when it goes on; others are not
// delayed.
func TestUDPSlowClient(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	slow, stream := r.enter("first")
	quick, other := r.enter("first")
	payload := make([]byte, 1000)
	sent := 0
	for r.Stats(r.port).Dropped.Full == 0 {
		copy(payload, fmt.Sprintf("%06d", sent))
		slow.Write(payload)
		sent++
		r.await("it is there", func(s datagram.Stats) bool { return s.In == int64(sent)+2 }) // the kernel drops, too
		if sent > 100_000 {
			t.Fatal("100 MB wait, and none was dropped")
		}
	}
	if sent > 2000 {
		t.Errorf("%d datagrams of 1000 bytes were sent until the first was dropped", sent)
	}
	io.WriteString(quick, "second")
	if got := other.receive(t); got != "second" {
		t.Errorf("another visitor's client got %q", got)
	}
	var got []string
	for len(got) < 100 {
		got = append(got, stream.receive(t)[:6])
	}
	for i, s := range got {
		if want := fmt.Sprintf("%06d", i); s != want {
			t.Fatalf("datagram %d is %s", i, s)
		}
	}
}

// While the client is away datagrams are dropped, and counted; when it is back, the next
// one finds it.
func TestUDPClientIsAway(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	v, s := r.enter("one")
	r.release(time.Minute)
	r.Released(r.port)
	s.Close()
	r.await("the visitor is forgotten", func(s datagram.Stats) bool { return s.Visitors == 0 })
	io.WriteString(v, "two")
	r.await("a datagram is dropped", func(s datagram.Stats) bool { return s.Dropped.Away == 1 })
	r.bind("owner", r.dial)
	if err := r.Open(r.port, "owner"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(v, "three")
	if got := r.stream().receive(t); got != "three" {
		t.Errorf("the client got %q", got)
	}
}

// A port that nobody has takes no new visitors, lets the others finish, and is closed.
func TestUDPReleased(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	v, s := r.enter("one")
	r.release(0)
	r.Released(r.port)
	// Nothing tells that it would be cut off: it is given the time.
	for start := time.Now(); time.Since(start) < 500*time.Millisecond; time.Sleep(5 * time.Millisecond) {
		io.WriteString(v, "question")
		s.receive(t)
		s.send(t, "answer")
		heard(t, v)
	}
	io.WriteString(r.visitor(), "new")
	s.ended(t)
	r.awaitClosed()
	if n := len(r.streams); n != 0 {
		t.Errorf("%d new visitors were let in", n)
	}
}

// A hold's end closes the port, too.
func TestUDPHoldEnds(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	r.release(50 * time.Millisecond)
	r.Released(r.port)
	r.awaitClosed()
}

// S16: a port that went from one owner to another takes its visitors along, not the
// streams to the old owner's client.
func TestUDPPortGoesToAnother(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	v, old := r.enter("to the old one")
	r.release(0)
	r.bind("another", r.dial)
	if err := r.Open(r.port, "another"); err != nil {
		t.Fatal(err)
	}
	old.ended(t)
	io.WriteString(v, "to the new one")
	if got := r.stream().receive(t); got != "to the new one" {
		t.Errorf("the new client got %q", got)
	}
}

// A drain lets visitors finish, and takes no new ones; the grace's end ends them.
func TestUDPShutdown(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	v, s := r.enter("one")
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(context.Background()) }()
	s.send(t, "the last answer")
	if got := heard(t, v); got != "the last answer" {
		t.Errorf("the visitor got %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := r.Open(r.port, "owner"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end a port is opened: %v", err)
	}
}

// A client that breaks the capsules, or leaves a large one half sent, loses that
// visitor's stream, and what is held for it is bounded.
func TestUDPHostileClient(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{})
	_, s := r.enter("one")
	s.Write([]byte{0, 0xbf, 0xff, 0xff, 0xff, 0})
	s.ended(t)
	v, s := r.enter("another")
	hostile := func(text string) {
		_, s := r.enter(text)
		s.Write([]byte{0, 0x80, 0, 0xff, 0, 0}) // 65,279 bytes of payload, of which one follows
		s.Write([]byte{1})                      // is taken when there is a buffer for it
	}
	for i := range 128 { // of 64 KiB each, which is all that the port has
		hostile(fmt.Sprint(i))
	}
	// What is large is dropped, what is small is not, once the others hold what there is.
	for deadline := time.Now().Add(patience); ; {
		s.Write(capsule.Append(capsule.Append(nil, make([]byte, 9000)), []byte("small")))
		got := heard(t, v)
		if got == "small" {
			break
		}
		if len(got) != 9000 || heard(t, v) != "small" || time.Now().After(deadline) {
			t.Fatalf("the visitor got %d bytes", len(got))
		}
		hostile("one more") // what passed had taken the place of one
	}
	if n := r.Stats(r.port).Dropped.Full; n < 1 {
		t.Errorf("%d datagrams were dropped for want of room", n)
	}
}

// The log has a line of what was dropped.
func TestUDPDropsAreLogged(t *testing.T) {
	r := newUDPRig(t, &edge.UDP{Idle: 200 * time.Millisecond})
	r.release(time.Minute)
	io.WriteString(r.visitor(), "nobody is there")
	poll.Until(t, "the log says client-away=1", func() bool { return strings.Contains(r.log.String(), "client-away=1") })
}

// On all addresses, visitors of IPv4 and of IPv6 are served, and known by their own.
func TestUDPOnAllAddresses(t *testing.T) {
	if probe, err := net.ListenPacket("udp", "[::]:0"); err != nil {
		t.Skip("there is no IPv6 here:", err)
	} else {
		probe.Close()
	}
	r := newUDPRig(t, &edge.UDP{Host: "::"})
	v4, s := r.enter("over IPv4")
	s.send(t, "answer")
	if got := heard(t, v4); got != "answer" {
		t.Errorf("the visitor got %q", got)
	}
	if !s.from.Addr().Is4() {
		t.Errorf("the client was told of %s", s.from)
	}
	v, err := net.Dial("udp", fmt.Sprintf("[::1]:%d", r.port))
	if err != nil {
		t.Skip("there is no loopback of IPv6 here:", err)
	}
	defer v.Close()
	v.SetDeadline(time.Now().Add(udpPatience))
	io.WriteString(v, "over IPv6")
	s = r.stream()
	if got := s.receive(t); got != "over IPv6" || s.from.String() != v.LocalAddr().String() {
		t.Errorf("the client got %q of %s", got, s.from)
	}
	s.send(t, "answer")
	if got := heard(t, v); got != "answer" {
		t.Errorf("the visitor got %q", got)
	}
}
