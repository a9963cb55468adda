package mux

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// TestOnAbort tells of the peer's resets and of the session's end, and of
// nothing else.
func TestOnAbort(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(st, peer Stream)
		want    bool
	}{
		"nothing":                       {func(_, _ Stream) {}, false},
		"reset by the peer":             {func(_, p Stream) { p.Reset() }, true},
		"ended and reset by the peer":   {func(_, p Stream) { p.CloseWrite(); p.Reset() }, true},
		"ended here, reset by the peer": {func(st, p Stream) { st.CloseWrite(); p.Reset() }, true},
		"session end":                   {func(st, _ Stream) { st.(*stream).session.Close() }, true},
		"the peer's session end":        {func(_, p Stream) { p.(*stream).session.Close() }, true},
		"ended by the peer, then session end": {func(st, p Stream) {
			p.CloseWrite()
			synctest.Wait()
			st.(*stream).session.Close()
		}, true},
		"ended by the peer": {func(_, p Stream) { p.CloseWrite() }, false},
		"reset here":        {func(st, _ Stream) { st.Reset() }, false},
		"reset here, then session end": {func(st, _ Stream) {
			st.Reset()
			st.(*stream).session.Close()
		}, false},
		"ended by both, then session end": {func(st, p Stream) {
			st.CloseWrite()
			p.CloseWrite()
			synctest.Wait()
			st.(*stream).session.Close()
		}, false},
		"closed by the peer, written to": {func(st, p Stream) {
			p.Close()
			st.Write(make([]byte, 1<<20))
		}, true},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				bubble(t, Config{}, func(t *testing.T, client, server Session) {
					st, p := streams(t, client, server)
					calls := make(chan int, 10)
					stop := func() bool { return false }
					register := func() {
						st.OnAbort(func() { calls <- 1 })
						stop = st.OnAbort(func() { calls <- 2 })
						stopped := st.OnAbort(func() { calls <- 3 })
						if !late && (!stopped() || stopped()) {
							t.Error("stop before anything happened reports that it did not, or did twice")
						}
					}
					if !late {
						register()
					}
					c.happens(st, p)
					synctest.Wait()
					if late {
						register()
						synctest.Wait()
					}
					want := 0
					switch {
					case c.want && late:
						want = 3
					case c.want:
						want = 2
					}
					if n := len(calls); n != want {
						t.Errorf("%d calls, want %d", n, want)
					}
					if c.want && stop() {
						t.Error("stop reports that it took back what was called")
					}
				})
			})
		}
	}
}

// TestDoneComesFirst: whoever reads that the session ended finds it ended, and
// writes nothing more.
func TestDoneComesFirst(t *testing.T) {
	for range 20 {
		bubble(t, Config{}, func(t *testing.T, client, server Session) {
			var reading sync.WaitGroup
			for range 50 {
				st, _ := streams(t, client, server)
				reading.Go(func() {
					st.Read(make([]byte, 1))
					if !stopped(client.Done()) || client.Err() == nil {
						t.Error("a stream is broken, the session is not")
					}
				})
			}
			st, _ := streams(t, client, server)
			reading.Go(func() {
				<-client.Done()
				if _, err := st.Write([]byte("x")); err == nil {
					t.Error("a write after the session's end")
				}
			})
			synctest.Wait()
			server.Close()
			reading.Wait()
		})
	}
}

// TestDeadlineAfterTheEnd: a deadline of a direction that has ended keeps no
// timer, and is no error while the other lives.
func TestDeadlineAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(st, peer Stream){
		"half-closed":       func(st, _ Stream) { st.CloseWrite() },
		"reset by the peer": func(_, p Stream) { p.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, client, server Session) {
				a, b := streams(t, client, server)
				a.SetDeadline(time.Now().Add(time.Hour))
				end(a, b)
				synctest.Wait()
				if err := a.SetDeadline(time.Now().Add(time.Hour)); err != nil {
					t.Errorf("SetDeadline: %v", err)
				}
				a.Close()
				st := a.(*stream)
				if st.writeTime.timer != nil || st.readTime.timer != nil {
					t.Error("a timer runs after Close")
				}
			})
		})
	}
}

// TestAnyOrder does to streams all that can be done to them, in any order and at
// once, at both ends: nothing waits for ever, and nothing is left.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c, s := path{10 * time.Millisecond, 1e6}.conns(t)
			anyOrder(t, seed, c, s, func(...*session) { time.Sleep(time.Hour) })
		})
	}
}

// TestAnyOrderTCP is that in real time, with the writes that do not wait.
func TestAnyOrderTCP(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c, s := tcpConns(t)
			anyOrder(t, seed, c, s, func(all ...*session) {
				poll.Until(t, "nothing is left", func() bool {
					for _, s := range all {
						if s.count() > 0 || len(s.places) > 0 || s.growth.used.Load() > 0 {
							return false
						}
					}
					return true
				})
			})
		})
	}
}

// anyOrder does it over one connection; settle waits until all is over.
func anyOrder(t *testing.T, seed uint64, c, s net.Conn, settle func(...*session)) {
	budget := NewBudget(128 << 10 << (seed % 4 * 4)) // the first of which is too small
	client, server := sessions(t, c, s, Config{Budget: budget})
	all := []Session{client, server}
	var accepting, opening, acting sync.WaitGroup
	for i, one := range all {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		accepting.Go(func() {
			for {
				st, err := one.Accept()
				if err != nil {
					return
				}
				s := random.Uint64()
				acting.Go(func() { act(st, s) })
			}
		})
		seeds := rand.New(rand.NewPCG(seed, uint64(i)+2))
		for range 30 {
			s := seeds.Uint64()
			opening.Go(func() {
				st, err := one.Open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				act(st, s)
			})
		}
	}
	opening.Wait()
	settle(client.(*session), server.(*session))
	for _, one := range all {
		s := one.(*session)
		checkAccounts(t, s)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		if n, used := s.count(), s.growth.used.Load(); n != 0 || len(s.places) != 0 || used != 0 {
			t.Errorf("seed %d: %d streams, %d places and %d bytes are kept", seed, n, len(s.places), used)
		}
	}
	client.Close()
	server.Close()
	accepting.Wait()
	acting.Wait()
	if budget.Used() != 0 || budget.sessions() != 0 {
		t.Errorf("seed %d: %d bytes of %d sessions are not given back", seed, budget.Used(), budget.sessions())
	}
}

// act does random things to st and closes it.
func act(st Stream, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	// One at a time: a bubble's time does not pass where a Mutex is waited for.
	reading, writing := make(chan struct{}, 1), make(chan struct{}, 1)
	alone := func(turn chan struct{}, f func()) {
		turn <- struct{}{}
		f()
		<-turn
	}
	var acts sync.WaitGroup
	for range 1 + random.IntN(6) {
		pause := time.Duration(random.IntN(200)) * time.Millisecond
		size := random.IntN(1 << random.IntN(20))
		act := []func(){
			func() { alone(writing, func() { st.Write(make([]byte, size)) }) },
			func() { alone(writing, func() { st.Write(make([]byte, size)) }) },
			func() { alone(reading, func() { st.Read(make([]byte, size)) }) },
			func() { alone(reading, func() { io.CopyN(io.Discard, st, int64(size)) }) },
			func() { st.CloseWrite() },
			func() { st.Reset() },
			func() { st.SetDeadline(time.Now().Add(pause / 2)) },
			func() { st.SetDeadline(time.Time{}) },
			func() { defer st.OnAbort(func() { st.Reset() })() },
			func() { st.Close() },
		}[random.IntN(10)]
		acts.Go(func() {
			time.Sleep(pause)
			act()
		})
	}
	time.Sleep(time.Second)
	st.Close()
	acts.Wait()
}
