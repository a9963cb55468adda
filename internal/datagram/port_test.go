package datagram_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// rig is a port that runs, and whose streams the test has the other ends of. Package edge
// has the tests of a port's visitors.
type rig struct {
	*datagram.Port
	t       *testing.T
	addr    string
	streams chan net.Conn
	visits  chan datagram.Visit
	served  chan struct{}
}

func newRig(t *testing.T, c datagram.Config) *rig {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: conn.LocalAddr().String(), streams: make(chan net.Conn, 100), visits: make(chan datagram.Visit, 100), served: make(chan struct{})}
	if c.Dial == nil {
		c.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) {
			near, far := net.Pipe()
			r.streams <- far
			return near, nil
		}
	}
	c.Ended = func(v datagram.Visit) { r.visits <- v }
	r.Port = datagram.NewPort(conn, c)
	go func() { defer close(r.served); r.Serve() }()
	t.Cleanup(func() {
		r.Close()
		for len(r.streams) > 0 {
			(<-r.streams).Close()
		}
		wait(t, "Serve's end", r.served)
	})
	return r
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// enter makes a visitor who sent text, and returns both ends.
func (r *rig) enter(text string) (visitor, stream net.Conn) {
	r.t.Helper()
	visitor, err := net.Dial("udp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { visitor.Close() })
	visitor.SetDeadline(time.Now().Add(patience))
	io.WriteString(visitor, text)
	stream = wait(r.t, "a stream", r.streams)
	r.t.Cleanup(func() { stream.Close() })
	stream.SetDeadline(time.Now().Add(patience))
	in := capsule.NewReader(stream)
	n, err := in.Next()
	b := make([]byte, n)
	if err == nil {
		err = in.Payload(b)
	}
	if err != nil || string(b) != text {
		r.t.Fatalf("the stream has %q, %v", b, err)
	}
	return visitor, stream
}

// A port that is not of a group serves, and tells what became of its visitors.
func TestPortAlone(t *testing.T) {
	r := newRig(t, datagram.Config{})
	v, s := r.enter("question")
	s.Write(capsule.Append(nil, []byte("answer")))
	b := make([]byte, 100)
	if n, err := v.Read(b); err != nil || string(b[:n]) != "answer" {
		t.Fatalf("the visitor got %q, %v", b[:n], err)
	}
	s.Close()
	visit := wait(t, "what became of the visitor", r.visits)
	if visit.Err != nil || visit.Bytes != 6 || visit.From.String() != v.LocalAddr().String() || visit.Began.IsZero() {
		t.Errorf("it became %+v", visit)
	}
	if s := r.Stats(); s != (datagram.Stats{In: 1, Out: 1}) {
		t.Errorf("counted %+v", s)
	}
}

// A stream that does not open is told, with its error, and its datagrams are counted.
func TestPortWithoutStreams(t *testing.T) {
	why := errors.New("nobody is there")
	r := newRig(t, datagram.Config{Dial: func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, why }})
	v, err := net.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for range 3 {
		io.WriteString(v, "question")
		if visit := wait(t, "what became of the visitor", r.visits); visit.Err != why {
			t.Errorf("it became %+v", visit)
		}
	}
	if s := r.Stats(); s != (datagram.Stats{In: 3, Dropped: datagram.Dropped{Away: 3}}) {
		t.Errorf("counted %+v", s)
	}
}

// A group has as many visitors as it may, over all its ports: a port gives up its own
// for new ones, and refuses where it has none.
func TestGroup(t *testing.T) {
	group := &datagram.Group{Visitors: 2, Budget: capsule.Budget{Max: 1 << 20}}
	one, other := newRig(t, datagram.Config{Group: group}), newRig(t, datagram.Config{Group: group})
	_, first := one.enter("first")
	one.enter("second")
	v, err := net.Dial("udp", other.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	io.WriteString(v, "one too many")
	poll.Until(t, "one is refused", func() bool { return other.Stats().Dropped.Refused == 1 })
	one.enter("third")
	first.SetReadDeadline(time.Now().Add(patience))
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the one who was idle longest: %v", err)
	}
	one.Close()
	wait(t, "Serve's end", one.served)
	other.enter("now there is room")
}

// End lets who is there finish, and takes nobody new; then the port is closed, and
// cannot be opened again.
func TestPortEnds(t *testing.T) {
	r := newRig(t, datagram.Config{Idle: time.Hour})
	v, s := r.enter("question")
	r.End()
	for i := range 3 {
		text := fmt.Sprint("answer ", i)
		s.Write(capsule.Append(nil, []byte(text)))
		b := make([]byte, 100)
		if n, err := v.Read(b); err != nil || string(b[:n]) != text {
			t.Fatalf("the visitor got %q, %v", b[:n], err)
		}
	}
	if !r.Reopen(false) {
		t.Fatal("a port that has a visitor is closed")
	}
	r.enter("another")
	r.End()
	wait(t, "Serve's end", r.served)
	if r.Reopen(false) {
		t.Error("a port that has ended is open again")
	}
	if c, err := net.ListenPacket("udp", r.addr); err != nil {
		t.Error("the socket is open:", err)
	} else {
		c.Close()
	}
}
