package tunnel_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// serving is a Serve under way.
type serving struct {
	n    *node
	told events
	end  context.CancelFunc
	done chan error
}

func serve(t *testing.T, grace time.Duration, handler http.Handler) *serving {
	t.Helper()
	return serveBy(t, (*tunnel.Client).Serve, grace, handler)
}

// by are Serve, and ServeConns with a server of HTTP/1.1 that is not net/http's.
var by = map[string]func(c *tunnel.Client, ctx context.Context, o tunnel.Options, handler http.Handler) error{
	"Serve": (*tunnel.Client).Serve,
	"ServeConns": func(c *tunnel.Client, ctx context.Context, o tunnel.Options, handler http.Handler) error {
		l, err := c.Listen(ctx, o)
		if err != nil {
			return err
		}
		s := proxy.Server{Handler: handler.ServeHTTP}
		return l.ServeConns(ctx, s.ServeConn)
	},
}

func serveBy(t *testing.T, way func(*tunnel.Client, context.Context, tunnel.Options, http.Handler) error, grace time.Duration, handler http.Handler) *serving {
	t.Helper()
	s := &serving{n: start(t, server.Config{}), told: newEvents(), done: make(chan error, 1)}
	c := &tunnel.Client{Server: s.n.url(), Events: s.told.tell, Grace: grace}
	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	t.Cleanup(s.end)
	go func() { s.done <- way(c, ctx, tunnel.Options{Name: "demo"}, handler) }()
	s.told.next(t, tunnel.Ready)
	return s
}

// ended checks that Serve returned nil, and what it told.
func (s *serving) ended(t *testing.T) {
	t.Helper()
	if err := wait(t, "Serve", s.done); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if closed := s.told.next(t, tunnel.Closed); closed.Err != nil {
		t.Errorf("closed because of %v", closed.Err)
	}
	s.told.none(t)
}

// A request under way when ctx ends gets its whole answer; who comes after is
// told that there is nothing.
func TestServeDrains(t *testing.T) {
	for name, way := range by {
		t.Run(name, func(t *testing.T) {
			app := newSlow()
			s := serveBy(t, way, time.Hour, app)
			flying := inBackground(s.n.request(t, "GET", "demo", "/slow", nil))
			wait(t, "a request", app.begun)
			s.end()
			if draining := s.told.next(t, tunnel.Draining); draining.Err != nil {
				t.Errorf("draining because of %v", draining.Err)
			}
			poll.Until(t, "the name is given back", func() bool {
				status, _ := s.n.get(t, "demo", "/")
				return status == 404
			})
			close(app.rest)
			if a := wait(t, "the answer", flying); a.err != nil || a.body != "first second" {
				t.Errorf("got %q, %v", a.body, a.err)
			}
			s.ended(t)
		})
	}
}

// When Grace is over what is left is cut, and can't be taken for an answer (R7).
func TestServeGraceOver(t *testing.T) {
	for name, way := range by {
		t.Run(name, func(t *testing.T) {
			for _, grace := range []time.Duration{50 * time.Millisecond, -1} {
				app := newSlow()
				s := serveBy(t, way, grace, app)
				flying := inBackground(s.n.request(t, "GET", "demo", "/slow", nil))
				wait(t, "a request", app.begun)
				s.end()
				if a := wait(t, "the answer", flying); a.err == nil && a.res.StatusCode != 502 {
					t.Errorf("grace %v: half an answer looks whole: %q", grace, a.body)
				}
				s.told.next(t, tunnel.Draining)
				s.ended(t)
			}
		})
	}
}

// A WebSocket has no end to wait for: it is closed when all else has ended.
func TestServeDoesNotWaitForUpgraded(t *testing.T) {
	for name, way := range by {
		t.Run(name, func(t *testing.T) {
			s := serveBy(t, way, time.Hour, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				io.Copy(conn, rw)
			}))
			conn, err := net.Dial("tcp", s.n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			br := bufio.NewReader(conn)
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != 101 {
				t.Fatalf("%+v, %v", res, err)
			}
			io.WriteString(conn, "ping\n")
			if line, err := br.ReadString('\n'); err != nil || line != "ping\n" {
				t.Fatalf("read %q, %v", line, err)
			}
			s.end()
			s.told.next(t, tunnel.Draining)
			s.ended(t)
			if rest, err := io.ReadAll(br); len(rest) > 0 {
				t.Errorf("read %q, %v", rest, err)
			}
		})
	}
}

// Serve ends at once where it is waiting to reconnect.
func TestServeEndsWhileDisconnected(t *testing.T) {
	n := start(t, server.Config{})
	r := newRelay(t, n.addr)
	told := newEvents()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (&tunnel.Client{Server: r.url(), Events: told.tell}).Serve(ctx, tunnel.Options{Name: "demo"}, hello)
	}()
	told.next(t, tunnel.Ready)
	r.lead("")
	r.cut()
	told.next(t, tunnel.Disconnected)
	cancel()
	if err := wait(t, "Serve", done); err != nil {
		t.Error(err)
	}
	told.next(t, tunnel.Closed)
	told.none(t)
}

// Headers up to the server's limit are the server's affair.
func TestServeLargeHeader(t *testing.T) {
	n := start(t, server.Config{MaxHeaderBytes: 4 << 20})
	l := listen(t, &tunnel.Client{Server: n.url()}, tunnel.Options{Name: "demo"}, hello)
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	told := newEvents()
	done := make(chan error, 1)
	go func() {
		done <- (&tunnel.Client{Server: n.url(), Events: told.tell}).Serve(ctx, tunnel.Options{Name: "demo"}, hello)
	}()
	told.next(t, tunnel.Ready)
	req := n.request(t, "GET", "demo", "/", nil)
	req.Header.Set("Cookie", strings.Repeat("x", 2<<20))
	if res, _, err := do(req); err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	cancel()
	wait(t, "Serve", done)
}

// OPTIONS * is the handler's to answer.
func TestServeOptionsAsterisk(t *testing.T) {
	s := serve(t, 0, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", r.Method+" "+r.RequestURI)
	}))
	conn, err := net.Dial("tcp", s.n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: demo.localhost\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.Header.Get("Allow") != "OPTIONS *" {
		t.Errorf("%+v, %v", res, err)
	}
	s.end()
	s.told.next(t, tunnel.Draining)
	s.ended(t)
}

// Streams that are kept without a request hold nothing up, and ServeConns returns
// when all are closed.
func TestServeConnsIdle(t *testing.T) {
	n, told := start(t, server.Config{}), newEvents()
	l, err := (&tunnel.Client{Server: n.url(), Events: told.tell, Grace: time.Hour}).Listen(t.Context(), tunnel.Options{Name: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	told.next(t, tunnel.Ready)
	var open atomic.Int64
	release := make(chan struct{})
	s := proxy.Server{Handler: hello.ServeHTTP}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.ServeConns(ctx, func(c net.Conn) {
			open.Add(1)
			s.ServeConn(c)
			<-release
			open.Add(-1)
		})
	}()
	for range 3 {
		if status, _ := n.get(t, "demo", "/"); status != 200 {
			t.Error(status)
		}
	}
	if open.Load() == 0 {
		t.Error("no stream was kept")
	}
	cancel()
	told.next(t, tunnel.Draining)
	told.next(t, tunnel.Closed)
	select { // a pass is no proof, but a failure is
	case err := <-done:
		close(release)
		t.Errorf("returned %v, and %d connections are served", err, open.Load())
	case <-time.After(30 * time.Millisecond):
		close(release)
		if err := wait(t, "ServeConns", done); err != nil || open.Load() != 0 {
			t.Errorf("%v, %d connections are served", err, open.Load())
		}
	}
}

func TestServeRefused(t *testing.T) {
	n := start(t, server.Config{})
	taken := listen(t, &tunnel.Client{Server: n.url()}, tunnel.Options{}, hello)
	err := (&tunnel.Client{Server: n.url()}).Serve(t.Context(), tunnel.Options{Name: taken.Name()}, hello)
	if codeOf(err) != protocol.NameTaken {
		t.Errorf("got %v, want name_taken", err)
	}
}
