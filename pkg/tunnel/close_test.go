package tunnel_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// situation is a listener in a state of its life.
type situation struct {
	n     *node
	r     *relay
	l     *tunnel.Listener
	told  events
	app   *slow
	stops chan struct{} // closed when the server has stopped, where it was told to
}

// states are ways to bring a situation about.
func states() map[string]func(t *testing.T, s *situation) {
	return map[string]func(t *testing.T, s *situation){
		"ready": func(t *testing.T, s *situation) {},
		"silent": func(t *testing.T, s *situation) {
			s.r.silence(true, true)
		},
		"silent from the server": func(t *testing.T, s *situation) {
			s.r.silence(false, true)
		},
		"waiting to reconnect": func(t *testing.T, s *situation) {
			s.r.lead("")
			s.r.cut()
			s.told.next(t, tunnel.Disconnected)
		},
		"reconnecting": func(t *testing.T, s *situation) {
			asked := make(chan struct{}, 100)
			s.r.judge(func([]byte, net.Conn) verdict { asked <- struct{}{}; return hang })
			s.r.cut()
			s.told.next(t, tunnel.Disconnected)
			wait(t, "an attempt", asked)
		},
		"server drains": func(t *testing.T, s *situation) {
			s.r.lead("")
			inBackground(s.n.request(t, "GET", "demo", "/slow", nil))
			wait(t, "a request", s.app.begun)
			s.stops = make(chan struct{})
			go func() { defer close(s.stops); s.n.stop() }()
			s.told.next(t, tunnel.Draining)
		},
		"a request under way": func(t *testing.T, s *situation) {
			inBackground(s.n.request(t, "GET", "demo", "/slow", nil))
			wait(t, "a request", s.app.begun)
		},
		"nobody accepts": func(t *testing.T, s *situation) {
			l, err := (&tunnel.Client{Server: s.r.url(), Events: s.told.tell}).Listen(t.Context(), tunnel.Options{Name: "deaf"})
			if err != nil {
				t.Fatal(err)
			}
			s.told.next(t, tunnel.Ready)
			inBackground(s.n.request(t, "GET", "deaf", "/", nil))
			s.l.Close()
			s.told.next(t, tunnel.Closed)
			s.l = l
		},
		"closed": func(t *testing.T, s *situation) {
			s.l.Close()
		},
	}
}

// endings are ways to end a listener.
func endings() map[string]func(l *tunnel.Listener) {
	return map[string]func(l *tunnel.Listener){
		"close": func(l *tunnel.Listener) { l.Close() },
		"close twice": func(l *tunnel.Listener) {
			l.Close()
			l.Close()
		},
		"drain, close": func(l *tunnel.Listener) {
			drain(l)
			l.Close()
		},
		"all at once": func(l *tunnel.Listener) {
			var all sync.WaitGroup
			for range 2 {
				all.Go(func() { drain(l) })
				all.Go(func() { l.Close() })
			}
			all.Wait()
		},
		"close while draining": func(l *tunnel.Listener) {
			drained := make(chan struct{})
			go func() { defer close(drained); l.Drain(context.Background()) }()
			l.Close()
			<-drained
		},
	}
}

func drain(l *tunnel.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	return l.Drain(ctx)
}

// Whatever the state, Close and Drain come back, nothing goes on behind them
// (TestMain looks), and the end is told once.
func TestCloseInEveryState(t *testing.T) {
	for state, bring := range states() {
		for ending, end := range endings() {
			t.Run(state+"/"+ending, func(t *testing.T) {
				t.Parallel()
				s := &situation{told: newEvents(), app: newSlow()}
				s.n = start(t, server.Config{Grace: patience})
				s.r = newRelay(t, s.n.addr)
				s.l = listen(t, &tunnel.Client{Server: s.r.url(), Events: s.told.tell}, tunnel.Options{Name: "demo"}, s.app)
				s.told.next(t, tunnel.Ready)
				bring(t, s)
				finish(t, ending, func() { end(s.l) })
				if _, err := s.l.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v, want net.ErrClosed", err)
				}
				last := tunnel.Event{}
				for len(s.told) > 0 {
					if last = <-s.told; last.Type != tunnel.Draining && last.Type != tunnel.Closed {
						t.Errorf("event %s after the end began", last.Type)
					}
				}
				if last.Type != tunnel.Closed || last.Err != nil {
					t.Errorf("last event %+v, want closed", last)
				}
				s.r.cut() // what the server has not heard of
				if s.stops != nil {
					wait(t, "the server's end", s.stops)
				}
			})
		}
	}
}

// Drain says by whom it was cut short.
func TestDrainTakesTooLong(t *testing.T) {
	n := start(t, server.Config{})
	app := newSlow()
	l := listen(t, &tunnel.Client{Server: n.url()}, tunnel.Options{Name: "demo"}, app)
	flying := inBackground(n.request(t, "GET", "demo", "/slow", nil))
	wait(t, "a request", app.begun)
	if err := drain(l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v, want a timeout", err)
	}
	l.Close()
	if a := wait(t, "the answer", flying); a.err == nil {
		t.Errorf("half an answer looks whole: %q", a.body)
	}
}

// What is under way on a connection that the server is draining is waited for,
// also when there is a newer one.
func TestDrainWaitsForOldConnection(t *testing.T) {
	r := newRelay(t, "")
	before := start(t, server.Config{PublicURL: r.public(), Grace: patience})
	r.lead(before.addr)
	told := newEvents()
	app := newSlow()
	l := listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, app)
	told.next(t, tunnel.Ready)
	flying := inBackground(before.request(t, "GET", "demo", "/slow", nil))
	wait(t, "a request", app.begun)
	after := start(t, server.Config{PublicURL: r.public()})
	r.lead(after.addr)
	stopped := make(chan struct{})
	go func() { defer close(stopped); before.stop() }()
	told.next(t, tunnel.Draining)
	told.next(t, tunnel.Reconnected)

	if err := drain(l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain with a request under way: %v", err)
	}
	close(app.rest)
	if err := l.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	l.Close()
	if a := wait(t, "the answer", flying); a.err != nil || a.body != "first second" {
		t.Errorf("got %q, %v", a.body, a.err)
	}
	wait(t, "the old server's end", stopped)
}

// A drain ends the attempts to reconnect: Accept needs no Close to come back.
func TestDrainWhileReconnecting(t *testing.T) {
	n := start(t, server.Config{})
	r := newRelay(t, n.addr)
	told := newEvents()
	l := listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
	told.next(t, tunnel.Ready)
	r.lead("")
	r.cut()
	told.next(t, tunnel.Disconnected)
	if err := l.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	told.next(t, tunnel.Closed)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	told.none(t)
}

// Who ends the listener from within its own handler does not wait for himself.
func TestCloseFromHandler(t *testing.T) {
	n := start(t, server.Config{})
	told := newEvents()
	var l *tunnel.Listener
	ready := make(chan struct{})
	l = listen(t, &tunnel.Client{Server: n.url(), Events: told.tell}, tunnel.Options{Name: "demo"},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-ready
			l.Close()
		}))
	close(ready)
	told.next(t, tunnel.Ready)
	inBackground(n.request(t, "GET", "demo", "/", nil))
	told.next(t, tunnel.Closed)
}
