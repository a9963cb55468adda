package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// recorder keeps what passes a connection, each way.
type recorder struct {
	net.Conn
	mu   sync.Mutex // guards the following
	sent bytes.Buffer
	came bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent.Write(p[:n])
	return n, err
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came.Write(p[:n])
	return n, err
}

// conversation is what client and server said on one connection, the upgrade
// included: a hello, a name claimed, given back and claimed, a drain, and bye.
func conversation(t *testing.T, addr, id string) (sent, came []byte) {
	t.Helper()
	r := new(recorder)
	d := &transport.Dialer{Server: &url.URL{Scheme: "http", Host: addr}, Token: "a-token", DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		r.Conn = conn
		return r, err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := d.Dial(ctx, transport.Raw, id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	control, err := m.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	control.SetDeadline(time.Now().Add(patience))
	bind := &protocol.Message{Bind: &protocol.Bind{ID: 1, Kind: protocol.KindHTTP, Name: "demo"}}
	for _, say := range []struct {
		what    *protocol.Message
		answers int
	}{
		{&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Agent: "test"}}, 1},
		{bind, 1},
		{&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}}, 0},
		{bind, 1},
		{&protocol.Message{Drain: &protocol.Drain{Reason: "enough"}}, 1},
		{&protocol.Message{Bye: &protocol.Bye{}}, 1},
	} {
		if err := protocol.Write(control, say.what); err != nil {
			t.Fatal(err)
		}
		for range say.answers {
			if _, err := protocol.Read(control); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.sent.Bytes()), bytes.Clone(r.came.Bytes())
}

// eachFlip calls f with in and one bit of it flipped: at every offset as many of the
// eight as bits says, not the same everywhere.
func eachFlip(in []byte, bits int, f func(i, bit int, flipped []byte)) {
	for i := range in {
		for k := range bits {
			flipped := bytes.Clone(in)
			bit := (5*i + k) % 8
			flipped[i] ^= 1 << bit
			f(i, bit, flipped)
		}
	}
}

// R29 at the server: whichever bit of what a client says is flipped, the session
// ends with its connection, and the neighbours go on.
func TestFlippedClient(t *testing.T) {
	n := start(t, server.Config{})
	neighbour := newEvents()
	listen(t, &tunnel.Client{Server: n.url(), Events: neighbour.tell}, tunnel.Options{Name: "neighbour"}, hello)
	neighbour.next(t, tunnel.Ready)
	id := rand.Text()
	sent, _ := conversation(t, n.addr, id)
	eachFlip(sent, 8, func(i, bit int, flipped []byte) {
		flipped = bytes.Replace(flipped, []byte(id), []byte(rand.Text()), 1)
		conn, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(flipped) // the server may hang up first
		conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Fatalf("with bit %d of byte %d flipped the session lives, after its connection has ended", bit, i)
		}
		if i%16 == 0 && bit == 0 {
			if status, body := n.get(t, "neighbour", "/"); status != 200 || body != "hello" {
				t.Fatalf("after a flip of byte %d the neighbour answers %d %q", i, status, body)
			}
		}
	})
	neighbour.none(t)
	// What the flipped ones claimed was given back, or is free to whoever comes.
	poll.Until(t, "the name is free", func() bool {
		l, err := (&tunnel.Client{Server: n.url()}).Listen(t.Context(), tunnel.Options{Name: "demo"})
		if err == nil {
			l.Close()
		}
		return err == nil
	})
}

// R29 at the client: whichever bit of what the server says is flipped, the client
// has a name or an error, and its neighbours in the process go on.
func TestFlippedServer(t *testing.T) {
	n := start(t, server.Config{})
	neighbour := newEvents()
	listen(t, &tunnel.Client{Server: n.url(), Events: neighbour.tell}, tunnel.Options{Name: "neighbour"}, hello)
	neighbour.next(t, tunnel.Ready)
	_, came := conversation(t, n.addr, rand.Text())
	var mu sync.Mutex
	var script []byte
	r := newRelay(t, "")
	r.judge(func(head []byte, client net.Conn) verdict {
		mu.Lock()
		defer mu.Unlock()
		client.Write(script)
		client.(*net.TCPConn).CloseWrite()
		client.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, client)
		return refuse
	})
	r.lead(n.addr)
	served := 0
	eachFlip(came, 4, func(i, bit int, flipped []byte) {
		mu.Lock()
		script = flipped
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		l, err := (&tunnel.Client{Server: r.url(), Transport: tunnel.Raw}).Listen(ctx, tunnel.Options{Name: "demo"})
		if ctx.Err() != nil {
			t.Fatalf("with bit %d of byte %d flipped Listen takes %v: %v", bit, i, patience, err)
		}
		if err == nil {
			served++
			finish(t, "Close", func() { l.Close() })
		}
		if i%16 == 0 && bit == 0 {
			if status, body := n.get(t, "neighbour", "/"); status != 200 || body != "hello" {
				t.Fatalf("after a flip of byte %d the neighbour answers %d %q", i, status, body)
			}
		}
	})
	neighbour.none(t)
	if served == 0 || served == 4*len(came) {
		t.Errorf("%d of %d flips gave a name", served, 4*len(came))
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
