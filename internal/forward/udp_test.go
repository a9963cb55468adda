package forward_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
)

const udpPatience = 20 * time.Second

// udpApp is a local app's socket.
func udpApp(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(udpPatience))
	t.Cleanup(func() { c.Close() })
	return c
}

// udpVisit asks f for a visitor's stream, and returns the answer.
func udpVisit(t *testing.T, f *forward.UDP, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.ServeConn(far)
	}()
	near.SetDeadline(time.Now().Add(udpPatience))
	t.Cleanup(func() {
		near.Close()
		<-done
	})
	if _, err := io.WriteString(near, request+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(near)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return near, r, res
}

const connectUDP = "GET /.well-known/masque/udp/dns/0/ HTTP/1.1\r\nHost: dns\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n" +
	"Capsule-Protocol: ?1\r\nForwarded: for=\"192.0.2.7:5353\""

func newUDP(t *testing.T, app string, o forward.UDPOptions) *forward.UDP {
	t.Helper()
	target, err := forward.ParseRawTarget(app, "udp")
	if err != nil {
		t.Fatal(err)
	}
	return forward.NewUDP(target, o)
}

// S18: neither the path nor anything else in the request says what is called.
func TestUDPCallsItsTargetAlone(t *testing.T) {
	app, other := udpApp(t), udpApp(t)
	var done forward.Exchange
	ended := make(chan struct{})
	f := newUDP(t, app.LocalAddr().String(), forward.UDPOptions{Done: func(e forward.Exchange) { done = e; close(ended) }})
	_, port, _ := net.SplitHostPort(other.LocalAddr().String())
	stream, r, res := udpVisit(t, f, "GET /.well-known/masque/udp/127.0.0.1/"+port+"/ HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nForwarded: for=\"192.0.2.7:5353\"")
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "connect-udp" || res.Header.Get("Capsule-Protocol") != "?1" {
		t.Fatalf("answered %s, %v", res.Status, res.Header)
	}
	stream.Write(capsule.Append(nil, []byte("question")))
	buf := make([]byte, 100)
	n, from, err := app.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "question" {
		t.Fatalf("the app got %q, error %v", buf[:n], err)
	}
	app.WriteTo([]byte("answer"), from)
	in := capsule.NewReader(r)
	if n, err = in.Next(); err != nil || n != 6 {
		t.Fatalf("%d bytes came back, error %v", n, err)
	}
	stream.Close()
	<-ended
	if done.Method != "UDP" || done.Path != "192.0.2.7:5353" || done.Status != 101 || done.Bytes != 6 {
		t.Errorf("it is told as %+v", done)
	}
}

// What asks for something else is refused.
func TestUDPRefusesOthers(t *testing.T) {
	f := newUDP(t, udpApp(t).LocalAddr().String(), forward.UDPOptions{})
	for _, request := range []string{
		"CONNECT dns HTTP/1.1\r\nHost: dns",
		"GET / HTTP/1.1\r\nHost: dns",
		"GET /.well-known/masque/udp/dns/0/ HTTP/1.1\r\nHost: dns\r\nConnection: Upgrade\r\nUpgrade: websocket",
		"POST /.well-known/masque/udp/dns/0/ HTTP/1.1\r\nHost: dns\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: connect-udp",
	} {
		if _, _, res := udpVisit(t, f, request); res.StatusCode != 400 || res.Header.Get("Tunnel-Error") != "bad_request" {
			t.Errorf("%q was answered %s", request, res.Status)
		}
	}
}

// A visitor for whom nothing came loses its socket, and not before.
func TestUDPIdleTimeout(t *testing.T) {
	app := udpApp(t)
	f := newUDP(t, app.LocalAddr().String(), forward.UDPOptions{Idle: 300 * time.Millisecond})
	stream, r, _ := udpVisit(t, f, connectUDP)
	buf := make([]byte, 100)
	// For three times as long as who is idle is kept.
	for start := time.Now(); time.Since(start) < 900*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if _, err := stream.Write(capsule.Append(nil, []byte("x"))); err != nil {
			t.Fatalf("a visitor that is not idle was ended: %v", err)
		}
		if _, _, err := app.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := capsule.NewReader(r).Next(); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}

// A tunnel that takes nothing has answers dropped, and counted; the app goes on.
func TestUDPSlowTunnel(t *testing.T) {
	app := udpApp(t)
	f := newUDP(t, app.LocalAddr().String(), forward.UDPOptions{})
	stream, r, _ := udpVisit(t, f, connectUDP)
	stream.Write(capsule.Append(nil, []byte("begin")))
	buf := make([]byte, 100)
	_, from, err := app.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 10_000)
	for i := range 200 { // 2 MB; nothing is read
		payload[0] = byte(i)
		app.WriteTo(payload, from)
		time.Sleep(time.Millisecond) // the kernel drops, too
	}
	in := capsule.NewReader(r)
	got := -1
	for range 10 {
		n, err := in.Next()
		if err != nil || n != len(payload) || in.Payload(payload) != nil || int(payload[0]) <= got {
			t.Fatalf("%d bytes, the %dth after the %dth, error %v", n, payload[0], got, err)
		}
		got = int(payload[0])
	}
	stream.Close()
	poll.Until(t, "100 are dropped", func() bool { return f.Dropped() >= 100 })
}

// That the app's port is closed loses datagrams, and ends nothing. The first one after
// it is open again arrives, though the socket still has the report of one before.
func TestUDPAppIsDown(t *testing.T) {
	at := rig.FreePort(t)
	f := newUDP(t, at, forward.UDPOptions{})
	stream, _, _ := udpVisit(t, f, connectUDP)
	poll.Until(t, "three are dropped", func() bool {
		if _, err := stream.Write(capsule.Append(nil, []byte("nobody"))); err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		return f.Dropped() >= 3
	})
	again, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.SetDeadline(time.Now().Add(udpPatience))
	stream.Write(capsule.Append(nil, []byte("first")))
	buf := make([]byte, 100)
	for n := 0; string(buf[:n]) != "first"; {
		if n, _, err = again.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	}
}
