package mux

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sessions is of how many it looks at the streams.
func (b *Budget) sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.shares)
}

// guarded makes a session whose server end shares b.
func guarded(t *testing.T, b *Budget) (client, server Session) {
	t.Helper()
	x, y := net.Pipe()
	return lasting(t, Client, x, Config{}), lasting(t, Server, y, Config{Budget: b})
}

// pile has n bytes wait on a stream from one session to the other.
func pile(t *testing.T, from, to Session, n int) (sender, holder Stream) {
	t.Helper()
	sender, holder = streams(t, from, to)
	background(sender, strings.Repeat("x", n))
	synctest.Wait()
	return sender, holder
}

// checkEvicted fails unless st was reset for what it held.
func checkEvicted(t *testing.T, st Stream) {
	t.Helper()
	checkBroken(t, st, ErrOverBudget)
	checkBroken(t, st, ErrReset)
}

// TestBudgetHitsWhoHoldsMost is R14 and S10 at the multiplexer: one tenant's unread
// bytes cost that tenant its streams, the largest first, and no session; what others hold, and those
// that keep up, are not touched.
func TestBudgetHitsWhoHoldsMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		b := NewBudget(limit)
		good, goodServer := guarded(t, b)
		idle, waiting := pile(t, good, goodServer, 200<<10) // a visitor that is merely slow
		a, echo := streams(t, good, goodServer)
		go io.Copy(echo, onlyReader{echo})

		bad, badServer := guarded(t, b)
		var told atomic.Int32
		_, small := pile(t, bad, badServer, 2*spared-blockSize)
		_, spare := pile(t, bad, badServer, spared)
		var all []Stream
		for i := range 40 {
			if b.Resets() == 0 && b.Used() > limit {
				t.Fatalf("%d bytes are held after %d streams, and nothing happens", b.Used(), i)
			}
			_, st := pile(t, bad, badServer, initialWindow)
			st.OnAbort(func() { told.Add(1) })
			all = append(all, st)
			write(t, a, "ping")
			checkRead(t, a, "ping")
		}
		synctest.Wait()
		if b.Used() > limit || b.Used() < limit/2 {
			t.Errorf("%d bytes are held, want %d at most, and most of that", b.Used(), limit)
		}
		broken := 0
		for _, st := range all {
			if n, _ := st.(*stream).kept(); n == 0 {
				checkEvicted(t, st)
				broken++
			}
		}
		if int64(broken) != b.Resets() || int(told.Load()) != broken || broken < 20 {
			t.Errorf("%d streams were reset, Resets is %d, and %d were told of", broken, b.Resets(), told.Load())
		}
		checkRead(t, small, strings.Repeat("x", 2*spared-blockSize))
		checkRead(t, spare, strings.Repeat("x", spared))
		checkRead(t, waiting, strings.Repeat("x", 200<<10))
		write(t, idle, "more")
		checkRead(t, waiting, "more")
		for _, s := range []Session{good, goodServer, bad, badServer} {
			if s.Err() != nil {
				t.Error(s.Err())
			}
		}
		for _, s := range []Session{good, goodServer, bad, badServer} {
			s.Close()
		}
	})
}

// TestBudgetTellsThePeer: the sender of a stream that was reset sees a reset, and the
// same session opens the next.
func TestBudgetTellsThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := guarded(t, NewBudget(100<<10))
		a, b := streams(t, client, server)
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(a, strings.Repeat("x", 1<<20)); !errors.Is(err, ErrReset) || errors.Is(err, ErrOverBudget) {
			t.Errorf("write: %v, want ErrReset", err)
		}
		checkEvicted(t, b)
		a, b = streams(t, client, server)
		write(t, a, "next")
		checkRead(t, b, "next")
	})
}

// TestBudgetSpares: a little on each of many streams is nobody's fault.
func TestBudgetSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100 << 10)
		client, server := guarded(t, b)
		var all []Stream
		for range 100 {
			_, st := pile(t, client, server, spared/2)
			all = append(all, st)
		}
		if b.Used() < 100*spared/2 || !b.Full() {
			t.Errorf("%d bytes are held, full is %v", b.Used(), b.Full())
		}
		_, st := pile(t, client, server, 2*spared)
		checkEvicted(t, st)
		for _, st := range all {
			checkRead(t, st, strings.Repeat("x", spared/2))
		}
		if b.Used() != 0 || b.Full() {
			t.Errorf("%d bytes are held, full is %v", b.Used(), b.Full())
		}
	})
}

// TestBudgetReachesWhatEnded: what arrived whole waits on streams that have ended in
// both directions, and of sessions that have. It counts, and goes where nothing else
// is larger; its reader is not told of an end.
func TestBudgetReachesWhatEnded(t *testing.T) {
	for name, end := range map[string]func(client Session, a, b Stream){
		"the stream": func(_ Session, a, b Stream) { a.CloseWrite(); b.CloseWrite() },
		"the session": func(client Session, _, _ Stream) {
			client.Close()
		},
		"both": func(client Session, a, b Stream) { a.CloseWrite(); b.CloseWrite(); synctest.Wait(); client.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(1 << 20)
				client, server := guarded(t, b)
				var all []Stream
				for range 3 {
					x, y := pile(t, client, server, initialWindow)
					all = append(all, y)
					end(client, x, y)
					if name == "the session" || name == "both" {
						synctest.Wait()
						client, server = guarded(t, b)
					}
				}
				synctest.Wait()
				if b.Used() < 3*initialWindow || b.Resets() != 0 {
					t.Fatalf("%d bytes are held, %d resets", b.Used(), b.Resets())
				}
				client, server = guarded(t, b)
				for range 3 {
					_, st := pile(t, client, server, 200<<10)
					all = append(all, st)
				}
				if b.Used() > 1<<20 || b.Resets() == 0 {
					t.Errorf("%d bytes are held after %d resets", b.Used(), b.Resets())
				}
				gone := 0
				for i, st := range all[:3] {
					got, err := io.ReadAll(st)
					switch {
					case len(got) == 0 && (errors.Is(err, ErrOverBudget) || errors.Is(err, ErrClosed)):
						gone++
					case len(got) != initialWindow:
						t.Errorf("stream %d: read %d bytes, %v", i, len(got), err)
					}
				}
				if gone == 0 {
					t.Error("nothing of what has ended was dropped")
				}
				for _, st := range all {
					st.Close()
				}
				if b.Used() != 0 || b.sessions() != 0 {
					t.Errorf("%d bytes of %d sessions are not given back", b.Used(), b.sessions())
				}
			})
		})
	}
}

// TestBudgetShrinksWindows: where the process holds much, a window that has grown is small again within a
// few round trips, and none grows.
func TestBudgetShrinksWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := path{80 * time.Millisecond, 100e6}.conns(t)
		b := NewBudget(64 << 20)
		client := lasting(t, Client, c, Config{})
		server := lasting(t, Server, s, Config{Budget: b})
		bulk(t, client, server, 64<<20)
		x, y := streams(t, client, server)
		written := background(x, strings.Repeat("x", 100<<20))
		if _, err := io.CopyN(io.Discard, y, 50<<20); err != nil {
			t.Fatal(err)
		}
		grown := y.(*stream).window.size
		b.used.Add(33 << 20) // as if others held it
		if _, err := io.CopyN(io.Discard, y, 50<<20); err != nil {
			t.Fatal(err)
		}
		b.used.Add(-33 << 20)
		if w := &y.(*stream).window; w.size != initialWindow || grown < 4<<20 {
			t.Errorf("a window of %d bytes, %d before", w.size, grown)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// TestBudgetCounts: what is used is what is kept, and nothing is left however a stream
// ends.
func TestBudgetCounts(t *testing.T) {
	for name, end := range map[string]func(a, b Stream){
		"read": func(a, b Stream) {
			a.CloseWrite()
			io.Copy(io.Discard, b)
		},
		"read in part, closed": func(_, b Stream) {
			b.Read(make([]byte, 50_001))
			b.Close()
		},
		"closed":            func(_, b Stream) { b.Close() },
		"reset":             func(_, b Stream) { b.Reset() },
		"reset by the peer": func(a, _ Stream) { a.Reset() },
		"ended, then reset": func(a, b Stream) {
			a.CloseWrite()
			time.Sleep(time.Second)
			b.Reset()
		},
		"session ended, then read": func(a, b Stream) {
			a.(*stream).session.Close()
			io.Copy(io.Discard, b)
		},
	} {
		for _, size := range []int{1, spared, 2 * spared, 100_000} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					budget := NewBudget(0)
					client, server := guarded(t, budget)
					a, b := pile(t, client, server, size)
					n, _ := b.(*stream).kept()
					if used := int(budget.Used()); n != size || used < size || used > size+2*blockSize {
						t.Errorf("%d bytes are used for %d, of %d", used, n, size)
					}
					end(a, b)
					time.Sleep(time.Second)
					if budget.Used() != 0 || budget.sessions() != 0 || budget.Full() {
						t.Errorf("%d bytes were not given back", budget.Used())
					}
				})
			})
		}
	}
}

// TestNoBudget: a nil one is good for everything.
func TestNoBudget(t *testing.T) {
	var b *Budget
	if b.Used() != 0 || b.Full() || b.Resets() != 0 || b.Limit() != math.MaxInt64 || b.tight() {
		t.Error("a nil Budget has something")
	}
}
