package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// startUDPApp is a local app that answers each datagram with itself, in front of which
// stands the address that it saw, unless it begins with "=". "flood N" is answered
// with N datagrams of 1,000 bytes.
func startUDPApp(t *testing.T) (addr string) {
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
			var flood int
			if k, _ := fmt.Sscanf(string(buf[:n]), "flood %d", &flood); k == 1 {
				for i := range flood {
					c.WriteTo(append(fmt.Appendf(nil, "=%06d", i), make([]byte, 993)...), from)
				}
				continue
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

// exposePrivateUDP claims name for app.
func exposePrivateUDP(t *testing.T, c *tunnel.Client, name, app string) *tunnel.Listener {
	t.Helper()
	target, err := forward.ParseRawTarget(app, "udp")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := c.Listen(ctx, tunnel.Options{Name: name, Kind: protocol.KindUDP, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	udp := forward.NewUDP(target, forward.UDPOptions{})
	served := make(chan struct{})
	go func() { defer close(served); l.ServeConns(context.Background(), udp.ServeConn) }()
	t.Cleanup(func() {
		finish(t, "Close at the end", func() { l.Close() })
		wait(t, "the end of serving", served)
	})
	return l
}

// privateUDP is an app behind a private endpoint "dns", and a connector.
func privateUDP(t *testing.T) *tunnel.Connector {
	t.Helper()
	n := start(t, server.Config{Auth: tokenFile(t)})
	ann := &tunnel.Client{Server: n.url(), Token: "token-of-ann"}
	if l := exposePrivateUDP(t, ann, "dns", startUDPApp(t)); l.URL() != "private:dns" {
		t.Errorf("URL %q", l.URL())
	}
	return connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
}

func tryDialUDP(d *tunnel.Connector, name string) (*tunnel.PacketConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return d.DialUDP(ctx, name)
}

func mustDialUDP(t *testing.T, d *tunnel.Connector, name string) *tunnel.PacketConn {
	t.Helper()
	c, err := tryDialUDP(d, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, "Close at the end", func() { c.Close() }) })
	return c
}

// asks sends text until an answer comes that has it at its end: between socket and app
// the network may lose one.
func asks(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := string(buf[:n]); strings.HasSuffix(s, text) {
				return s
			}
		}
	}
	t.Fatalf("no answer to %.20q", text)
	return ""
}

// Each connection is another visitor to the app, and datagrams of every size are whole.
func TestDialUDP(t *testing.T) {
	d := privateUDP(t)
	one, other := mustDialUDP(t, d, "dns"), mustDialUDP(t, d, "dns")
	if got := one.RemoteAddr().String(); got != "private:dns" {
		t.Errorf("remote address %q", got)
	}
	first, _, _ := strings.Cut(asks(t, one, "a"), " ")
	second, _, _ := strings.Cut(asks(t, other, "b"), " ")
	if again, _, _ := strings.Cut(asks(t, one, "c"), " "); first == second || first != again {
		t.Errorf("the app saw %s, %s, and the first one again as %s", first, second, again)
	}
	for _, size := range []int{1, 63, 64, 2048, 2049, 16384, 65507} {
		text := strings.Repeat("=", size)
		if got := asks(t, one, text); len(got) != size {
			t.Errorf("%d bytes came back as %d", size, len(got))
		}
	}
	if _, err := one.Write(make([]byte, capsule.MaxPayload+1)); err == nil {
		t.Error("a datagram larger than there are was taken")
	}
	if d.Active() != 2 {
		t.Errorf("%d connections, want 2", d.Active())
	}
	one.Close()
	one.Close()
	if _, err := one.Read(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := one.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if d.Active() != 1 {
		t.Errorf("%d connections, want 1", d.Active())
	}
}

// As a socket has it: a Read takes one datagram, and what it has no room for is lost.
func TestPacketConnReads(t *testing.T) {
	c := mustDialUDP(t, privateUDP(t), "dns")
	asks(t, c, "=begin")
	buf := make([]byte, 3)
	io.WriteString(c, "=one")
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "=on" {
			if from.String() != "private:dns" {
				t.Errorf("it is from %s", from)
			}
			break
		}
	}
	c.WriteTo([]byte("=2"), nil)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "=2" {
		t.Errorf("then came %q, %v", buf[:n], err)
	}
}

// A Read's time is over, also while it waits, and the next one reads whole datagrams.
func TestPacketConnDeadline(t *testing.T) {
	c := mustDialUDP(t, privateUDP(t), "dns")
	c.SetDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at its deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	c.SetReadDeadline(time.Now())
	if err := wait(t, "Read's end", read); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that was set meanwhile: %v", err)
	}
	asks(t, c, "after all")
}

// Who does not read has what comes dropped, the newest first, and counted.
func TestPacketConnDrops(t *testing.T) {
	c := mustDialUDP(t, privateUDP(t), "dns")
	asks(t, c, "=begin")
	// At a pace that lets a flood come before the next: what comes after all is read is held, too.
	for end := time.Now().Add(patience); c.Dropped() == 0; time.Sleep(10 * time.Millisecond) {
		io.WriteString(c, "flood 100")
		if time.Now().After(end) {
			t.Fatal("none is dropped")
		}
	}
	buf := make([]byte, 2000)
	c.SetReadDeadline(time.Now().Add(patience))
	held := 0
	for last := -1; ; held++ {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		var i int
		if fmt.Sscanf(string(buf[:n]), "=%d", &i); i < last {
			break // the second flood
		}
		last = i
	}
	if held < 10 {
		t.Errorf("of the first ones %d were held", held)
	}
	for held = 0; ; held++ {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(buf); err != nil {
			break
		}
	}
	if held > 300 {
		t.Errorf("%d datagrams of 1000 bytes were held", held)
	}
}

// Where the endpoint goes away, and where the connector's own connection is lost, Read and
// Write say so, and the next DialUDP finds the way.
func TestPacketConnLost(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute})
	ann, app := &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, startUDPApp(t)
	l := exposePrivateUDP(t, ann, "dns", app)
	path := newRelay(t, n.addr)
	told := newEvents()
	d := connect(t, &tunnel.Client{Server: path.url(), Token: "token-of-ann", Events: told.tell})
	told.next(t, tunnel.Ready)
	lost := func(c *tunnel.PacketConn) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		if _, err := c.Write([]byte("a")); err == nil {
			t.Error("Write says nothing")
		}
	}
	c := mustDialUDP(t, d, "dns")
	asks(t, c, "=one")
	l.Close()
	lost(c)
	if _, err := tryDialUDP(d, "dns"); codeOf(err) != protocol.NameUnknown {
		t.Errorf("without an endpoint: %v", err)
	}
	exposePrivateUDP(t, ann, "dns", app)
	c = mustDialUDP(t, d, "dns")
	asks(t, c, "=two")
	path.cut()
	lost(c)
	asks(t, mustDialUDP(t, d, "dns"), "=three")
	told.next(t, tunnel.Disconnected)
	told.next(t, tunnel.Reconnected)
}

// What is not there, or another's, or of the other kind, is said as that.
func TestDialUDPErrors(t *testing.T) {
	n := start(t, server.Config{Auth: tokenFile(t)})
	ann, bob := &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, &tunnel.Client{Server: n.url(), Token: "token-of-bob"}
	exposePrivateUDP(t, ann, "dns", startUDPApp(t))
	exposePrivate(t, ann, "db", closedPort(t))
	mine, theirs := connect(t, ann), connect(t, bob)
	udp := func(d *tunnel.Connector, name string) error {
		_, err := tryDialUDP(d, name)
		return err
	}
	tcp := func(d *tunnel.Connector, name string) error {
		_, err := tryDial(d, name)
		return err
	}
	for _, test := range []struct {
		dial func(*tunnel.Connector, string) error
		d    *tunnel.Connector
		name string
		code protocol.Code
		says string
	}{
		{udp, mine, "nothing", protocol.NameUnknown, "tunnel-client udp TARGET --private"},
		{udp, mine, "db", protocol.WrongKind, "private:db: it is not of kind udp"},
		{tcp, mine, "dns", protocol.WrongKind, "private:dns: it is of kind udp"},
		{udp, theirs, "dns", protocol.NameUnknown, "no client of this token"}, {udp, theirs, "db", protocol.NameUnknown, "no client of this token"},
		{tcp, theirs, "dns", protocol.NameUnknown, "no client of this token"},
		{udp, mine, "not a name", protocol.NameInvalid, ""},
	} {
		if err := test.dial(test.d, test.name); codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: %v, want %s with %q", test.name, err, test.code, test.says)
		}
	}
	if mine.Active() != 0 || theirs.Active() != 0 {
		t.Error("refused connections count as open")
	}
}

// DialCapsules is the stream itself. Drain waits for it as for any other.
func TestDialCapsules(t *testing.T) {
	d := privateUDP(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := d.DialCapsules(ctx, "dns")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write(capsule.Append(nil, []byte("=one")))
	want := capsule.Append(nil, []byte("=one"))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x came, %v", got, err)
	}
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(context.Background()) }()
	poll.Until(t, "Drain takes nothing new", func() bool {
		other, err := tryDialUDP(d, "dns")
		if err == nil {
			other.Close()
		}
		return err != nil
	})
	select {
	case err := <-drained:
		t.Errorf("Drain does not wait: %v", err)
	default:
	}
	c.Close()
	if err := wait(t, "the end of draining", drained); err != nil {
		t.Error(err)
	}
}

// net.Resolver takes it for a way of datagrams.
func TestPacketConnResolves(t *testing.T) {
	app, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() { defer close(answered); answerDNS(app) }()
	defer func() { app.Close(); <-answered }()
	n := start(t, server.Config{})
	ann := &tunnel.Client{Server: n.url(), Token: "token-of-ann"}
	exposePrivateUDP(t, ann, "dns", app.LocalAddr().String())
	d := connect(t, ann)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialUDP(ctx, "dns") }}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if got, err := r.LookupIP(ctx, "ip4", "db.internal.example."); err != nil || len(got) != 1 || got[0].String() != "192.0.2.1" {
		t.Errorf("it resolves to %v, %v", got, err)
	}
	poll.Until(t, "the resolver's connections are closed", func() bool { return d.Active() == 0 })
}

// answerDNS answers each question with 192.0.2.1.
func answerDNS(c net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil {
			continue
		}
		m.Response, m.Additionals = true, nil
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
		}}
		answer, err := m.Pack()
		if err == nil {
			c.WriteTo(answer, from)
		}
	}
}
