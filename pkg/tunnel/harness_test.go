package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// node is a server that runs for a test.
type node struct {
	addr string
	stop func() // drains and waits; twice is fine
}

func start(t *testing.T, c server.Config) *node {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Auth == nil {
		c.Auth = auth.Anonymous{}
	}
	if c.Log == nil && os.Getenv("TUNNEL_TEST_LOG") != "" {
		c.Log = verbose(t)
	}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n := &node{addr: s.Addr().String()}
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func verbose(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// url is where clients connect.
func (n *node) url() string { return "http://" + n.addr }

// request prepares a visitor's request for path of NAME.localhost.
func (n *node) request(t *testing.T, method, name, path string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, n.url()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = name + ".localhost"
	return req
}

// do sends req. The response's body is a string, and err also says that it was
// cut off.
func do(req *http.Request) (*http.Response, string, error) {
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// get is a visitor's GET.
func (n *node) get(t *testing.T, name, path string) (status int, body string) {
	t.Helper()
	res, body, err := do(n.request(t, "GET", name, path, nil))
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return res.StatusCode, body
}

// answer is what became of a request in the background.
type answer struct {
	res  *http.Response
	body string
	err  error
}

func inBackground(req *http.Request) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		res, body, err := do(req)
		c <- answer{res, body, err}
	}()
	return c
}

// wait returns the next value of c.
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

// finish fails the test where f takes too long.
func finish(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	wait(t, what, done)
}

// events remembers what a client tells.
type events chan tunnel.Event

func newEvents() events { return make(events, 100) }

func (e events) tell(event tunnel.Event) { e <- event }

// next waits for the next event, which must be one of type want.
func (e events) next(t *testing.T, want tunnel.EventType) tunnel.Event {
	t.Helper()
	got := wait(t, "event "+string(want), e)
	if got.Type != want {
		t.Fatalf("event %s (%v), want %s", got.Type, got.Err, want)
	}
	return got
}

// none checks that nothing was told but what the test has seen.
func (e events) none(t *testing.T) {
	t.Helper()
	select {
	case got := <-e:
		t.Fatalf("event %s (%v), want no more", got.Type, got.Err)
	default:
	}
}

// hello answers every request.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })

// listen claims a name and serves it with handler until the test ends.
func listen(t *testing.T, c *tunnel.Client, o tunnel.Options, handler http.Handler) *tunnel.Listener {
	t.Helper()
	if c.Log == nil && os.Getenv("TUNNEL_TEST_LOG") != "" {
		c.Log = verbose(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := c.Listen(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, "Close at the end", func() { l.Close() }) })
	go http.Serve(l, handler)
	return l
}

// relay stands between client and server, and breaks what passes as it is told.
type relay struct {
	l  net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex // guards the following
	to    string     // where new connections go; "": they are closed at once
	front func(head []byte, client net.Conn) verdict
	pipes []*pipe
}

// verdict is what a relay does with a connection after its first request.
type verdict int

const (
	pass   verdict = iota
	refuse         // it was answered, and is closed
	hang           // it stays open, and nothing comes
	mangle         // it passes, and what follows the heads is not what was sent
)

// pipe is one connection through a relay.
type pipe struct {
	client, server net.Conn
	up, down       atomic.Bool // what passes in this direction is dropped
	orphan         atomic.Bool // the end of the client's side is not passed on
	mangled        bool
	ended          chan struct{} // closed when both sides have ended
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to}
	r.wg.Go(r.run)
	t.Cleanup(func() {
		l.Close()
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) url() string { return "http://" + r.l.Addr().String() }

// public is the URL for a server that visitors find at the relay.
func (r *relay) public() *url.URL {
	return &url.URL{Scheme: "http", Host: r.l.Addr().String()}
}

func (r *relay) run() {
	for {
		client, err := r.l.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.serve(client) })
	}
}

func (r *relay) serve(client net.Conn) {
	defer client.Close()
	r.mu.Lock()
	to, front := r.to, r.front
	p := &pipe{client: client, ended: make(chan struct{})}
	r.pipes = append(r.pipes, p)
	r.mu.Unlock()
	defer close(p.ended)
	if to == "" {
		return
	}
	var head []byte
	if front != nil {
		head = readHead(client)
		switch front(head, client) {
		case refuse:
			return
		case hang:
			io.Copy(io.Discard, client)
			return
		case mangle:
			p.mangled = true
		}
	}
	conn, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	r.mu.Lock()
	p.server = conn
	r.mu.Unlock()
	conn.Write(head)
	var both sync.WaitGroup
	both.Go(func() { p.copy(conn, client, &p.up) })
	both.Go(func() { p.copy(client, conn, &p.down) })
	both.Wait()
}

// readHead reads up to the end of an HTTP header section, byte by byte.
func readHead(c net.Conn) []byte {
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b[0]) {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	return head
}

func (p *pipe) copy(to, from net.Conn, drop *atomic.Bool) {
	if p.mangled && from == p.server {
		to.Write(readHead(from)) // the 101
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if p.mangled {
			for i := range n {
				buf[i] ^= 0x55
			}
		}
		if n > 0 && !drop.Load() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	p.client.Close()
	if from == p.server || !p.orphan.Load() {
		p.server.Close()
	}
}

// lead sends new connections to addr; "" closes them at once.
func (r *relay) lead(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = addr
}

// judge lets front decide on new connections.
func (r *relay) judge(front func(head []byte, client net.Conn) verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.front = front
}

// each calls f for the connections that have a server's side.
func (r *relay) each(f func(*pipe)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pipes {
		if p.server != nil {
			f(p)
		}
	}
}

// cut ends all connections on both sides.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pipes {
		p.client.Close()
		if p.server != nil {
			p.server.Close()
		}
	}
	r.pipes = nil
}

// orphan ends the connections on the client's side only: the server sees them
// open and silent. It returns what was orphaned.
func (r *relay) orphan() (orphans []*pipe) {
	r.each(func(p *pipe) {
		p.orphan.Store(true)
		p.down.Store(true)
		p.client.Close()
		orphans = append(orphans, p)
	})
	return orphans
}

// silence drops what passes from now on.
func (r *relay) silence(up, down bool) {
	r.each(func(p *pipe) {
		p.up.Store(up)
		p.down.Store(down)
	})
}

// codeOf returns the code of a protocol.Error, or "".
func codeOf(err error) protocol.Code {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
