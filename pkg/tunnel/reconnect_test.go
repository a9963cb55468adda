package tunnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestReconnectAfterCut(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			n := start(t, server.Config{Hold: time.Minute, Park: patience})
			r := newRelay(t, n.addr)
			told := newEvents()
			c := &tunnel.Client{Server: r.url(), Transport: transport, Events: told.tell}
			l := listen(t, c, tunnel.Options{Name: "demo"}, hello)
			url := l.URL()
			told.next(t, tunnel.Ready)
			for range 3 {
				r.cut()
				if lost := told.next(t, tunnel.Disconnected); lost.Err == nil {
					t.Error("disconnected without a cause")
				}
				if back := told.next(t, tunnel.Reconnected); back.Err != nil || back.URL != url || back.Name != "demo" {
					t.Errorf("event %+v", back)
				}
				if status, body := n.get(t, "demo", "/"); status != 200 || body != "hello" {
					t.Errorf("got %d %q", status, body)
				}
			}
			l.Close()
			told.next(t, tunnel.Closed)
			told.none(t)
		})
	}
}

// A request that comes while the client is away waits for it.
func TestParkedRequest(t *testing.T) {
	names := &registry.Memory{}
	n := start(t, server.Config{Hold: time.Minute, Park: patience, Registry: names})
	r := newRelay(t, n.addr)
	told := newEvents()
	listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
	told.next(t, tunnel.Ready)
	r.lead("")
	r.cut()
	told.next(t, tunnel.Disconnected)
	poll.Until(t, "the server has noticed", func() bool {
		_, err := names.Lookup(t.Context(), "demo")
		return errors.As(err, new(*registry.OfflineError))
	})
	parked := inBackground(n.request(t, "POST", "demo", "/", strings.NewReader("once")))
	r.lead(n.addr)
	if a := wait(t, "the parked request", parked); a.err != nil || a.res.StatusCode != 200 {
		t.Errorf("got %v, %v", a.res, a.err)
	}
}

// The server that takes the other's place knows nothing of it: it has the same
// address, that is all.
func TestReconnectAfterRestart(t *testing.T) {
	for _, token := range []string{"", "a-token-of-mine"} {
		t.Run("token="+token, func(t *testing.T) {
			r := newRelay(t, "")
			before := start(t, server.Config{PublicURL: r.public(), Hold: time.Minute})
			r.lead(before.addr)
			told := newEvents()
			l := listen(t, &tunnel.Client{Server: r.url(), Token: token, Events: told.tell}, tunnel.Options{}, hello)
			name, url := l.Name(), l.URL()
			told.next(t, tunnel.Ready)

			r.lead("")
			r.cut()
			before.stop()
			told.next(t, tunnel.Disconnected)
			after := start(t, server.Config{PublicURL: r.public(), Hold: time.Minute})
			r.lead(after.addr)
			told.next(t, tunnel.Reconnected)
			if l.Name() != name || l.URL() != url {
				t.Errorf("name %q, URL %q; were %q, %q", l.Name(), l.URL(), name, url)
			}
			if status, body := after.get(t, name, "/"); status != 200 || body != "hello" {
				t.Errorf("got %d %q", status, body)
			}
		})
	}
}

// slow answers in two halves; the second when it is let go.
type slow struct {
	begun chan struct{} // gets one for each first half
	rest  chan struct{} // closed: the second half may go
}

func newSlow() *slow { return &slow{begun: make(chan struct{}, 10), rest: make(chan struct{})} }

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/slow" {
		io.WriteString(w, "fast")
		return
	}
	io.WriteString(w, "first ")
	http.NewResponseController(w).Flush()
	s.begun <- struct{}{}
	select {
	case <-s.rest:
		io.WriteString(w, "second")
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

func TestServerDrain(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			r := newRelay(t, "")
			before := start(t, server.Config{PublicURL: r.public(), Grace: time.Minute})
			r.lead(before.addr)
			told := newEvents()
			app := newSlow()
			l := listen(t, &tunnel.Client{Server: r.url(), Transport: transport, Events: told.tell}, tunnel.Options{Name: "demo"}, app)
			told.next(t, tunnel.Ready)
			flying := inBackground(before.request(t, "GET", "demo", "/slow", nil))
			wait(t, "the first half", app.begun)

			after := start(t, server.Config{PublicURL: r.public()})
			r.lead(after.addr)
			stopped := make(chan struct{})
			go func() { defer close(stopped); before.stop() }()
			if draining := told.next(t, tunnel.Draining); draining.Err == nil {
				t.Error("draining without a cause")
			}
			told.next(t, tunnel.Reconnected)
			if status, body := after.get(t, "demo", "/"); status != 200 || body != "fast" {
				t.Errorf("on the new connection: %d %q", status, body)
			}
			close(app.rest)
			if a := wait(t, "the answer", flying); a.err != nil || a.body != "first second" {
				t.Errorf("on the old connection: %q, %v", a.body, a.err)
			}
			wait(t, "the end of the old server", stopped)
			if status, _ := after.get(t, "demo", "/"); status != 200 {
				t.Errorf("after the old server's end: %d", status)
			}
			l.Close()
			told.next(t, tunnel.Closed)
			told.none(t)
		})
	}
}

func TestServerDrainWithoutSuccessor(t *testing.T) {
	for _, busy := range []bool{false, true} {
		r := newRelay(t, "")
		before := start(t, server.Config{PublicURL: r.public(), Grace: patience})
		r.lead(before.addr)
		told := newEvents()
		app := newSlow()
		l := listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, app)
		told.next(t, tunnel.Ready)
		if busy {
			inBackground(before.request(t, "GET", "demo", "/slow", nil))
			wait(t, "a request", app.begun)
		}
		r.lead("")
		stopped := make(chan struct{})
		go func() { defer close(stopped); before.stop() }()
		told.next(t, tunnel.Draining)
		close(app.rest)
		if lost := told.next(t, tunnel.Disconnected); lost.Err == nil {
			t.Error("disconnected without a cause")
		}
		wait(t, "the server's end", stopped)
		after := start(t, server.Config{PublicURL: r.public()})
		r.lead(after.addr)
		told.next(t, tunnel.Reconnected)
		if status, _ := after.get(t, "demo", "/"); status != 200 {
			t.Errorf("status %d", status)
		}
		l.Close()
		told.next(t, tunnel.Closed)
		told.none(t)
	}
}

// The client lost its connection and the server has not noticed: the next one
// takes the name at once, though no token says whose it is. What becomes of the
// old connection later changes nothing (R32).
func TestResumeFencesHalfOpen(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			n := start(t, server.Config{Hold: time.Minute})
			r := newRelay(t, n.addr)
			told := newEvents()
			listen(t, &tunnel.Client{Server: r.url(), Transport: transport, Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
			told.next(t, tunnel.Ready)
			orphans := r.orphan()
			told.next(t, tunnel.Disconnected)
			told.next(t, tunnel.Reconnected)
			if status, body := n.get(t, "demo", "/"); status != 200 || body != "hello" {
				t.Errorf("got %d %q", status, body)
			}
			for _, p := range orphans {
				p.server.Close()
				wait(t, "the end of the old connection", p.ended)
			}
			if status, body := n.get(t, "demo", "/"); status != 200 || body != "hello" {
				t.Errorf("after the late close: %d %q", status, body)
			}
			told.none(t)
		})
	}
}

// guard is an auth.Authenticator that can change its mind.
type guard struct {
	auth.Anonymous
	revoked atomic.Bool
	changed chan struct{} // a value makes the server look at its sessions
}

func (g *guard) Authenticate(token, session string) (auth.Identity, error) {
	if g.revoked.Load() {
		return auth.Identity{}, &protocol.Error{Code: protocol.Unauthorized, Message: "no longer"}
	}
	return g.Anonymous.Authenticate(token, session)
}

func (g *guard) Valid(auth.Identity) bool { return !g.revoked.Load() }

func (g *guard) Run(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.changed:
			changed()
		}
	}
}

// What the server refuses for good ends the listener, with what it said.
func TestFatal(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(t *testing.T, n *node, r *relay, g *guard, told events)
		code protocol.Code
	}{
		"unauthorized on reconnect": {func(t *testing.T, _ *node, r *relay, g *guard, told events) {
			g.revoked.Store(true)
			r.cut()
			told.next(t, tunnel.Disconnected)
		}, protocol.Unauthorized},
		"token revoked": {func(t *testing.T, _ *node, r *relay, g *guard, told events) {
			g.revoked.Store(true)
			g.changed <- struct{}{}
			if lost := told.next(t, tunnel.Disconnected); codeOf(lost.Err) != protocol.TokenRevoked {
				t.Errorf("disconnected because of %v", lost.Err)
			}
		}, protocol.TokenRevoked},
		"name taken meanwhile": {func(t *testing.T, n *node, r *relay, g *guard, told events) {
			r.lead("")
			r.cut()
			told.next(t, tunnel.Disconnected)
			// Without a hold the name is free once the server has noticed.
			c := &tunnel.Client{Server: n.url(), Token: "another-token"}
			for {
				l, err := c.Listen(t.Context(), tunnel.Options{Name: "demo"})
				if err == nil {
					t.Cleanup(func() { l.Close() })
					break
				}
				if codeOf(err) != protocol.NameTaken {
					t.Fatal(err)
				}
			}
			r.lead(n.addr)
		}, protocol.NameTaken},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guard{changed: make(chan struct{})}
			n := start(t, server.Config{Auth: g})
			r := newRelay(t, n.addr)
			told := newEvents()
			c := &tunnel.Client{Server: r.url(), Token: "my-own-token", Events: told.tell}
			served := make(chan error, 1)
			go func() { served <- c.Serve(t.Context(), tunnel.Options{Name: "demo"}, hello) }()
			told.next(t, tunnel.Ready)
			test.end(t, n, r, g, told)
			if err := wait(t, "Serve", served); codeOf(err) != test.code {
				t.Errorf("Serve: %v, want %s", err, test.code)
			}
			if closed := told.next(t, tunnel.Closed); codeOf(closed.Err) != test.code {
				t.Errorf("closed because of %v, want %s", closed.Err, test.code)
			}
			told.none(t)
		})
	}
}

// The old server lets a request finish; that its successor refuses the client is
// no reason to cut it.
func TestFatalWhileServerDrains(t *testing.T) {
	r := newRelay(t, "")
	before := start(t, server.Config{PublicURL: r.public(), Grace: patience})
	r.lead(before.addr)
	told := newEvents()
	app := newSlow()
	l := listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, app)
	told.next(t, tunnel.Ready)
	flying := inBackground(before.request(t, "GET", "demo", "/slow", nil))
	wait(t, "a request", app.begun)
	refusing := make(chan struct{}, 10)
	r.judge(func(_ []byte, c net.Conn) verdict {
		io.WriteString(c, "HTTP/1.1 401 No\r\nTunnel-Error: unauthorized\r\nContent-Length: 0\r\n\r\n")
		refusing <- struct{}{}
		return refuse
	})
	stopped := make(chan struct{})
	go func() { defer close(stopped); before.stop() }()
	told.next(t, tunnel.Draining)
	wait(t, "the refusal", refusing)
	select {
	case a := <-flying:
		t.Fatalf("cut: %v", a.err)
	case <-time.After(50 * time.Millisecond): // what the client needs to be wrong
	}
	close(app.rest)
	if a := wait(t, "the answer", flying); a.err != nil || a.body != "first second" {
		t.Errorf("got %q, %v", a.body, a.err)
	}
	if closed := told.next(t, tunnel.Closed); codeOf(closed.Err) != protocol.Unauthorized {
		t.Errorf("closed because of %v", closed.Err)
	}
	if _, err := l.Accept(); codeOf(err) != protocol.Unauthorized {
		t.Errorf("Accept: %v", err)
	}
	wait(t, "the old server's end", stopped)
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestUnreachable(t *testing.T) {
	silent := newRelay(t, "nowhere")
	silent.judge(func([]byte, net.Conn) verdict { return hang })
	web := newRelay(t, "nowhere")
	web.judge(func(_ []byte, c net.Conn) verdict {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		return refuse
	})
	for name, url := range map[string]string{
		"nobody listens": "http://" + closedPort(t), "closes": newRelay(t, "").url(), "no tunnel server": web.url(), "no answer": silent.url(),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "no answer" {
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
			}
			_, err := (&tunnel.Client{Server: url}).Listen(ctx, tunnel.Options{})
			if !errors.Is(err, tunnel.ErrUnreachable) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want ErrUnreachable in one line", err)
			}
			if want := ctx.Err(); want != nil && !errors.Is(err, want) {
				t.Errorf("got %v, want also %v", err, want)
			}
		})
	}
}

func TestListenCancelled(t *testing.T) {
	r := newRelay(t, "nowhere")
	asked := make(chan struct{}, 10)
	r.judge(func([]byte, net.Conn) verdict { asked <- struct{}{}; return hang })
	for _, retry := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := (&tunnel.Client{Server: r.url()}).Listen(ctx, tunnel.Options{Retry: retry})
			failed <- err
		}()
		wait(t, "the attempt", asked)
		why := errors.New("changed my mind")
		cancel(why)
		if err := wait(t, "Listen", failed); !errors.Is(err, why) || errors.Is(err, tunnel.ErrUnreachable) {
			t.Errorf("retry %v: %v, want %v", retry, err, why)
		}
	}
}

func TestRetry(t *testing.T) {
	r := newRelay(t, "")
	tried := make(chan struct{}, 100)
	told := newEvents()
	c := &tunnel.Client{Server: r.url(), Events: told.tell}
	r.judge(func([]byte, net.Conn) verdict { tried <- struct{}{}; return refuse })
	r.lead("nowhere")
	got := make(chan *tunnel.Listener, 1)
	go func() {
		l, err := c.Listen(t.Context(), tunnel.Options{Name: "demo", Retry: true})
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	for range 4 {
		wait(t, "an attempt", tried)
	}
	told.none(t)
	n := start(t, server.Config{})
	r.judge(nil)
	r.lead(n.addr)
	l := wait(t, "Listen", got)
	if l == nil {
		return
	}
	told.next(t, tunnel.Ready)
	l.Close()

	// What the server refuses for good is not tried again.
	taken := listen(t, &tunnel.Client{Server: n.url()}, tunnel.Options{}, hello)
	_, err := c.Listen(t.Context(), tunnel.Options{Name: taken.Name(), Retry: true})
	if codeOf(err) != protocol.NameTaken || errors.Is(err, tunnel.ErrUnreachable) {
		t.Errorf("got %v, want name_taken", err)
	}
}

// R5: a POST that was under way when the connection broke is not run again, also
// where the client is back at once and the server would wait for it.
func TestPostAtMostOnce(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			n := start(t, server.Config{Hold: time.Minute, Park: patience})
			r := newRelay(t, n.addr)
			told := newEvents()
			var ran atomic.Int32
			arrived := make(chan struct{}, 10)
			listen(t, &tunnel.Client{Server: r.url(), Transport: transport, Events: told.tell}, tunnel.Options{Name: "demo"},
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == "GET" {
						return
					}
					ran.Add(1)
					io.Copy(io.Discard, r.Body)
					arrived <- struct{}{}
					<-r.Context().Done()
				}))
			told.next(t, tunnel.Ready)
			n.get(t, "demo", "/") // the POST comes on a kept stream
			posted := inBackground(n.request(t, "POST", "demo", "/", strings.NewReader("once")))
			wait(t, "the request", arrived)
			r.cut()
			told.next(t, tunnel.Disconnected)
			told.next(t, tunnel.Reconnected)
			a := wait(t, "the answer", posted)
			if a.err != nil || a.res.StatusCode != 502 || a.res.Header.Get(protocol.HeaderError) != string(protocol.SessionLost) {
				t.Errorf("got %v, %v; want 502 session_lost", a.res, a.err)
			}
			n.get(t, "demo", "/")
			if got := ran.Load(); got != 1 {
				t.Errorf("ran %d times", got)
			}
		})
	}
}

// A stream whose session died reads an error, not the end of what was sent (R2);
// what was half answered is no whole answer (R1).
func TestDeadSessionIsNoEnd(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			n := start(t, server.Config{})
			r := newRelay(t, n.addr)
			read := make(chan error, 1)
			listen(t, &tunnel.Client{Server: r.url(), Transport: transport}, tunnel.Options{Name: "demo"},
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).EnableFullDuplex()
					w.WriteHeader(200)
					http.NewResponseController(w).Flush()
					_, err := io.ReadAll(r.Body)
					read <- err
				}))
			body, send := io.Pipe()
			defer send.Close()
			go io.WriteString(send, "begin")
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(n.request(t, "POST", "demo", "/", body))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			r.cut()
			if err := wait(t, "the handler", read); err == nil {
				t.Error("the handler read a cut body to its end")
			}
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("the visitor read a cut answer to its end: %q", b)
			}
		})
	}
}

func TestAcceptedStreamOfDeadSession(t *testing.T) {
	n := start(t, server.Config{})
	r := newRelay(t, n.addr)
	l, err := (&tunnel.Client{Server: r.url()}).Listen(t.Context(), tunnel.Options{Name: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	inBackground(n.request(t, "GET", "demo", "/", nil))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	readHead(c)
	r.cut()
	_, err = c.Read(make([]byte, 1))
	if !errors.Is(err, mux.ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("read %v, want mux.ErrClosed", err)
	}
}
