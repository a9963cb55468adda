package tunnel

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// fake is a tunnel server in memory, which grants every name.
type fake struct {
	conns chan net.Conn
	start time.Time

	mu       sync.Mutex // guards the following
	attempts []attempt
	current  *wire // the newest connection
	// answer is what becomes of a request to upgrade; nil: it is granted.
	answer func(n int, w http.ResponseWriter, r *http.Request) (done bool)
	// hello is what becomes of a hello; nil: it is welcomed.
	hello func(n int, h *protocol.Hello, m mux.Session, control mux.Stream) (done bool)
	// bound changes the answer to a bind; nil: it stays. Without one, the server knows
	// no domains.
	bound func(n int, b *protocol.Bind, answer *protocol.Bound)
}

// attempt is one request to upgrade.
type attempt struct {
	at      time.Duration // since the start
	upgrade string
	session string
	resume  string // of the hello
}

// wire is the client's end of a connection. It can go silent.
type wire struct {
	net.Conn
	up, down atomic.Bool // what passes in this direction is lost
}

func (w *wire) Write(p []byte) (int, error) {
	if w.up.Load() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if err != nil || !w.down.Load() {
			return n, err
		}
	}
}

// begin starts a fake; end stops it.
func begin() (f *fake, end func()) {
	f = &fake{conns: make(chan net.Conn), start: time.Now()}
	s := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(&pipes{f.conns, make(chan struct{}), sync.Once{}}) }()
	return f, func() {
		s.Close()
		<-done
	}
}

// pipes is a net.Listener for connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return addr("memory") }

func (f *fake) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case f.conns <- server:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w := &wire{Conn: client}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = w
	return w, nil
}

// client returns a client of f; told gets its events.
func (f *fake) client() (c *Client, told chan Event) {
	told = make(chan Event, 100)
	return &Client{Server: "http://memory", dial: f.dial, Events: func(e Event) { told <- e }}, told
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.attempts)
	f.attempts = append(f.attempts, attempt{
		at: time.Since(f.start), upgrade: r.Header.Get("Upgrade"), session: strings.TrimPrefix(r.URL.Path, protocol.PathPrefix),
	})
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(n, w, r) {
		return
	}
	conn, _, err := transport.Accept(w, r)
	if err != nil {
		return
	}
	m, err := mux.Server(conn, mux.Config{})
	if err != nil {
		return
	}
	f.session(n, m)
}

// session is what a server says on attempt n.
func (f *fake) session(n int, m mux.Session) {
	defer m.Close()
	control, err := m.Accept()
	if err != nil {
		return
	}
	for {
		got, err := protocol.Read(control)
		switch {
		case err != nil:
			return
		case got.Hello != nil:
			f.mu.Lock()
			f.attempts[n].resume = got.Hello.Resume
			hello := f.hello
			f.mu.Unlock()
			if hello != nil && hello(n, got.Hello, m, control) {
				return
			}
			protocol.Write(control, &protocol.Message{Welcome: &protocol.Welcome{Version: 1, Resume: "secret"}})
		case got.Bind != nil:
			answer := &protocol.Bound{ID: got.Bind.ID, Name: "demo", URL: "http://demo.memory"}
			f.mu.Lock()
			if f.bound != nil {
				f.bound(n, got.Bind, answer)
			}
			f.mu.Unlock()
			protocol.Write(control, &protocol.Message{Bound: answer})
		case got.Drain != nil:
			protocol.Write(control, &protocol.Message{Drained: &protocol.Drained{}})
		case got.Bye != nil:
			protocol.Write(control, &protocol.Message{Bye: &protocol.Bye{}})
			return
		}
	}
}

// seen returns the attempts so far.
func (f *fake) seen() []attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.attempts)
}

func (f *fake) newest() *wire {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// expect takes the next event, after what the clock needs for it.
func expect(t *testing.T, told chan Event, want EventType) Event {
	t.Helper()
	got := <-told // a bubble whose goroutines all wait for ever panics
	if got.Type != want {
		t.Fatalf("event %s (%v), want %s", got.Type, got.Err, want)
	}
	return got
}

func mustListen(t *testing.T, c *Client, told chan Event) *Listener {
	t.Helper()
	l, err := c.Listen(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, told, Ready)
	return l
}
