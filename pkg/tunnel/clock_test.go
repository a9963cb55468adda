package tunnel

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// The tests of this file move the clock: client and server are in one bubble,
// on connections in memory.

// R8: a peer that falls silent is given up within 45 s, whichever direction does
// not pass, and the client is back within 5 s.
func TestSilentServer(t *testing.T) {
	for name, silence := range map[string]func(*wire){
		"both":            func(w *wire) { w.up.Store(true); w.down.Store(true) },
		"from the server": func(w *wire) { w.down.Store(true) },
		"to the server":   func(w *wire) { w.up.Store(true) },
	} {
		for _, transport := range []Transport{Raw, WebSocket} {
			t.Run(name+"/"+string(transport), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, end := begin()
					defer end()
					c, told := f.client()
					c.Transport = transport
					l := mustListen(t, c, told)
					defer l.Close()
					time.Sleep(5 * time.Minute) // while all is well
					if len(told) > 0 {
						t.Fatalf("event %+v", <-told)
					}
					silence(f.newest())
					start := time.Now()
					lost := expect(t, told, Disconnected)
					if took := time.Since(start); took > 45*time.Second {
						t.Errorf("noticed after %v", took)
					}
					if name == "from the server" && !errors.Is(lost.Err, mux.ErrSilent) {
						t.Errorf("disconnected because of %v, want mux.ErrSilent", lost.Err)
					}
					start = time.Now()
					expect(t, told, Reconnected)
					if took := time.Since(start); took > 5*time.Second {
						t.Errorf("back after %v", took)
					}
				})
			})
		}
	}
}

// R9: after a sleep the client asks for a sign of life, and does not wait until
// the silence has lasted long enough.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, told := f.client()
		var slept atomic.Int64 // how far the wall clock is ahead
		c.now = func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
		l := mustListen(t, c, told)
		defer l.Close()

		time.Sleep(time.Minute)
		slept.Add(int64(time.Hour))
		time.Sleep(time.Minute)
		if len(told) > 0 {
			t.Fatalf("a connection that lives was given up: %+v", <-told)
		}

		f.newest().down.Store(true)
		slept.Add(int64(5 * time.Minute))
		start := time.Now()
		if lost := expect(t, told, Disconnected); !errors.Is(lost.Err, errAfterSleep) {
			t.Errorf("disconnected because of %v", lost.Err)
		}
		if took := time.Since(start); took > sleepCheck+sleepPing {
			t.Errorf("noticed after %v", took)
		}
		expect(t, told, Reconnected)

		// A clock that is set back, or a little forward, is no sleep.
		f.newest().down.Store(true)
		slept.Add(int64(-time.Hour))
		time.Sleep(10 * time.Second)
		slept.Add(int64(sleepGap - sleepCheck - time.Millisecond))
		time.Sleep(10 * time.Second)
		if len(told) > 0 {
			t.Fatalf("taken for a sleep: %+v", <-told)
		}
	})
}

// A transport on which nothing comes back costs half an attempt, once.
func TestFallbackFromSilence(t *testing.T) {
	for name, f := range map[string]*fake{
		"no answer": {answer: func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Upgrade") == protocol.Upgrade {
				<-r.Context().Done()
				return true
			}
			return false
		}},
		"no welcome": {hello: func(n int, _ *protocol.Hello, m mux.Session, _ mux.Stream) bool {
			if n == 0 {
				<-m.Done()
			}
			return n == 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, hello := f.answer, f.hello
				f, end := begin()
				defer end()
				f.answer, f.hello = answer, hello
				c, told := f.client()
				l := mustListen(t, c, told)
				defer l.Close()
				if took := time.Since(f.start); took > attemptTime/2 {
					t.Errorf("took %v", took)
				}
				f.newest().Close()
				expect(t, told, Disconnected)
				expect(t, told, Reconnected)
				var upgrades []string
				for _, a := range f.seen() {
					upgrades = append(upgrades, a.upgrade)
				}
				if want := []string{protocol.Upgrade, "websocket", "websocket"}; !slices.Equal(upgrades, want) {
					t.Errorf("asked for %v, want %v", upgrades, want)
				}
			})
		})
	}
}

// The first transport leaves the second half of a caller's time.
func TestFallbackWithinDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Upgrade") == protocol.Upgrade {
				<-r.Context().Done()
				return true
			}
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		c, _ := f.client()
		l, err := c.Listen(ctx, Options{})
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

func TestBackoff(t *testing.T) {
	if got := backoff(0); got != 0 {
		t.Errorf("first attempt waits %v", got)
	}
	for n := 1; n < 100; n++ {
		limit := maxBackoff
		if n < 8 {
			limit = min(maxBackoff, minBackoff<<(n-1))
		}
		longest := time.Duration(0)
		for range 200 {
			got := backoff(n)
			if got <= 0 || got > limit {
				t.Fatalf("attempt %d waits %v, want at most %v", n, got, limit)
			}
			longest = max(longest, got)
		}
		if longest < limit/2 { // one in 2^200
			t.Errorf("attempt %d waited %v at most, of %v", n, longest, limit)
		}
	}
}

// While the server is away the client asks for it, at once and then more rarely,
// for as long as it takes.
func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, told := f.client()
		c.Transport = Raw
		l := mustListen(t, c, told)
		defer l.Close()
		time.Sleep(time.Minute)
		f.mu.Lock()
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "away", http.StatusBadGateway)
			return true
		}
		f.mu.Unlock()
		lost := time.Since(f.start)
		f.newest().Close()
		expect(t, told, Disconnected)
		time.Sleep(time.Hour)
		before := lost
		tries := f.seen()[1:]
		for i, a := range tries {
			if gap := a.at - before; gap > maxBackoff || i == 0 && gap > 0 {
				t.Errorf("attempt %d came %v after the one before", i, gap)
			}
			before = a.at
		}
		// Half of maxBackoff on the average.
		if n := len(tries); n < 2000 || n > 2900 {
			t.Errorf("%d attempts in an hour", n)
		}
		f.mu.Lock()
		f.answer = nil
		f.mu.Unlock()
		expect(t, told, Reconnected)
	})
}

// A server that takes each session and ends it at once is not asked in a loop.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, told := f.client()
		c.Transport = Raw
		c.Events = func(e Event) {
			if e.Type == Reconnected {
				f.newest().Close()
			}
			if e.Type == Ready {
				told <- e
			}
		}
		l := mustListen(t, c, told)
		defer l.Close()
		f.newest().Close()
		time.Sleep(10 * time.Minute)
		if n := len(f.seen()); n < 200 || n > 600 {
			t.Errorf("%d sessions in ten minutes", n)
		}
	})
}

// The server's Retry-After is the least that the client waits; but one that is
// shutting down does not know when another takes its place.
func TestRetryAfter(t *testing.T) {
	for code, least := range map[protocol.Code]time.Duration{
		protocol.TooManySessions: 7 * time.Second, "rate_limited": 7 * time.Second, protocol.Draining: 0,
	} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, end := begin()
				defer end()
				f.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
					if n < 3 {
						w.Header().Set(protocol.HeaderError, string(code))
						w.Header().Set("Retry-After", "7")
						w.WriteHeader(http.StatusServiceUnavailable)
					}
					return n < 3
				}
				c, _ := f.client()
				l, err := c.Listen(t.Context(), Options{Retry: true})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				tries := f.seen()
				if len(tries) != 4 {
					t.Fatalf("attempts %+v", tries)
				}
				for i, a := range tries[1:] {
					gap := a.at - tries[i].at
					if most := least + minBackoff<<i + 1; gap < least || gap > most {
						t.Errorf("waited %v, want %v to %v", gap, least, most)
					}
				}
			})
		})
	}
}

// The same SESSION is used only with the secret that proves who it is: an
// attempt whose welcome got lost may have left a connection that has the id.
func TestSessionID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, told := f.client()
		c.Transport = Raw
		// 0: welcome lost. 1: fine. 2: lost again, fine again. 4: the server knows
		// the id, and not the secret. 5: fine.
		f.hello = func(n int, h *protocol.Hello, m mux.Session, control mux.Stream) bool {
			switch n {
			case 0, 2:
				return true
			case 4:
				e := &protocol.Error{Code: protocol.SessionTaken, Message: "taken"}
				protocol.Write(control, &protocol.Message{Bye: &protocol.Bye{Error: e}})
				<-m.Done()
				return true
			}
			return false
		}
		l, err := c.Listen(t.Context(), Options{Retry: true})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		expect(t, told, Ready)
		for range 2 {
			f.newest().Close()
			expect(t, told, Disconnected)
			expect(t, told, Reconnected)
		}
		a := f.seen()
		if len(a) != 6 {
			t.Fatalf("attempts %+v", a)
		}
		if a[0].session == a[1].session || a[0].resume+a[1].resume != "" {
			t.Errorf("first attempts %+v", a[:2])
		}
		for _, one := range a[2:5] {
			if one.session != a[1].session || one.resume != "secret" {
				t.Errorf("reconnect %+v, want the session of %+v", one, a[1])
			}
		}
		if a[5].session == a[1].session || a[5].resume != "" {
			t.Errorf("after session_taken: %+v", a[5])
		}
	})
}

// What the server says with a bye is the cause, also where the connection ends
// right behind it; garbage on the control stream is no reason to give up.
func TestCauses(t *testing.T) {
	for name, test := range map[string]struct {
		say   func(control mux.Stream)
		final bool
		want  string
	}{
		"bye with a reason": {func(c mux.Stream) {
			protocol.Write(c, &protocol.Message{Bye: &protocol.Bye{Error: &protocol.Error{Code: protocol.TokenRevoked, Message: "go away"}}})
		}, true, "go away"},
		"a reason that passes": {func(c mux.Stream) {
			protocol.Write(c, &protocol.Message{Bye: &protocol.Bye{Error: &protocol.Error{Code: protocol.Overloaded, Message: "upgrading"}}})
		}, false, "upgrading"},
		"bye": {func(c mux.Stream) {
			protocol.Write(c, &protocol.Message{Bye: &protocol.Bye{}})
		}, false, "the server ended the session"},
		"garbage": {func(c mux.Stream) {
			io.WriteString(c, "\x00\x00\x00\x05}}}}}")
		}, false, "control"},
		"an endless message": {func(c mux.Stream) {
			io.WriteString(c, "\xff\xff\xff\xff")
		}, false, "control"},
		"the end of the control stream": {func(c mux.Stream) {
			c.CloseWrite()
		}, false, "control"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, end := begin()
				defer end()
				c, told := f.client()
				c.Transport = Raw
				controls := make(chan mux.Stream, 1)
				f.hello = func(n int, _ *protocol.Hello, _ mux.Session, control mux.Stream) bool {
					if n == 0 {
						controls <- control
					}
					return false
				}
				l := mustListen(t, c, told)
				defer l.Close()
				test.say(<-controls)
				lost := expect(t, told, Disconnected)
				if lost.Err == nil || !strings.Contains(lost.Err.Error(), test.want) {
					t.Errorf("disconnected because of %v, want %q", lost.Err, test.want)
				}
				if !test.final {
					expect(t, told, Reconnected)
					return
				}
				expect(t, told, Closed)
				if _, err := l.Accept(); !errors.Is(err, lost.Err) {
					t.Errorf("Accept: %v", err)
				}
			})
		})
	}
}

// What worked is preferred, until the other worked twice.
func TestRemember(t *testing.T) {
	l := &link{}
	for i, step := range []struct{ worked, prefer transport.Kind }{
		{transport.Raw, transport.Raw},
		{transport.WebSocket, transport.Raw},
		{transport.Raw, transport.Raw},
		{transport.WebSocket, transport.Raw},
		{transport.WebSocket, transport.WebSocket},
		{transport.Raw, transport.WebSocket},
		{transport.Raw, transport.Raw},
	} {
		l.remember(step.worked)
		if got := l.kinds()[0]; got != step.prefer || len(l.kinds()) != 2 {
			t.Errorf("step %d: prefers %v, want %s first", i, l.kinds(), step.prefer)
		}
	}
}
