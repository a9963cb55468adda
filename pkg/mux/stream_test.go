package mux

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with a session over a pipe, in fake time.
func bubble(t *testing.T, c Config, f func(t *testing.T, client, server Session)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := sessions(t, a, b, c)
		f(t, client, server)
	})
}

// TestCloseFreesTheWriter closes a stream that the peer still writes to.
func TestCloseFreesTheWriter(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		for _, turn := range []bool{false, true} {
			a, b := streams(t, client, server)
			if turn {
				a, b = b, a
			}
			written := make(chan error, 1)
			go func() {
				_, err := a.Write(make([]byte, 1<<20))
				written <- err
			}()
			checkRead(t, b, "\x00")
			start := time.Now()
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			checkEnd(t, a)
			if err := <-written; !errors.Is(err, ErrReset) {
				t.Errorf("write: %v, want ErrReset", err)
			}
			if d := time.Since(start); d != linger {
				t.Errorf("the writer was freed after %v, want %v", d, linger)
			}
			a.Close()
		}
		synctest.Wait()
		checkForgotten(t, client, server)
	})
}

// TestCloseIsGentle closes a stream whose peer reads what was sent, and then
// ends it: no error is to be seen.
func TestCloseIsGentle(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		a, b := streams(t, client, server)
		write(t, a, "never read")
		write(t, b, "goodbye")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(linger - time.Nanosecond)
		write(t, a, "never read, either")
		checkRead(t, a, "goodbye")
		checkEnd(t, a)
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		synctest.Wait()
		checkForgotten(t, client, server)
		time.Sleep(time.Minute)
		if client.Err() != nil || server.Err() != nil {
			t.Errorf("the session ended: %v, %v", client.Err(), server.Err())
		}
	})
}

// TestSlowReaderSeesTheEnd: the reset that follows a Close takes nothing from
// who reads later.
func TestSlowReaderSeesTheEnd(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		a, b := streams(t, client, server)
		want := strings.Repeat("x", 200_000)
		write(t, b, want)
		b.Close()
		time.Sleep(2 * linger)
		got, err := io.ReadAll(a)
		if string(got) != want || err != nil {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, len(want))
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, ErrReset) {
			t.Errorf("write: %v, want ErrReset", err)
		}
	})
}

// TestCloseWakes closes a stream under a Read and a Write that wait.
func TestCloseWakes(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		s, _ := streams(t, client, server)
		errs := make(chan error, 2)
		go func() {
			_, err := s.Read(make([]byte, 1))
			errs <- err
		}()
		go func() {
			_, err := s.Write(make([]byte, 1<<20))
			errs <- err
		}()
		synctest.Wait()
		start := time.Now()
		s.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a call that was waiting: %v, want net.ErrClosed", err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("woken after %v", d)
		}
		checkBroken(t, s, net.ErrClosed)
		if err := s.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetReadDeadline: %v, want net.ErrClosed", err)
		}
	})
}

// TestReadDeadline checks deadlines against data that waits or comes later:
// a deadline never costs a byte.
func TestReadDeadline(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		a, b := streams(t, client, server)
		read := func(want string, wantErr error, after time.Duration) {
			t.Helper()
			start := time.Now()
			got := make([]byte, 100)
			n, err := b.Read(got)
			if string(got[:n]) != want || err != wantErr || time.Since(start) != after {
				t.Fatalf("read %q, %v after %v; want %q, %v after %v", got[:n], err, time.Since(start), want, wantErr, after)
			}
		}
		past := time.Unix(1, 0)

		b.SetReadDeadline(time.Now().Add(time.Second))
		read("", os.ErrDeadlineExceeded, time.Second)
		read("", os.ErrDeadlineExceeded, 0)
		write(t, a, "early")
		synctest.Wait()
		read("", os.ErrDeadlineExceeded, 0)
		b.SetReadDeadline(time.Now().Add(time.Hour))
		read("early", nil, 0)
		read("", os.ErrDeadlineExceeded, time.Hour)
		b.SetReadDeadline(past)
		read("", os.ErrDeadlineExceeded, 0)
		b.SetDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { io.WriteString(a, "late") })
		read("late", nil, time.Hour)

		// Deadlines that move while a Read waits.
		b.SetReadDeadline(time.Now().Add(time.Second))
		time.AfterFunc(500*time.Millisecond, func() { b.SetReadDeadline(time.Now().Add(time.Minute)) })
		time.AfterFunc(30*time.Second, func() { b.SetReadDeadline(past) })
		read("", os.ErrDeadlineExceeded, 30*time.Second)

		// The time-out is one to net/http, too.
		_, err := b.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no time-out", err)
		}

		b.SetReadDeadline(time.Time{})
		a.CloseWrite()
		synctest.Wait()
		b.SetReadDeadline(past)
		read("", os.ErrDeadlineExceeded, 0)
		b.SetReadDeadline(time.Time{})
		read("", io.EOF, 0)
	})
}

// TestReadersShareAStream: each byte goes to one reader, and the end to all.
func TestReadersShareAStream(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		const readers, size = 4, 1 << 20
		a, b := streams(t, client, server)
		got := make(chan int64)
		for range readers {
			go func() {
				n, err := io.Copy(io.Discard, b)
				if err != nil {
					t.Error(err)
				}
				got <- n
			}()
		}
		for range size >> 10 {
			write(t, a, strings.Repeat("x", 1<<10))
		}
		a.CloseWrite()
		var sum int64
		for range readers {
			sum += <-got
		}
		if sum != size {
			t.Errorf("read %d bytes, want %d", sum, size)
		}
	})
}

func TestWriteDeadline(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, client, server Session) {
		const window = 256 << 10
		a, b := streams(t, client, server)
		sent := strings.Repeat("0123456789", 50_000)
		a.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := a.Write([]byte(sent))
		if n != window || err != os.ErrDeadlineExceeded {
			t.Fatalf("wrote %d, %v; want %d and a time-out", n, err, window)
		}
		if n, err := a.Write([]byte("x")); n != 0 || err != os.ErrDeadlineExceeded {
			t.Fatalf("wrote %d, %v; want a time-out", n, err)
		}
		a.SetDeadline(time.Time{})
		go func() {
			io.WriteString(a, sent[n:])
			a.CloseWrite()
		}()
		got, err := io.ReadAll(b)
		if string(got) != sent || err != nil {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, len(sent))
		}
	})
}

// TestDeadlinesNeverStall has deadlines pass all the time during a large
// transfer: an update of the window that one of them made fail would stall the
// stream for ever.
func TestDeadlinesNeverStall(t *testing.T) {
	const size = 16 << 20
	interrupts := map[string]func(s Stream, stop <-chan struct{}){
		// As net/http's server ends its background read.
		"past": func(s Stream, stop <-chan struct{}) {
			for !stopped(stop) {
				s.SetReadDeadline(time.Unix(1, 0))
				s.SetReadDeadline(time.Time{})
			}
		},
		"soon": func(s Stream, stop <-chan struct{}) {
			for i := 0; !stopped(stop); i++ {
				s.SetReadDeadline(time.Now().Add(time.Duration(i%100) * time.Microsecond))
			}
		},
	}
	for name, interrupt := range interrupts {
		t.Run(name, func(t *testing.T) {
			c, s := tcpConns(t)
			client, server := sessions(t, c, s, Config{})
			a, b := streams(t, client, server)
			go func() {
				a.Write(make([]byte, size))
				a.CloseWrite()
			}()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { interrupt(b, stop) })
			wg.Go(func() {
				defer close(stop)
				n, err := readThrough(b)
				if n != size || err != io.EOF {
					t.Errorf("read %d of %d bytes, then %v", n, size, err)
				}
			})
			wg.Wait()
		})
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// readThrough reads over time-outs to any other error, or until nothing came
// for a minute.
func readThrough(s Stream) (n int, err error) {
	b := make([]byte, 32<<10)
	for last := time.Now(); time.Since(last) < time.Minute; {
		k, err := s.Read(b)
		n += k
		if k > 0 {
			last = time.Now()
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	return n, errors.New("nothing more comes")
}
