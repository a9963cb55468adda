package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/internal/upstream"
)

// watched is a registry that tells when a request was told to wait.
type watched struct {
	registry.Memory
	offline chan struct{} // gets one for each such lookup
	lookups atomic.Int64
}

func (w *watched) Lookup(ctx context.Context, name string) (*registry.Route, error) {
	route, err := w.Memory.Lookup(ctx, name)
	w.lookups.Add(1)
	var offline *registry.OfflineError
	if errors.As(err, &offline) {
		w.offline <- struct{}{}
	}
	return route, err
}

// roundTrip is a client as a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// echo answers with the request's body.
func echo(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	return &http.Response{
		StatusCode: 200, Header: http.Header{"App": {"echo"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

func bind(t *testing.T, r registry.Registry, rt roundTrip) registry.Release {
	t.Helper()
	release, err := r.Bind(t.Context(), &registry.Route{Name: "demo", Owner: "me", HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func newWatched() *watched { return &watched{offline: make(chan struct{}, 100)} }

const post = "POST / HTTP/1.1\r\nHost: demo.example.com\r\nContent-Length: 9\r\n\r\nthe body!"

// A request waits for its client and is answered when that is back, body and all.
func TestParkedUntilTheClientIsBack(t *testing.T) {
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	bind(t, r, echo)(time.Hour)
	v := visit(t, addr)
	io.WriteString(v, post)
	<-r.offline
	bind(t, r, echo)
	if a := v.receive("POST"); a.body != "the body!" {
		t.Errorf("got %d %q", a.StatusCode, a.body)
	}
	io.WriteString(v, post) // on the same connection
	if a := v.receive("POST"); a.body != "the body!" {
		t.Errorf("after it: got %d %q", a.StatusCode, a.body)
	}
}

func TestParkIsOver(t *testing.T) {
	r := newWatched()
	bind(t, r, echo)(time.Hour)
	for _, park := range []time.Duration{0, time.Millisecond} {
		addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: park})
		a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com")
		if answered(a) != "503 client_offline" || a.Header.Get("Retry-After") == "" {
			t.Errorf("park %v: got %s", park, answered(a))
		}
	}
}

// The name is free before park is over: nobody is waited for.
func TestParkedUntilTheNameIsFree(t *testing.T) {
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	bind(t, r, echo)(time.Hour)
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: demo.example.com")
	<-r.offline
	bind(t, r, func(*http.Request) (*http.Response, error) { return nil, upstream.ErrNotSent })(0)
	if a := v.receive("GET"); answered(a) != "404 name_unknown" {
		t.Errorf("got %s", answered(a))
	}
}

// A parked request's place is free when its visitor leaves.
func TestVisitorLeavesWhileParked(t *testing.T) {
	r := newWatched()
	h := &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour}
	bind(t, r, echo)(time.Hour)
	s := h.Server(edge.Limits{})
	gone := make(chan any, 1)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			gone <- p
			panic(p)
		}()
		h.ServeHTTP(w, r)
	})
	v := visit(t, listenOn(t, s, loopback(t)))
	v.send("GET / HTTP/1.1", "Host: demo.example.com")
	<-r.offline
	v.Close()
	if p := <-gone; p != http.ErrAbortHandler {
		t.Errorf("got %v", p)
	}
}

// A session that ended before anything was sent: the request goes to the next one.
func TestRequestThatWasNotSent(t *testing.T) {
	r := newWatched()
	log := new(logs)
	h := &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour, Log: log.at(-8)}
	addr := listen(t, h)
	tries := 0
	bind(t, r, func(r *http.Request) (*http.Response, error) {
		if tries++; tries < 3 {
			return nil, fmt.Errorf("gone: %w", upstream.ErrNotSent)
		}
		return echo(r)
	})
	v := visit(t, addr)
	io.WriteString(v, post)
	if a := v.receive("POST"); a.body != "the body!" || tries != 3 {
		t.Errorf("got %q after %d tries", a.body, tries)
	}
}

func TestRequestThatCannotBeSent(t *testing.T) {
	for _, park := range []time.Duration{0, 20 * time.Millisecond} {
		r := newWatched()
		addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: park})
		bind(t, r, func(*http.Request) (*http.Response, error) { return nil, upstream.ErrNotSent })
		a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com")
		if answered(a) != "503 client_offline" {
			t.Errorf("park %v: got %s", park, answered(a))
		}
		if n := r.lookups.Load(); park == 0 && n != 2 || park > 0 && n < 2 {
			t.Errorf("park %v: %d lookups", park, n)
		}
	}
}

// Other failures are not tried again: the request may have been seen.
func TestRequestThatMayHaveBeenSent(t *testing.T) {
	for err, want := range map[error]string{
		upstream.ErrSessionLost:            "502 session_lost",
		upstream.ErrOverloaded:             "503 overloaded",
		errors.New("anything"):             "502 app_bad_response",
		registry.ErrUnknown:                "404 name_unknown",
		context.DeadlineExceeded:           "502 app_bad_response",
		fmt.Errorf("%w", io.ErrNoProgress): "502 app_bad_response",
	} {
		r := newWatched()
		addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
		tries := 0
		bind(t, r, func(*http.Request) (*http.Response, error) { tries++; return nil, err })
		if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != want || tries != 1 {
			t.Errorf("%v: got %s after %d tries, want %s after 1", err, answered(a), tries, want)
		}
	}
}

// A name that carries no HTTP, as one of TCP alone, is nobody's to a visitor.
func TestRouteWithoutHTTP(t *testing.T) {
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	if _, err := r.Bind(t.Context(), &registry.Route{Name: "demo", Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != "404 name_unknown" {
		t.Errorf("got %s", answered(a))
	}
}

// The same through server and SDK: the client's connection is cut, a POST comes,
// the client comes back.
func TestParkThroughTheStack(t *testing.T) {
	r := newWatched()
	addr := serve(t, server.Config{Registry: r, Park: time.Hour, Hold: time.Hour})
	way := newRelay(t, addr)
	publish(t, way.addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	v := visit(t, addr)
	for range 3 {
		way.cut()
		poll.Until(t, "the client to be away", func() bool {
			list, _ := r.List(t.Context())
			return len(list) == 1 && !list[0].Online
		})
		io.WriteString(v, post)
		<-r.offline
		way.mend()
		if a := v.receive("POST"); a.body != "the body!" {
			t.Errorf("got %d %q", a.StatusCode, a.body)
		}
	}
}

// relay is the network between client and server.
type relay struct {
	addr string

	mu    sync.Mutex
	whole bool
	conns []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l := loopback(t)
	w := &relay{addr: l.Addr().String(), whole: true}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if up := w.connect(c, to); up != nil {
				running.Go(func() { io.Copy(up, c); up.Close() })
				running.Go(func() { io.Copy(c, up); c.Close() })
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		running.Wait()
	})
	return w
}

func (w *relay) connect(c net.Conn, to string) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	up, err := net.Dial("tcp", to)
	if err != nil || !w.whole {
		c.Close()
		if up != nil {
			up.Close()
		}
		return nil
	}
	w.conns = append(w.conns, c, up)
	return up
}

func (w *relay) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = false
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *relay) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = true
}
