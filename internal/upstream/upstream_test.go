package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/mux"
)

// patience is when a test gives up waiting for what must come.
const patience = 20 * time.Second

// peer is a client: it serves the streams that the pool opens.
type peer struct {
	pool    *Pool
	server  mux.Session
	client  mux.Session
	streams atomic.Int64 // that were opened
}

// connect makes a pool over a session whose client answers with handler.
func connect(t *testing.T, maxRequests int, handler http.HandlerFunc) *peer {
	t.Helper()
	a, b := net.Pipe()
	p := new(peer)
	var err error
	if p.client, err = mux.Client(a, mux.Config{}); err != nil {
		t.Fatal(err)
	}
	if p.server, err = mux.Server(b, mux.Config{}); err != nil {
		t.Fatal(err)
	}
	p.pool = NewPool(p.server, maxRequests)
	s := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(p) })
	t.Cleanup(func() {
		p.pool.streams.CloseIdle()
		p.client.Close()
		p.server.Close()
		s.Close()
		serving.Wait()
	})
	return p
}

func (p *peer) Accept() (net.Conn, error) {
	stream, err := p.client.Accept()
	if err == nil {
		p.streams.Add(1)
	}
	return stream, err
}

func (p *peer) Close() error { return nil }

func (p *peer) Addr() net.Addr { return p.client.RemoteAddr() }

func request(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "http://demo.example.com"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// ask sends a request and reads the answer to its end.
func ask(rt http.RoundTripper, req *http.Request) (string, error) {
	res, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// idle checks that nothing is counted as under way.
func (p *peer) idle(t *testing.T, when string) {
	t.Helper()
	if n := p.pool.Active(); n != 0 {
		t.Errorf("%s: %d are active", when, n)
	}
	if n := p.pool.pending.Load(); n != 1 {
		t.Errorf("%s: %d are pending, want the pool's own 1", when, n)
	}
}

func TestStreamsAreKept(t *testing.T) {
	const many = 5
	arrived, release := make(chan struct{}, many), make(chan struct{})
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-release
		}
		io.Copy(w, r.Body)
	})
	rt := p.pool.Route("demo")
	for i := range 10 {
		want := fmt.Sprint("body ", i)
		if got, err := ask(rt, request(t, "POST", "/", want)); err != nil || got != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if n := p.streams.Load(); n != 1 {
		t.Errorf("10 requests after each other took %d streams, want 1", n)
	}
	var asking sync.WaitGroup
	for range many {
		asking.Go(func() { ask(rt, request(t, "GET", "/wait", "")) })
	}
	for range many {
		<-arrived
	}
	if n := p.pool.Active(); n != many {
		t.Errorf("%d are active, want %d", n, many)
	}
	close(release)
	asking.Wait()
	p.idle(t, "after all")
	for range many {
		ask(rt, request(t, "GET", "/", ""))
	}
	if n := p.streams.Load(); n != many {
		t.Errorf("%d requests at once took %d streams", many, n)
	}
}

// R20: one request more than the cap is refused, and the tunnel lives.
func TestOverloaded(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	p := connect(t, 2, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	a, b := p.pool.Route("a"), p.pool.Route("b") // the cap is the session's
	done := make(chan error, 2)
	for _, rt := range []http.RoundTripper{a, b} {
		go func() { _, err := ask(rt, request(t, "GET", "/", "")); done <- err }()
		<-arrived
	}
	for range 3 {
		if _, err := ask(a, request(t, "GET", "/", "")); !errors.Is(err, ErrOverloaded) {
			t.Errorf("got %v, want ErrOverloaded", err)
		}
	}
	release <- struct{}{}
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { _, err := ask(b, request(t, "GET", "/", "")); done <- err }()
	<-arrived
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	p.idle(t, "after all")
}

// An open upgraded connection is one of those that the cap counts.
func TestOverloadedByUpgrades(t *testing.T) {
	p := connect(t, 1, upgrade)
	rt := p.pool.Route("demo")
	conn := p.upgraded(t, rt)
	if _, err := ask(rt, request(t, "GET", "/", "")); !errors.Is(err, ErrOverloaded) {
		t.Errorf("got %v, want ErrOverloaded", err)
	}
	conn.Close()
	p.upgraded(t, rt).Close()
	p.idle(t, "after all")
}

// upgrade answers 101 and then echoes until it reads the end.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	io.Copy(conn, rw)
}

func (p *peer) upgraded(t *testing.T, rt http.RoundTripper) io.ReadWriteCloser {
	t.Helper()
	req := request(t, "GET", "/upgrade", "")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return res.Body.(io.ReadWriteCloser)
}

func TestUpgradedConnections(t *testing.T) {
	p := connect(t, 0, upgrade)
	conn := p.upgraded(t, p.pool.Route("demo"))
	io.WriteString(conn, "hello")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" { // half-closed
		t.Errorf("got %q, %v", b, err)
	}
	if n := p.pool.Active(); n != 1 {
		t.Errorf("%d are active, want 1", n)
	}
	conn.Close()
	conn.Close()
	p.idle(t, "after Close")

	conn = p.upgraded(t, p.pool.Route("demo"))
	if err := conn.(interface{ Reset() error }).Reset(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after Reset: got %v, want an error that is no end", err)
	}
	conn.Close()
	p.idle(t, "after Reset")
}

func TestDrain(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			upgrade(w, r)
			return
		}
		io.WriteString(w, "begun")
		http.NewResponseController(w).Flush()
		arrived <- struct{}{}
		<-release
	})
	rt := p.pool.Route("demo")
	conn := p.upgraded(t, rt)
	defer conn.Close()
	res, err := rt.RoundTrip(request(t, "GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	<-arrived

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.pool.Drain(ended); err != context.Canceled {
		t.Errorf("amid a request: got %v, want the context's error", err)
	}
	if _, err := ask(rt, request(t, "POST", "/", "body")); !errors.Is(err, ErrNotSent) {
		t.Errorf("a new request: got %v, want ErrNotSent", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.pool.Drain(t.Context()) }()
	close(release)
	if b, err := io.ReadAll(res.Body); string(b) != "begun" || err != nil {
		t.Errorf("what is under way: got %q, %v", b, err)
	}
	select {
	case err := <-drained:
		t.Errorf("drained before the answer was closed: %v", err)
	default:
	}
	res.Body.Close()
	if err := <-drained; err != nil { // though the upgraded connection is open
		t.Error(err)
	}
	if err := p.pool.Drain(t.Context()); err != nil {
		t.Errorf("once more: %v", err)
	}
	if n := p.pool.Active(); n != 1 {
		t.Errorf("%d are active, want the upgraded connection", n)
	}
	if _, err := ask(rt, request(t, "GET", "/", "")); !errors.Is(err, ErrNotSent) {
		t.Errorf("after it: got %v, want ErrNotSent", err)
	}
}

func TestDrainEndsWithTheSession(t *testing.T) {
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	res, err := p.pool.Route("demo").RoundTrip(request(t, "GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	drained := make(chan error, 1)
	go func() { drained <- p.pool.Drain(t.Context()) }()
	p.client.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// Requests come and go while the pool drains: none is under way when it has.
func TestDrainRace(t *testing.T) {
	for range 1000 {
		p := NewPool(endless{}, 0)
		var drained atomic.Bool
		var entering sync.WaitGroup
		for range 2 {
			entering.Go(func() {
				for p.enter() == nil {
					if runtime.Gosched(); drained.Load() {
						t.Error("a request is under way in a drained pool")
					}
					p.leave()
				}
			})
		}
		runtime.Gosched()
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		drained.Store(true)
		entering.Wait()
	}
}

// endless is a session that does not end.
type endless struct{ mux.Session }

func (endless) Done() <-chan struct{} { return nil }

func TestSessionEnds(t *testing.T) {
	arrived := make(chan struct{})
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or net/http does not look whether the server is there
		if r.URL.Path == "/half" {
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	rt := p.pool.Route("demo")
	half, err := rt.RoundTrip(request(t, "GET", "/half", ""))
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	done := make(chan error, 2)
	for _, method := range []string{"GET", "POST"} {
		go func() { _, err := ask(rt, request(t, method, "/", "body")); done <- err }()
		<-arrived
	}
	p.client.Close()
	for range 2 {
		if err := <-done; !errors.Is(err, ErrSessionLost) || errors.Is(err, ErrNotSent) || !errors.Is(err, mux.ErrClosed) {
			t.Errorf("under way: got %v, want ErrSessionLost with its cause", err)
		}
	}
	if b, err := io.ReadAll(half.Body); string(b) != "half" || err == nil {
		t.Errorf("amid an answer: got %q, %v, want an error", b, err)
	}
	half.Body.Close()
	if _, err := ask(rt, request(t, "POST", "/", "body")); !errors.Is(err, ErrNotSent) {
		t.Errorf("after it: got %v, want ErrNotSent", err)
	}
	p.idle(t, "after all")
}

// outcomes is a client whose answers end in every way there is. It tells when a
// request that hangs has arrived.
func outcomes(arrived chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hint":
			w.WriteHeader(http.StatusEarlyHints)
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/hang":
			arrived <- struct{}{}
			<-r.Context().Done()
		case "/begin":
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/upgrade":
			upgrade(w, r)
		default:
			io.WriteString(w, "hello")
		}
	}
}

// Whatever becomes of a request, it is counted no longer than it lasts.
func TestCounters(t *testing.T) {
	arrived := make(chan struct{}, 10)
	p := connect(t, 0, outcomes(arrived))
	rt := p.pool.Route("demo")
	open := func(method, path string) *http.Response {
		t.Helper()
		res, err := rt.RoundTrip(request(t, method, path, ""))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for name, do := range map[string]func(){
		"read":         func() { ask(rt, request(t, "GET", "/", "")) },
		"read, POST":   func() { ask(rt, request(t, "POST", "/", "body")) },
		"HEAD":         func() { open("HEAD", "/").Body.Close() },
		"204":          func() { open("GET", "/none").Body.Close() },
		"not read":     func() { open("GET", "/").Body.Close() },
		"closed twice": func() { b := open("GET", "/").Body; b.Close(); b.Close() },
		"amid":         func() { open("GET", "/begin").Body.Close() },
		"no answer":    func() { ask(rt, request(t, "GET", "/abort", "")) },
		"not valid": func() {
			ask(rt, &http.Request{Method: "BAD METHOD", URL: request(t, "GET", "/", "").URL, Header: http.Header{}})
		},
		"cancelled": func() {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-arrived; cancel() }()
			if _, err := ask(rt, request(t, "GET", "/hang", "").WithContext(ctx)); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: got %v", err)
			}
		},
		"cancelled before": func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			ask(rt, request(t, "GET", "/", "").WithContext(ctx))
		},
		"cancelled amid": func() {
			ctx, cancel := context.WithCancel(t.Context())
			res, err := rt.RoundTrip(request(t, "GET", "/begin", "").WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("cancelled amid: the answer ended")
			}
			res.Body.Close()
		},
		"panic": func() {
			defer func() { recover() }()
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("bug") },
			})
			rt.RoundTrip(request(t, "GET", "/hint", "").WithContext(ctx))
		},
		"upgrade": func() { p.upgraded(t, p.pool.Route("demo")).Close() },
	} {
		do()
		p.idle(t, name)
	}
}

// A session with several names learns which one a request is for.
func TestRouteField(t *testing.T) {
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["Tunnel-Route"])
	})
	a := p.pool.Route("a")
	check := func(when string, rt http.RoundTripper, want string) {
		t.Helper()
		if got, err := ask(rt, request(t, "GET", "/", "")); err != nil || got != want {
			t.Errorf("%s: the client saw %q, %v, want %q", when, got, err, want)
		}
	}
	check("one name", a, "[]")
	b := p.pool.Route("b")
	check("two names", a, "[a]")
	check("two names", b, "[b]")
	p.pool.Drop()
	check("one again", a, "[]")
}

// What a body tells proxy.Forward of its waits is not lost.
func TestBeforeWait(t *testing.T) {
	next := make(chan struct{})
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		for range 2 {
			io.WriteString(w, "hello")
			http.NewResponseController(w).Flush()
			<-next
		}
	})
	res, err := p.pool.Route("demo").RoundTrip(request(t, "GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	waits := 0
	if !res.Body.(interface{ BeforeWait(func()) bool }).BeforeWait(func() {
		waits++
		if waits == 1 {
			close(next)
		}
	}) {
		t.Fatal("nobody will be told")
	}
	if b, err := io.ReadAll(res.Body); string(b) != "hellohello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if waits == 0 {
		t.Error("it was not told")
	}
}
