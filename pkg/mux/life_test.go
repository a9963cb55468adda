package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// idleConn remembers the longest time between two Reads that gave bytes.
type idleConn struct {
	net.Conn
	last    time.Time
	longest atomic.Int64
}

func (c *idleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.last.IsZero() {
		c.longest.Store(max(c.longest.Load(), int64(time.Since(c.last))))
	}
	c.last = time.Now()
	return n, err
}

// TestIdleSessionLives: pings keep a session alive, and the proxies on its way
// from cutting it.
func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ca, cb := &idleConn{Conn: a}, &idleConn{Conn: b}
		client, server := sessions(t, ca, cb, Config{})
		s, p := streams(t, client, server)
		time.Sleep(24 * time.Hour)
		for _, c := range []*idleConn{ca, cb} {
			if d := time.Duration(c.longest.Load()); d > defaultKeepAlive || d == 0 {
				t.Errorf("nothing arrived for %v, want pings every %v", d, defaultKeepAlive)
			}
		}
		write(t, s, "still here")
		checkRead(t, p, "still here")
		if client.Err() != nil || server.Err() != nil {
			t.Errorf("the session ended: %v, %v", client.Err(), server.Err())
		}
	})
}

// countConn counts the pings that are written.
type countConn struct {
	net.Conn
	pings *atomic.Int64
}

func (c countConn) Write(b []byte) (int, error) {
	for rest := b; len(rest) >= headerSize; rest = rest[headerSize:] {
		if rest[1] == typePing && rest[3] == flagSYN {
			c.pings.Add(1)
		}
	}
	return c.Conn.Write(b)
}

// TestOnePingForBoth: the other side's ping keeps a session alive, too. Ten
// thousand idle sessions would otherwise ping twice as often.
func TestOnePingForBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int64
		a, b := net.Pipe()
		sessions(t, countConn{a, &pings}, countConn{b, &pings}, Config{})
		const hours = 24
		time.Sleep(hours * time.Hour)
		most := int64(hours * (time.Hour/(defaultKeepAlive*4/5) + 2*time.Hour/measureEvery))
		if n := pings.Load(); n > most || n == 0 {
			t.Errorf("%d pings in %d hours, want at most %d", n, hours, most)
		}
	})
}

const trip = 123 * time.Millisecond

// peer is the other end of a session, played by the test.
type peer struct{ net.Conn }

// lone makes a client session whose peer does what play says.
func lone(t *testing.T, c Config, play func(peer)) (Session, peer) {
	t.Helper()
	a, b := net.Pipe()
	s, err := Client(a, c)
	if err != nil {
		t.Fatal(err)
	}
	var playing sync.WaitGroup
	playing.Go(func() { play(peer{b}) })
	t.Cleanup(func() {
		s.Close()
		b.Close()
		playing.Wait()
	})
	return s, peer{b}
}

// discard takes everything and answers nothing.
func (p peer) discard() { io.Copy(io.Discard, p) }

// ignore takes nothing.
func (p peer) ignore() {}

// pong answers pings after trip and takes everything else.
func (p peer) pong() {
	head := make([]byte, 12)
	for {
		if _, err := io.ReadFull(p, head); err != nil {
			return
		}
		if head[1] == typePing && head[3] == flagSYN {
			head[3] = flagACK
			time.Sleep(trip)
			p.Write(head)
		}
	}
}

// TestSilentPeer is R8: a peer of which nothing comes is given up within 45 s.
func TestSilentPeer(t *testing.T) {
	for name, play := range map[string]func(p peer){
		"takes everything": peer.discard,
		"takes nothing":    peer.ignore,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				session, _ := lone(t, Config{}, play)
				s, err := session.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrSilent) || errors.Is(err, io.EOF) {
					t.Errorf("read: %v, want ErrSilent", err)
				}
				if d := time.Since(start); d != defaultDeadAfter {
					t.Errorf("given up after %v, want %v", d, defaultDeadAfter)
				}
				<-session.Done()
				for _, want := range []error{ErrSilent, ErrClosed} {
					if err := session.Err(); !errors.Is(err, want) {
						t.Errorf("Err: %v, want %v", err, want)
					}
					checkBroken(t, s, want)
				}
			})
		})
	}
}

// TestSilenceStartsLate: what counts is the time since the last byte.
func TestSilenceStartsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, p := lone(t, Config{}, peer.discard)
		time.Sleep(39 * time.Second)
		start := time.Now()
		write(t, p, "\x00") // not even a frame
		<-session.Done()
		if d := time.Since(start); d != defaultDeadAfter {
			t.Errorf("given up %v after the last byte, want %v", d, defaultDeadAfter)
		}
	})
}

// TestAnyByteIsLife: a peer that is busy sending may be late with its answers.
func TestAnyByteIsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, p := lone(t, Config{}, peer.discard)
		for range 100 {
			time.Sleep(39 * time.Second)
			write(t, p, frame(typeWindow, 0, 99, 0, ""))
		}
		if err := session.Err(); err != nil {
			t.Errorf("given up: %v", err)
		}
	})
}

// TestTakesNothing: a peer that sends and takes no byte ends the session, too.
func TestTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		session, _ := lone(t, Config{}, func(p peer) {
			for {
				if _, err := io.WriteString(p, frame(typeWindow, 0, 99, 0, "")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		<-session.Done()
		if d := time.Since(start); d > writeTimeout {
			t.Errorf("ended after %v, want %v at most", d, writeTimeout)
		}
		if err := session.Err(); !errors.Is(err, ErrClosed) || errors.Is(err, ErrSilent) {
			t.Errorf("Err: %v, want ErrClosed", err)
		}
	})
}

func TestKeepAliveOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, _ := lone(t, Config{KeepAlive: -1}, peer.pong)
		time.Sleep(24 * time.Hour)
		if err := session.Err(); err != nil {
			t.Errorf("the session ended: %v", err)
		}
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, _ := lone(t, Config{KeepAlive: -1}, peer.pong)
		time.Sleep(time.Second) // the session's own first ping is over
		if d, err := session.Ping(t.Context()); d != trip || err != nil {
			t.Errorf("Ping: %v, %v; want %v", d, err, trip)
		}
		if d, err := (func() (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), trip/2)
			defer cancel()
			return session.Ping(ctx)
		})(); d != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping: %v, %v; want the context's error", d, err)
		}
	})
}

// TestPingOutlivesKeepAlive: the session's own pings take no answer from others.
func TestPingOutlivesKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := lone(t, Config{KeepAlive: trip / 2}, peer.pong)
		for range 3 {
			if _, err := s.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
		}
		l := &s.(*session).life
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.asked); n > 1 {
			t.Errorf("%d pings are waited for", n)
		}
	})
}

func TestPingUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, _ := lone(t, Config{}, peer.discard)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := session.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping: %v, want the context's error", err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Ping took %v", d)
		}
		time.AfterFunc(time.Second, func() { session.Close() })
		if _, err := session.Ping(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Ping: %v, want ErrClosed", err)
		}
	})
}

// TestPingFlood: answers to a flood of pings take no memory (S10).
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, p := lone(t, Config{}, peer.ignore)
		synctest.Wait()
		before := runtime.NumGoroutine()
		for id := range uint32(100_000) {
			write(t, p, frame(typePing, flagSYN, 0, id, "")) // and the answers are never read
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines, %d before", n, before)
		}
		if err := session.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestEndedSessionIsForgotten: nothing, and no timer, keeps a session that
// ended in memory (R22). The runtime keeps some stopped timers, but not most.
func TestEndedSessionIsForgotten(t *testing.T) {
	const n = 100
	var all [n]weak.Pointer[session]
	for i := range all {
		a, b := net.Pipe()
		s, err := Client(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		all[i] = weak.Make(s.(*session))
		b.Close()
		<-s.Done()
	}
	poll.Until(t, "ended sessions are forgotten", func() bool {
		runtime.GC()
		kept := 0
		for _, p := range all {
			if p.Value() != nil {
				kept++
			}
		}
		return kept <= n/2
	})
}
