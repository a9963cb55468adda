package edge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// port is a tunnel of kind TCP, and its local app.
type port struct {
	t     *testing.T
	addr  string // for visitors
	http  string // the server's plain address
	apps  chan *net.TCPConn
	close func() // ends the client at once
}

// exposedPort runs server, client and forward in front of an app that hands out its
// connections.
func exposedPort(t *testing.T, c server.Config, o forward.RawOptions) *port {
	t.Helper()
	p := &port{t: t, apps: make(chan *net.TCPConn, 100)}
	l := loopback(t)
	go func() {
		defer close(p.apps)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.apps <- conn.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for c := range p.apps {
			c.Close()
		}
	})
	p.publish(c, l.Addr().String(), o)
	return p
}

func (p *port) publish(c server.Config, target string, o forward.RawOptions) {
	p.t.Helper()
	free := loopback(p.t)
	n := free.Addr().(*net.TCPAddr).Port
	free.Close()
	c.TCPPorts = server.Ports{First: n, Last: n}
	parsed, err := forward.ParseRawTarget(target, "tcp")
	if err != nil {
		p.t.Fatal(err)
	}
	raw := forward.NewRaw(parsed, o)
	p.http = serve(p.t, c)
	client := &tunnel.Client{Server: "http://" + p.http, Transport: tunnel.Raw, Proxy: direct, Grace: -1}
	listener, err := client.Listen(p.t.Context(), tunnel.Options{Kind: protocol.KindTCP, Name: "demo"})
	if err != nil {
		p.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- listener.ServeConns(context.Background(), raw.ServeConn) }()
	p.close = func() { listener.Close() }
	p.t.Cleanup(func() {
		listener.Close()
		<-served
		if n := raw.InFlight(); n != 0 {
			p.t.Errorf("%d connections are still under way", n)
		}
	})
	u, _ := url.Parse(listener.URL())
	p.addr = "127.0.0.1:" + u.Port()
}

// visit makes a connection.
func (p *port) visit() *net.TCPConn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// both makes a connection and waits for the app's end of it.
func (p *port) both() (visitor, app *net.TCPConn) {
	p.t.Helper()
	visitor = p.visit()
	select {
	case app = <-p.apps:
	case <-time.After(patience):
		p.t.Fatal("the app got no connection")
	}
	p.t.Cleanup(func() { app.Close() })
	app.SetDeadline(time.Now().Add(patience))
	return visitor, app
}

func resets(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wasReset fails unless reading c to its end tells of a reset.
func wasReset(t *testing.T, who string, c net.Conn) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s read %d bytes and %v, want a reset", who, n, err)
	}
}

// TestTCPHalfClose: who has ended its side gets all that comes (R16).
func TestTCPHalfClose(t *testing.T) {
	p := exposedPort(t, server.Config{}, forward.RawOptions{})
	data := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{3}).Read(data)
	for name, swap := range map[string]bool{"download": false, "upload": true} {
		t.Run(name, func(t *testing.T) {
			asks, answers := p.both()
			if swap {
				asks, answers = answers, asks
			}
			io.WriteString(asks, "question")
			asks.CloseWrite()
			if b, err := io.ReadAll(answers); string(b) != "question" || err != nil {
				t.Fatalf("%q, %v", b, err)
			}
			go func() {
				answers.Write(data)
				answers.CloseWrite()
			}()
			if b, err := io.ReadAll(asks); !bytes.Equal(b, data) || err != nil {
				t.Errorf("%d of %d bytes, %v", len(b), len(data), err)
			}
		})
	}
}

// TestTCPReset: a reset of either side is one for the other, and no end, whenever it
// comes (R17).
func TestTCPReset(t *testing.T) {
	p := exposedPort(t, server.Config{}, forward.RawOptions{})
	for name, before := range map[string]func(gone, other *net.TCPConn){
		"at once":           func(_, _ *net.TCPConn) {},
		"after bytes":       func(gone, other *net.TCPConn) { io.WriteString(gone, "x"); other.Read(make([]byte, 1)) },
		"amid bytes":        func(gone, _ *net.TCPConn) { gone.Write(make([]byte, 100<<10)) },
		"after its end":     func(gone, other *net.TCPConn) { gone.CloseWrite(); io.ReadAll(other) },
		"after the other's": func(gone, other *net.TCPConn) { other.CloseWrite(); gone.Read(make([]byte, 1)) },
		"while it is sent to": func(gone, other *net.TCPConn) {
			gone.SetReadBuffer(4 << 10)
			other.Write(make([]byte, 200<<10))
		},
	} {
		for _, side := range []string{"app", "visitor"} {
			visitor, app := p.both()
			gone, other := app, visitor
			if side == "visitor" {
				gone, other = visitor, app
			}
			before(gone, other)
			resets(gone)
			if name != "after its end" {
				wasReset(t, "reset of the "+side+" "+name+": the other side", other)
				continue
			}
			// It has read the end before; it notices with what it sends then.
			var err error
			for err == nil {
				_, err = other.Write([]byte("x"))
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("reset of the %s %s: %v", side, name, err)
			}
		}
	}
}

// TestTCPCut: the end of the client is no end of what is under way (R1, R2).
func TestTCPCut(t *testing.T) {
	p := exposedPort(t, server.Config{}, forward.RawOptions{})
	visitor, app := p.both()
	io.WriteString(app, "half")
	io.ReadFull(visitor, make([]byte, 4))
	half, uploaded := p.both() // it has ended its side
	half.CloseWrite()
	io.ReadAll(uploaded)
	p.close()
	wasReset(t, "the visitor", visitor)
	wasReset(t, "the app", app)
	wasReset(t, "the visitor that had ended its side", half)
}

// TestTCPWithoutApp: where the app refuses, the visitor sees a reset, and the tunnel
// stays up (R42).
func TestTCPWithoutApp(t *testing.T) {
	l := loopback(t)
	l.Close()
	done := make(chan forward.Exchange, 10)
	p := &port{t: t}
	p.publish(server.Config{}, l.Addr().String(), forward.RawOptions{Done: func(e forward.Exchange) { done <- e }})
	for range 2 {
		from := ""
		v, err := net.Dial("tcp", p.addr)
		switch {
		case err == nil:
			defer v.Close()
			from = v.LocalAddr().String()
			wasReset(t, "the visitor", v)
		case !errors.Is(err, syscall.ECONNRESET): // which may come that soon
			t.Fatal(err)
		}
		if e := <-done; e.Code != protocol.AppRefused || from != "" && e.Path != from {
			t.Errorf("%+v, the visitor is %s", e, from)
		}
	}
}

// TestTCPOverCap: a connection more than the session may have is reset, and the others
// go on (R20).
func TestTCPOverCap(t *testing.T) {
	p := exposedPort(t, server.Config{MaxRequests: 2}, forward.RawOptions{})
	one, app := p.both()
	p.both()
	if third, err := net.Dial("tcp", p.addr); err == nil { // or it is reset that soon
		wasReset(t, "the third visitor", third)
		third.Close()
	}
	io.WriteString(one, "x")
	if _, err := app.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	resets(one)
	wasReset(t, "the app", app)
	for deadline := time.Now().Add(patience); ; {
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that has ended stays taken")
		}
		v, err := net.Dial("tcp", p.addr)
		if err != nil {
			continue // it is reset that soon
		}
		reset := make(chan struct{})
		go func() { defer close(reset); v.Read(make([]byte, 1)) }()
		select {
		case app := <-p.apps: // it is open
			app.Close()
			v.Close()
			<-reset
			return
		case <-reset:
			v.Close()
		}
	}
}

// TestTCPMemory: where memory is full new connections are reset, and at the brim some
// of those that are open (R37).
func TestTCPMemory(t *testing.T) {
	var d dial
	p := exposedPort(t, server.Config{Memory: d.memory()}, forward.RawOptions{})
	visitor, app := p.both()
	d.percent.Store(60)
	poll.Until(t, "new visitors are reset", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return true
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		return errors.Is(err, syscall.ECONNRESET)
	})
	io.WriteString(app, "x")
	if _, err := io.ReadFull(visitor, make([]byte, 1)); err != nil {
		t.Errorf("what is open: %v", err)
	}
	// Where it is tight only those are closed on which nothing is under way. The second
	// such is noticed after all that was to be closed with the first.
	d.percent.Store(70)
	for range 2 {
		silent, err := net.Dial("tcp", p.http)
		if err != nil {
			t.Fatal(err)
		}
		silent.SetDeadline(time.Now().Add(patience))
		if _, err := silent.Read(make([]byte, 1)); errTimeout(err) != nil {
			t.Error("a silent visitor stays")
		}
		silent.Close()
	}
	io.WriteString(visitor, "x")
	if _, err := io.ReadFull(app, make([]byte, 1)); err != nil {
		t.Errorf("what is open where memory is tight: %v", err)
	}
	d.percent.Store(80)
	wasReset(t, "the visitor at the brim", visitor)
	wasReset(t, "the app at the brim", app)
}
