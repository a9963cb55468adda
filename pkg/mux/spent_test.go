package mux

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lasting starts one end of a session, until the test ends.
func lasting(t testing.TB, start func(net.Conn, Config) (Session, error), conn net.Conn, c Config) Session {
	t.Helper()
	s, err := start(conn, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestIDsRunOut is the multiplexer's half of R24: the layer above is told in time, the
// last streams work as the first, and what is opened after them is refused at once,
// while the session lives.
func TestIDsRunOut(t *testing.T) {
	for all, toldAt := range map[int]int{1: 1, 2: 2, 7: 7, 8: 7, 16: 14, 100: 88} {
		t.Run(fmt.Sprint(all), func(t *testing.T) {
			var told atomic.Int32
			synctest.Test(t, func(t *testing.T) {
				x, y := net.Pipe()
				client := lasting(t, Client, x, Config{})
				server := lasting(t, Server, y, Config{MaxOpened: all, Spent: func() { told.Add(1) }})
				for i := range all {
					a, b := streams(t, server, client)
					write(t, a, "x")
					checkRead(t, b, "x")
					a.Close()
					b.Close()
					synctest.Wait()
					if want := i+1 >= toldAt; (told.Load() == 1) != want {
						t.Fatalf("told %d times after %d of %d", told.Load(), i+1, all)
					}
				}
				for range 3 {
					if _, err := server.Open(t.Context()); !errors.Is(err, ErrExhausted) || errors.Is(err, ErrClosed) {
						t.Errorf("Open: %v, want ErrExhausted", err)
					}
				}
				a, b := streams(t, client, server) // the other side has all of its own
				write(t, a, "still here")
				checkRead(t, b, "still here")
				synctest.Wait()
				if told.Load() != 1 || server.Err() != nil {
					t.Errorf("told %d times; %v", told.Load(), server.Err())
				}
				server.Close()
				if _, err := server.Open(t.Context()); !errors.Is(err, ErrClosed) {
					t.Errorf("Open: %v, want ErrClosed", err)
				}
			})
		})
	}
}

// TestExhaustedDoesNotWait: neither an Open that comes late nor one that waits for a
// place waits longer than until the last stream is opened.
func TestExhaustedDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := lone(t, Config{MaxOpened: maxUnaccepted + 1}, peer.discard)
		for range maxUnaccepted {
			if _, err := s.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		opened := make(chan error, 2)
		for range cap(opened) {
			go func() {
				_, err := s.Open(t.Context())
				opened <- err
			}()
		}
		synctest.Wait()
		for id := range uint32(2) {
			write(t, p, frame(typeWindow, flagACK, 2*id+1, 0, ""))
		}
		first, second := <-opened, <-opened
		if first == nil {
			first, second = second, first
		}
		if !errors.Is(first, ErrExhausted) || second != nil {
			t.Errorf("Open: %v and %v, want ErrExhausted and one stream", first, second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for len(s.(*session).places) < maxUnaccepted {
			s.(*session).places <- struct{}{}
		}
		if _, err := s.Open(ctx); !errors.Is(err, ErrExhausted) {
			t.Errorf("Open: %v, want ErrExhausted at once", err)
		}
	})
}

// TestLastID opens the streams with the last ids that there are.
func TestLastID(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		for _, way := range [][2]Session{{client, server}, {server, client}} {
			s := way[0].(*session)
			s.mu.Lock()
			s.openings = maxOpened - 2
			s.nextID += 2 * (maxOpened - 2)
			s.mu.Unlock()
			for range 2 {
				a, b := streams(t, way[0], way[1])
				if id := a.(*stream).id; id < math.MaxUint32-4 || id%2 != s.nextID%2 {
					t.Errorf("stream %d", id)
				}
				write(t, a, "x")
				checkRead(t, b, "x")
				a.Close()
				b.Close()
			}
			if _, err := s.Open(t.Context()); !errors.Is(err, ErrExhausted) {
				t.Errorf("Open: %v, want ErrExhausted", err)
			}
		}
		checkForgotten(t, client, server)
	})
}
