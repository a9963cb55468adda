package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// udpTime is how long a test waits for what should happen at once.
const udpTime = 20 * time.Second

// echoApp answers each datagram with itself, in front of which stands the address that
// the app saw, unless it begins with "=".
func echoApp(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			answer := buf[:n]
			if n > 0 && buf[0] != '=' {
				answer = fmt.Appendf(nil, "%s %s", from, buf[:n])
			}
			c.WriteTo(answer, from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

// exposed is a client that serves target.
type exposed struct {
	*tunnel.Listener
	events chan tunnel.EventType
	app    *forward.UDP
	stop   func()
}

// exposeUDP runs a client of kind UDP until the test's end.
func (n *node) exposeUDP(target string, o tunnel.Options) *exposed {
	n.t.Helper()
	x := &exposed{events: make(chan tunnel.EventType, 100)}
	c := &tunnel.Client{Server: "http://" + n.addr, Grace: time.Second, Events: func(e tunnel.Event) { x.events <- e.Type }}
	o.Kind = protocol.KindUDP
	to, err := forward.ParseRawTarget(target, "udp")
	if err != nil {
		n.t.Fatal(err)
	}
	if x.Listener, err = c.Listen(n.t.Context(), o); err != nil {
		n.t.Fatal(err)
	}
	x.app = forward.NewUDP(to, forward.UDPOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.ServeConns(ctx, x.app.ServeConn) }()
	x.stop = func() {
		cancel()
		x.Close()
		<-done
	}
	n.t.Cleanup(x.stop)
	return x
}

// visit is a new visitor's socket.
func (x *exposed) visit(t *testing.T) net.Conn {
	t.Helper()
	u, err := url.Parse(x.URL())
	if err != nil || u.Scheme != "udp" || u.Hostname() != "localhost" {
		t.Fatalf("the public URL is %q", x.URL())
	}
	c, err := net.Dial("udp", "127.0.0.1:"+u.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a datagram until an answer comes that has it at its end: the network may
// lose one, and so may a client that is just connecting.
func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(udpTime); time.Now().Before(deadline); {
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if s := string(buf[:n]); strings.HasSuffix(s, text) {
				return s
			}
		}
	}
	t.Fatalf("no answer to %.20q", text)
	return ""
}

// Each visitor is another address to the app, the same for all of its datagrams.
func TestUDPVisitors(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10)})
	x := n.exposeUDP(echoApp(t), tunnel.Options{Name: "dns"})
	seen := map[string]int{}
	for i := range 20 {
		v := x.visit(t)
		first, second := ask(t, v, fmt.Sprintf("first of %d", i)), ask(t, v, fmt.Sprintf("second of %d", i))
		from, _, _ := strings.Cut(first, " ")
		if other, _, _ := strings.Cut(second, " "); other != from {
			t.Errorf("the app saw visitor %d at %s and %s", i, from, other)
		}
		if before, ok := seen[from]; ok {
			t.Errorf("the app saw visitors %d and %d at %s", before, i, from)
		}
		seen[from] = i
	}
	if got := x.app.InFlight(); got != 20 {
		t.Errorf("the client has %d visitors, want 20", got)
	}
}

// Datagrams of every size come back whole, empty ones too.
func TestUDPSizes(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10)})
	v := n.exposeUDP(echoApp(t), tunnel.Options{}).visit(t)
	got := make([]byte, 1<<16)
	for _, size := range []int{0, 1, 2, 62, 63, 64, 511, 512, 1200, 1472, 1473, 2047, 2048, 2049, 9000, 16382, 16383, 16384, 65506, 65507} {
		want := bytes.Repeat([]byte{'='}, size)
		for i := 1; i < size; i++ {
			want[i] = byte(rand.Int())
		}
		for tries := 0; ; tries++ {
			if _, err := v.Write(want); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			v.SetReadDeadline(time.Now().Add(udpTime / 4))
			n, err := v.Read(got)
			if err == nil && bytes.Equal(got[:n], want) {
				break
			}
			if tries == 4 {
				t.Fatalf("%d bytes: %d came back, error %v", size, n, err)
			}
		}
	}
}

// What is sent in an order arrives in that order.
func TestUDPOrder(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10)})
	v := n.exposeUDP(echoApp(t), tunnel.Options{}).visit(t)
	ask(t, v, "=begin")
	last, buf := -1, make([]byte, 2000)
	for i := 0; i < 5000; i += 10 {
		for j := range 10 {
			fmt.Fprintf(v, "=%d", i+j)
		}
		v.SetReadDeadline(time.Now().Add(udpTime))
		for last < i+9 {
			n, err := v.Read(buf)
			if err != nil {
				t.Fatalf("after %d: %v", last, err)
			}
			if string(buf[:n]) == "=begin" {
				continue
			}
			var k int
			fmt.Sscanf(string(buf[:n]), "=%d", &k)
			if k <= last {
				t.Fatalf("%d came after %d", k, last)
			}
			last = k
		}
	}
}

// The client's session is lost: the visitor's next datagrams find the new one, at the
// same port.
func TestUDPReconnect(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10), Hold: time.Minute})
	path := rig.NewPath(n.addr, 0, 0)
	l, err := path.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- path.Serve(l) }()
	defer func() {
		l.Close()
		<-served
		path.Close()
	}()
	through := &node{t: t, addr: l.Addr().String()}
	x := through.exposeUDP(echoApp(t), tunnel.Options{Name: "dns"})
	v, before := x.visit(t), x.URL()
	ask(t, v, "before")
	path.Cut()
	for e := range x.events {
		if e == tunnel.Reconnected {
			break
		}
	}
	ask(t, v, "after")
	if x.URL() != before {
		t.Errorf("the URL was %s and is %s", before, x.URL())
	}
}

// The same name has the same port at the next start, also from a server that started
// again, and the ranges of TCP and UDP may be the same.
func TestUDPSamePort(t *testing.T) {
	ports := ports(t, 10)
	var urls []string
	for range 2 {
		n := start(t, server.Config{UDPPorts: ports, TCPPorts: ports, Auth: tokens(t, t.TempDir()+"/tokens", "secret-of-16-bytes\n")})
		for range 2 {
			c := &tunnel.Client{Server: "http://" + n.addr, Token: "secret-of-16-bytes"}
			l, err := c.Listen(t.Context(), tunnel.Options{Kind: protocol.KindUDP, Name: "dns"})
			if err != nil {
				t.Fatal(err)
			}
			port := l.Addr().String()[strings.LastIndex(l.Addr().String(), ":")+1:]
			var number int
			fmt.Sscan(port, &number)
			tcp, err := c.Listen(t.Context(), tunnel.Options{Kind: protocol.KindTCP, Name: "other", Port: number})
			if err != nil {
				t.Errorf("the port of the same number for TCP: %v", err)
			} else {
				tcp.Close()
			}
			urls = append(urls, l.URL())
			l.Close()
		}
		n.stop()
	}
	for _, u := range urls {
		if u != urls[0] {
			t.Fatalf("the URLs of four starts: %q", urls)
		}
	}
}

// A port that is wanted, and has no place.
func TestUDPRefusals(t *testing.T) {
	ports := ports(t, 10)
	with := start(t, server.Config{UDPPorts: ports})
	without := start(t, server.Config{TCPPorts: ports})
	for name, tt := range map[string]struct {
		n    *node
		port int
		want protocol.Code
	}{
		"outside of the range": {with, ports.Last + 1, protocol.PortUnavailable},
		"no ports":             {without, 0, protocol.KindUnsupported},
	} {
		c := &tunnel.Client{Server: "http://" + tt.n.addr}
		l, err := c.Listen(t.Context(), tunnel.Options{Kind: protocol.KindUDP, Port: tt.port})
		if !errors.Is(err, &protocol.Error{Code: tt.want}) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if err == nil {
			l.Close()
		}
	}
}

// A server that drains does not wait for its grace where visitors are quiet.
func TestUDPServerDrains(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10), Grace: time.Hour})
	v := n.exposeUDP(echoApp(t), tunnel.Options{}).visit(t)
	ask(t, v, "one")
	n.stop()
	select {
	case err := <-n.done:
		n.done <- err
	case <-time.After(udpTime):
		t.Fatal("the server did not stop")
	}
}

// The app is not there, and comes up: nothing is to be started again.
func TestUDPAppComesUp(t *testing.T) {
	n := start(t, server.Config{UDPPorts: ports(t, 10)})
	target := rig.FreePort(t)
	x := n.exposeUDP(target, tunnel.Options{})
	v := x.visit(t)
	poll.Until(t, "a datagram is dropped, as the app's port is closed", func() bool {
		io.WriteString(v, "nobody is there")
		return x.app.Dropped() > 0
	})
	up, err := net.ListenPacket("udp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	// Each is sent once. The first may be what tells the client that the port was closed.
	io.WriteString(v, "first")
	buf := make([]byte, 100)
	up.SetReadDeadline(time.Now().Add(udpTime))
	for {
		k, from, err := up.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:k]) == "first" {
			up.WriteTo([]byte("=answer"), from)
			break
		}
	}
	v.SetReadDeadline(time.Now().Add(udpTime))
	if k, err := v.Read(buf); err != nil || string(buf[:k]) != "=answer" {
		t.Errorf("the visitor got %q, error %v", buf[:k], err)
	}
}
