package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// dial is a memory of 100 MB of which the test says how much is in use.
type dial struct{ percent atomic.Int64 }

func (d *dial) memory() *pace.Memory {
	return &pace.Memory{
		Limit: 100e6, Collect: func() {},
		Read: func() pace.Use { return pace.Use{Live: uint64(d.percent.Load()) * 1e6} },
	}
}

// hanging runs a server under d's memory, with an app whose /hang begins an
// answer and does not end it.
func hanging(t *testing.T, d *dial, l *logs) (addr string) {
	t.Helper()
	c := server.Config{Memory: d.memory(), IdleTimeout: time.Minute, HeaderTimeout: time.Minute, Log: l.at(slog.LevelInfo)}
	return exposed(t, c, app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "well")
		if r.URL.Path == "/hang" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})), forward.Options{})
}

const demo = "Host: demo.example.com"

// began sends a request that hangs, and reads the begin of its answer.
func (v *visitor) began() {
	v.t.Helper()
	v.send("GET /hang HTTP/1.1", demo)
	res, err := http.ReadResponse(v.r, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, len("well"))); err != nil {
		v.t.Fatal(err)
	}
}

// ends reads on and returns the error, which is not that of a deadline.
func (v *visitor) ends() error {
	v.t.Helper()
	_, err := io.Copy(io.Discard, v.r)
	if err != nil && errors.Is(err, errTimeout(err)) {
		v.t.Fatal("the connection does not end")
	}
	return err
}

// errTimeout is err where it is a deadline's.
func errTimeout(err error) error {
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return err
	}
	return nil
}

// TestFull: new requests get 503 and their connections end; what is under way
// goes on, and so does the server's own host. Afterwards all is as before (R37).
func TestFull(t *testing.T) {
	var d dial
	var l logs
	addr := hanging(t, &d, &l)
	under, idle := visit(t, addr), visit(t, addr)
	under.began()
	idle.send("GET / HTTP/1.1", demo)
	if a := idle.receive("GET"); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	d.percent.Store(60)
	poll.Until(t, "503", func() bool { return get(t, addr, "GET / HTTP/1.1", demo).StatusCode == 503 })
	for _, lines := range [][]string{
		{"GET / HTTP/1.1", demo},
		{"GET / HTTP/1.1", demo, "Cookie: " + strings.Repeat("x", 50_000)},
		{"POST / HTTP/1.1", demo, "Content-Length: 1000000", "", "begin"},
	} {
		a := get(t, addr, lines...)
		if a.StatusCode != 503 || a.code() != "overloaded" || a.Header.Get("Retry-After") == "" || !a.Close {
			t.Errorf("%s: %s with %v", lines[0], a.Status, a.Header)
		}
	}
	idle.send("GET / HTTP/1.1", demo) // it was not closed
	if a := idle.receive("GET"); a.StatusCode != 503 || !a.Close {
		t.Errorf("%s with %v", a.Status, a.Header)
	}
	if a := get(t, addr, "GET /healthz HTTP/1.1", "Host: example.com"); a.StatusCode != 200 {
		t.Errorf("/healthz: %s", a.Status)
	}
	a := get(t, addr, "GET /.well-known/tunnel/0123456789abcdef HTTP/1.1", "Host: example.com", "Connection: Upgrade", "Upgrade: tunnel.v1")
	if a.StatusCode != 503 || a.code() != "overloaded" || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, "--memory-limit") {
		t.Errorf("a new session: %s with %v\n%s", a.Status, a.Header, a.body)
	}
	d.percent.Store(0)
	poll.Until(t, "200", func() bool { return get(t, addr, "GET / HTTP/1.1", demo).StatusCode == 200 })
	if under.r.Buffered() != 0 {
		t.Error("the answer that was under way did not stay")
	}
	poll.Until(t, "the end in the log", func() bool { return strings.Contains(strings.Join(l.lines(), "\n"), "memory is not full any more") })
	text := strings.Join(l.lines(), "\n")
	if n := strings.Count(text, "memory is full: new"); n != 1 || !strings.Contains(text, "limit=100000000") {
		t.Errorf("%d lines that memory is full:\n%s", n, text)
	}
	if strings.Contains(text, "refused=0") || !strings.Contains(text, "cut=0") {
		t.Errorf("how many were refused and cut is not told:\n%s", text)
	}
}

// TestTight: connections without a request end, those with one do not. New ones
// are accepted still, if slowly.
func TestTight(t *testing.T) {
	var d dial
	addr := hanging(t, &d, new(logs))
	under, idle, fresh, partly := visit(t, addr), visit(t, addr), visit(t, addr), visit(t, addr)
	under.began()
	idle.send("GET / HTTP/1.1", demo)
	idle.receive("GET")
	io.WriteString(partly, "GET / HTTP/1.1\r\nHost: demo.example.com\r\nCookie: ")
	d.percent.Store(70)
	for _, v := range []*visitor{idle, fresh, partly} {
		v.ends()
	}
	if a := get(t, addr, "GET / HTTP/1.1", demo); a.StatusCode != 503 {
		t.Errorf("a new connection: %s", a.Status)
	}
	under.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := under.r.ReadByte(); errTimeout(err) == nil {
		t.Errorf("what was under way ended: %v", err)
	}
}

// TestTightHTTP2: the same with HTTP/2.
func TestTightHTTP2(t *testing.T) {
	var d dial
	addr := hanging(t, &d, new(logs))
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/hang", nil)
	req.Host = "demo.example.com"
	res, err := tr.RoundTrip(req)
	if err != nil || res.ProtoMajor != 2 {
		t.Fatal(res, err)
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, len("well"))); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() {
		_, err := res.Body.Read(make([]byte, 1))
		over <- err
	}()
	idle, fresh := visit(t, addr), visit(t, addr)
	io.WriteString(idle, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if _, err := idle.r.ReadByte(); err != nil {
		t.Fatal(err)
	}
	d.percent.Store(70)
	idle.ends()
	fresh.ends() // so everything that is to be closed was
	select {
	case err := <-over:
		t.Errorf("what was under way ended: %v", err)
	default:
	}
	d.percent.Store(80)
	if err := <-over; err == nil || err == io.EOF {
		t.Errorf("what was cut off ends with %v", err)
	}
}

// TestBrim: connections are cut off, and never look as if they had ended, until
// it is enough.
func TestBrim(t *testing.T) {
	var d dial
	var l logs
	addr := hanging(t, &d, &l)
	const n = 10
	gone := make(chan error, n)
	for range n {
		v := visit(t, addr)
		v.began()
		go func() {
			_, err := v.r.ReadByte()
			gone <- err
		}()
	}
	d.percent.Store(80)
	poll.Until(t, "503", func() bool { return get(t, addr, "GET / HTTP/1.1", demo).StatusCode == 503 })
	long := visit(t, addr)
	long.send("GET / HTTP/1.1", demo, "Cookie: "+strings.Repeat("x", 50_000))
	if _, err := long.r.ReadByte(); err == nil {
		t.Error("at the brim a long header is read to its end")
	}
	for range 3 {
		if err := <-gone; !isReset(err) {
			t.Errorf("one that was cut off ends with %v", err)
		}
	}
	d.percent.Store(0)
	poll.Until(t, "200", func() bool { return get(t, addr, "GET / HTTP/1.1", demo).StatusCode == 200 })
	if len(gone) > n-4 {
		t.Errorf("%d more of %d are gone", len(gone), n)
	}
}

// TestUpgradedStays: what was upgraded holds little, and is no header.
func TestUpgradedStays(t *testing.T) {
	var d dial
	addr := exposed(t, server.Config{Memory: d.memory()}, app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, b)
	})), forward.Options{})
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", demo, "Connection: Upgrade", "Upgrade: echo")
	if res, err := http.ReadResponse(v.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	d.percent.Store(80)
	poll.Until(t, "the brim", func() bool { return get(t, addr, "GET / HTTP/1.1", demo).StatusCode == 503 })
	for i := range 3 {
		line := fmt.Sprintln("line", i)
		io.WriteString(v, line)
		if got, err := v.r.ReadString('\n'); got != line {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// lacking is a listener that says for a while that there are no descriptors.
type lacking struct {
	net.Listener
	left atomic.Int64
}

func (l *lacking) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestDescriptors: where descriptors are lacking, accepting goes on by itself,
// idle connections give theirs back, and there is one line in the log (R36).
func TestDescriptors(t *testing.T) {
	var out logs
	inner := &lacking{Listener: loopback(t)}
	h := &edge.HTTP{Domain: "example.com", Own: http.NotFoundHandler()}
	h.Gate = &edge.Gate{Log: out.at(slog.LevelInfo)}
	s := h.Server(edge.Limits{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(h.Gate.Listener(inner)) }()
	stop := follow(t, h.Gate)
	addr := inner.Addr().String()
	idle := visit(t, addr)
	idle.send("GET / HTTP/1.1", "Host: example.com")
	idle.receive("GET")
	aged := time.Now().Add(edge.IdleGrace)
	inner.left.Store(5)
	get(t, addr, "GET / HTTP/1.1", "Host: example.com") // taken by the Accept before
	if time.Now().Before(aged) {
		idle.SetReadDeadline(aged)
		if _, err := idle.r.ReadByte(); errTimeout(err) == nil {
			t.Errorf("it was idle for less than %s, and ended: %v", edge.IdleGrace, err)
		}
		idle.SetReadDeadline(time.Now().Add(patience))
	}
	inner.left.Store(3)
	get(t, addr, "GET / HTTP/1.1", "Host: example.com")
	get(t, addr, "GET / HTTP/1.1", "Host: example.com")
	if _, err := idle.r.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection ends with %v", err)
	}
	poll.Until(t, "the line in the log", func() bool { return strings.Contains(strings.Join(out.lines(), ""), "out of descriptors") })
	s.Close()
	if err := <-done; err != http.ErrServerClosed {
		t.Error(err)
	}
	stop()
	poll.Until(t, "the end of all connections", func() bool { return edge.Conns(h.Gate) == 0 })
	if text := strings.Join(out.lines(), "\n"); strings.Count(text, "\n") > 1 || strings.Contains(text, "Accept error") {
		t.Errorf("more than begin and end:\n%s", text)
	}
}

// follow runs g until stop is called.
func follow(t *testing.T, g *edge.Gate) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	return func() { cancel(); <-done }
}

// TestCloseWhileWaiting: a listener that waits for descriptors ends with its
// server.
func TestCloseWhileWaiting(t *testing.T) {
	inner := &lacking{Listener: loopback(t)}
	inner.left.Store(1 << 40)
	l := new(edge.Gate).Listener(inner)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	poll.Until(t, "waiting", func() bool { return inner.left.Load() < 1<<40-3 })
	l.Close()
	inner.left.Store(0)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Accept does not return")
	}
}
