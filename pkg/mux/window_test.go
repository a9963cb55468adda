package mux

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestGrowth: all windows together grow as far as they may, and no more.
func TestGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{}
		s.life.shortest.Store(int64(trip))
		var all [20]window
		for i := range all {
			all[i].init(s)
		}
		grow := func() (sum int) {
			for range 1000 {
				time.Sleep(trip / 4)
				for i := range all {
					w := &all[i]
					n := w.credit
					w.arrived(n)
					w.read(n, 0)
				}
			}
			for _, w := range all {
				if w.size > maxWindow {
					t.Errorf("a window of %d bytes", w.size)
				}
				sum += w.size - initialWindow
			}
			return sum
		}
		sum := grow()
		if sum > maxWindows || sum < maxWindows-maxWindow {
			t.Errorf("%d bytes beyond the first windows, want about %d", sum, maxWindows)
		}
		if used := s.growth.used.Load(); used != int64(sum) {
			t.Errorf("%d bytes of growth are used, want %d", used, sum)
		}
		for i := range all {
			all[i].close()
			all[i].close()
		}
		if used := s.growth.used.Load(); used != 0 {
			t.Errorf("%d bytes of growth were not given back", used)
		}
	})
}

// TestWindowNeedsATrip: where it is not known how long the path is, nothing is
// granted beyond the first window.
func TestWindowNeedsATrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{}
		var w window
		w.init(s)
		for range 1000 {
			time.Sleep(trip)
			n := w.credit
			w.arrived(n)
			w.read(n, 0)
		}
		if w.credit != initialWindow || w.size != initialWindow {
			t.Errorf("a window of %d bytes, of which %d are granted", w.size, w.credit)
		}
	})
}

// fast makes a stream on a long path and has one direction of it grow its
// window. b is the reader.
func fast(t *testing.T) (client, server Session, a, b *stream) {
	t.Helper()
	c, s := path{80 * time.Millisecond, 100e6}.conns(t)
	client, server = sessions(t, c, s, Config{})
	x, y := streams(t, client, server)
	a, b = x.(*stream), y.(*stream)
	written := background(a, strings.Repeat("x", 64<<20))
	if _, err := io.CopyN(io.Discard, b, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if used := server.(*session).growth.used.Load(); used < 4<<20 {
		t.Fatalf("the window grew by %d bytes only", used)
	}
	return client, server, a, b
}

// kept is how many bytes wait, and in how much memory.
func (st *stream) kept() (size, memory int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for bl := st.in.first; bl != nil; bl = bl.next {
		memory += len(bl.data)
	}
	return st.in.size, memory
}

// TestReaderBecomesSlow: of a stream that was fast, no more is kept than of any
// other once its reader has become slow (R14).
func TestReaderBecomesSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, server, a, b := fast(t)
		background(a, strings.Repeat("x", 64<<20))
		piece := make([]byte, 8<<10)
		for range 4000 {
			time.Sleep(time.Second / 8)
			if _, err := io.ReadFull(b, piece); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		size, memory := b.kept()
		const block = 8 << 10
		if size > initialWindow || size < initialWindow/2 || memory > initialWindow+2*block {
			t.Errorf("%d bytes wait in %d bytes of memory, want %d at most", size, memory, initialWindow)
		}
		if used := server.(*session).growth.used.Load(); used > initialWindow {
			t.Errorf("%d bytes of growth are used", used)
		}
	})
}

// TestFastThenStalled is the bound of a session: its readers all keep up until
// their windows have grown, on a path as long as the peer likes, and then stop.
func TestFastThenStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3
		c, s := net.Pipe()
		client, server := sessions(t, c, s, Config{KeepAlive: -1})
		synctest.Wait() // the only ping is answered
		server.(*session).life.shortest.Store(int64(trip))
		var all []*stream
		sum := func() (sum int) {
			synctest.Wait()
			for _, st := range all {
				_, memory := st.kept()
				sum += memory
			}
			return sum
		}
		body := strings.Repeat("x", 1<<20)
		for range n {
			a, b := streams(t, client, server)
			all = append(all, b.(*stream))
			go func() {
				for err := error(nil); err == nil; {
					_, err = io.WriteString(a, body)
				}
			}()
		}
		for range 9 {
			time.Sleep(trip)
			sum()
			for _, st := range all {
				waits, _ := st.kept()
				if _, err := io.CopyN(io.Discard, st, int64(waits)); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, most := sum(), maxWindows+n*(initialWindow+2*blockSize)
		t.Logf("%d bytes wait", got)
		if got > most || maxWindows > 24<<20 || got < maxWindow {
			t.Errorf("%d bytes wait, want %d at most, and that windows had grown", got, most)
		}
	})
}

// TestSlowFromTheStart: a reader that takes little is granted little, whatever
// the sizes of its reads.
func TestSlowFromTheStart(t *testing.T) {
	for _, size := range []int{1, 1000, 100_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := path{80 * time.Millisecond, 100e6}.conns(t)
				client, server := sessions(t, c, s, Config{})
				a, b := streams(t, client, server)
				background(a, strings.Repeat("x", 64<<20))
				for range 300 {
					time.Sleep(10 * time.Second)
					if _, err := io.ReadFull(b, make([]byte, size)); err != nil {
						t.Fatal(err)
					}
					if n, memory := b.(*stream).kept(); n > initialWindow || memory > initialWindow+16<<10 {
						t.Fatalf("%d bytes wait in %d of memory, want %d at most", n, memory, initialWindow)
					}
				}
			})
		})
	}
}

// TestGrowthIsGivenBack: however a stream ends, also one that is never closed.
func TestGrowthIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(a, b *stream){
		"closed":            func(_, b *stream) { b.Close() },
		"reset":             func(_, b *stream) { b.Reset() },
		"reset by the peer": func(a, _ *stream) { a.Reset() },
		"ended by the peer": func(a, _ *stream) { a.CloseWrite() },
		"ended by both, then read": func(a, b *stream) {
			io.WriteString(a, strings.Repeat("x", 100_000))
			a.CloseWrite()
			b.CloseWrite()
			time.Sleep(time.Second) // it arrives
			io.Copy(io.Discard, b)
		},
		"ended by the peer, read, reset by the peer": func(a, b *stream) {
			io.WriteString(a, strings.Repeat("x", 100_000))
			a.CloseWrite()
			a.Reset()
			time.Sleep(time.Second)
			io.Copy(io.Discard, b)
		},
		"session": func(a, _ *stream) { a.session.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, server, a, b := fast(t)
				end(a, b)
				time.Sleep(time.Second)
				if used := server.(*session).growth.used.Load(); used != 0 {
					t.Errorf("%d bytes of growth were not given back", used)
				}
			})
		})
	}
}

// TestClosedWhileBytesAreHanded closes a stream between the arrival of bytes and
// the return of the Read that gets them.
func TestClosedWhileBytesAreHanded(t *testing.T) {
	for name, end := range map[string]func(*stream){
		"close": func(st *stream) { st.Close() },
		"reset": func(st *stream) { st.Reset() },
		"abort": func(st *stream) { st.abort(ErrReset) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := net.Pipe()
				s := newSession(c, Config{KeepAlive: -1}, 1)
				defer s.Close()
				s.life.shortest.Store(int64(trip))
				for range 200 {
					o, err := s.Open(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					st := o.(*stream)
					st.window.since = time.Now() // as if it had been read from
					read := make(chan int)
					go func() {
						n, _ := st.Read(make([]byte, 1000))
						read <- n
					}()
					synctest.Wait()
					st.deliver(make([]byte, 1000))
					end(st)
					if n := <-read; n != 1000 && n != 0 {
						t.Fatalf("read %d bytes", n)
					}
				}
				if used := s.growth.used.Load(); used != 0 {
					t.Errorf("%d bytes of growth were not given back", used)
				}
			})
		})
	}
}
