package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/rig/poll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipeConns is a connection within this process; a write waits for its read.
func pipeConns(testing.TB) (client, server net.Conn) { return net.Pipe() }

// tcpConns is a connection over the loopback interface.
func tcpConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// sessions makes both ends of a session over client and server.
func sessions(t testing.TB, client, server net.Conn, c Config) (Session, Session) {
	t.Helper()
	cs, err := Client(client, c)
	if err != nil {
		t.Fatal(err)
	}
	ss, err := Server(server, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cs.Close()
		ss.Close()
	})
	return cs, ss
}

// count is how many streams there are.
func (s *session) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// both runs f over each kind of connection.
func both(t *testing.T, f func(t *testing.T, client, server Session)) {
	for name, conns := range map[string]func(testing.TB) (net.Conn, net.Conn){"pipe": pipeConns, "tcp": tcpConns} {
		t.Run(name, func(t *testing.T) {
			c, s := conns(t)
			cs, ss := sessions(t, c, s, Config{})
			f(t, cs, ss)
		})
	}
}

// streams opens a stream from one session to the other.
func streams(t testing.TB, from, to Session) (opened, accepted Stream) {
	t.Helper()
	opened, err := from.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = to.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return opened, accepted
}

// checkRead reads len(want) bytes.
func checkRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

func checkEnd(t testing.TB, r io.Reader) {
	t.Helper()
	for range 2 { // an end stays one
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("read %d bytes, %v; want io.EOF", n, err)
		}
	}
}

func write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(s), err)
	}
}

// checkBroken reads and writes: both give want, and never io.EOF.
func checkBroken(t testing.TB, s Stream, want error) {
	t.Helper()
	for range 2 {
		if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) || errors.Is(err, io.EOF) {
			t.Errorf("read %d bytes, %v; want %v", n, err, want)
		}
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, want) || errors.Is(err, io.EOF) {
		t.Errorf("write: %v; want %v", err, want)
	}
}

func TestEcho(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		for _, way := range [][2]Session{{client, server}, {server, client}} {
			a, b := streams(t, way[0], way[1])
			write(t, a, "ping")
			checkRead(t, b, "ping")
			write(t, b, "pong")
			checkRead(t, a, "pong")
			if n, err := a.Read(nil); n != 0 || err != nil {
				t.Errorf("a Read of nothing: %d, %v", n, err)
			}
			if err := errors.Join(a.Close(), b.Close(), a.Close()); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if client.Err() != nil || server.Err() != nil {
			t.Errorf("errors of a session that lives: %v, %v", client.Err(), server.Err())
		}
	})
}

func TestAddresses(t *testing.T) {
	c, s := tcpConns(t)
	client, server := sessions(t, c, s, Config{})
	a, b := streams(t, client, server)
	for _, got := range []net.Addr{a.LocalAddr(), b.RemoteAddr(), server.RemoteAddr()} {
		if got.String() != c.LocalAddr().String() {
			t.Errorf("address %v, want the connection's %v", got, c.LocalAddr())
		}
	}
}

// TestHalfClose has each side end its writing first and still read (R16).
func TestHalfClose(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		for _, turn := range []bool{false, true} {
			a, b := streams(t, client, server)
			if turn {
				a, b = b, a
			}
			write(t, a, "question")
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after CloseWrite: %v, want net.ErrClosed", err)
			}
			checkRead(t, b, "question")
			checkEnd(t, b)
			long := make([]byte, 1<<20)
			go func() {
				b.Write(long)
				b.CloseWrite()
			}()
			got, err := io.ReadAll(a)
			if len(got) != len(long) || err != nil {
				t.Errorf("%d bytes and %v after the other direction's end, want %d", len(got), err, len(long))
			}
			checkEnd(t, a)
			a.Close()
			b.Close()
		}
	})
}

func TestReset(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		for _, turn := range []bool{false, true} {
			for _, unread := range []string{"", "data that is on the way"} {
				a, b := streams(t, client, server)
				if turn {
					a, b = b, a
				}
				write(t, a, unread)
				reading := make(chan error, 1)
				if unread == "" {
					go func() {
						_, err := b.Read(make([]byte, 1))
						reading <- err
					}()
				}
				if err := a.Reset(); err != nil {
					t.Fatal(err)
				}
				if unread == "" {
					if err := <-reading; !errors.Is(err, ErrReset) || errors.Is(err, io.EOF) {
						t.Errorf("a Read that was waiting: %v, want ErrReset", err)
					}
				} else {
					poll.Until(t, "the reset arrives", func() bool { return reset(b) })
				}
				checkBroken(t, a, ErrReset)
				checkBroken(t, b, ErrReset)
				a.Close()
				b.Close()
			}
		}
	})
}

// reset says whether writing to s is an error already, without reading.
func reset(s Stream) bool {
	_, err := s.Write([]byte("x"))
	return errors.Is(err, ErrReset)
}

// TestResetWakesTheWriter resets a stream whose writer waits for the reader.
func TestResetWakesTheWriter(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		for _, byReader := range []bool{false, true} {
			a, b := streams(t, client, server)
			written := make(chan error, 1)
			go func() {
				_, err := a.Write(make([]byte, 1<<20))
				written <- err
			}()
			checkRead(t, b, "\x00")
			if byReader {
				b.Reset()
			} else {
				a.Reset()
			}
			if err := <-written; !errors.Is(err, ErrReset) {
				t.Errorf("write: %v, want ErrReset", err)
			}
		}
	})
}

// TestManyStreams sends bodies of many sizes both ways at once and compares
// their checksums.
func TestManyStreams(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		const n = 1000
		serving := make(chan struct{})
		go func() {
			defer close(serving)
			var wg sync.WaitGroup
			defer wg.Wait()
			for range n {
				s, err := server.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				wg.Go(func() {
					io.Copy(s, s)
					s.Close()
				})
			}
		}()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if err := exchange(t.Context(), client, i*i%50000); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		<-serving
		checkForgotten(t, client, server)
	})
}

// exchange sends size random bytes to an echo and checks what comes back.
func exchange(ctx context.Context, s Session, size int) error {
	st, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	sent := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := st.Write(sent)
		written <- errors.Join(err, st.CloseWrite())
	}()
	h := sha256.New()
	n, err := io.Copy(h, st)
	if err := errors.Join(err, <-written); err != nil {
		return err
	}
	if sum := sha256.Sum256(sent); !bytes.Equal(h.Sum(nil), sum[:]) {
		return fmt.Errorf("%d bytes came back, other than the %d that were sent", n, size)
	}
	return nil
}

// checkForgotten fails if a session keeps streams that have ended.
func checkForgotten(t testing.TB, all ...Session) {
	t.Helper()
	poll.Until(t, "streams that ended are forgotten", func() bool {
		for _, s := range all {
			if s.(*session).count() != 0 {
				return false
			}
		}
		return true
	})
}

// TestWritersShareAStream: two Writes at once must not overrun the window.
func TestWritersShareAStream(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		const writers, each = 8, 2 << 20
		a, b := streams(t, client, server)
		b.SetReadDeadline(time.Now().Add(time.Minute))
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				if n, err := a.Write(make([]byte, each)); n != each || err != nil {
					t.Errorf("wrote %d: %v", n, err)
				}
			})
		}
		go func() {
			wg.Wait()
			a.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, b); n != writers*each || err != nil {
			t.Errorf("read %d, %v; want %d", n, err, writers*each)
		}
		wg.Wait()
	})
}

func TestMaxStreams(t *testing.T) {
	c, s := tcpConns(t)
	client, err := Client(c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := Server(s, Config{MaxStreams: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	var open [3][2]Stream
	for i := range open {
		open[i][0], open[i][1] = streams(t, client, server)
	}
	more, err := client.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkBroken(t, more, ErrReset)
	for _, o := range open {
		write(t, o[0], "still here")
		checkRead(t, o[1], "still here")
	}
	open[0][0].Close()
	open[0][1].Close()
	poll.Until(t, "the place is free", func() bool { return server.(*session).count() == 2 })
	a, b := streams(t, client, server)
	write(t, a, "in its place")
	checkRead(t, b, "in its place")
}

// places is how many streams wait to be accepted.
func places(s Session) int {
	s.(*session).mu.Lock()
	defer s.(*session).mu.Unlock()
	return len(s.(*session).accepted)
}

// TestTakenBack: streams that are reset before the peer has accepted them take no
// place from those that come after.
func TestTakenBack(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		for range 4 * maxUnaccepted {
			st, err := client.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			write(t, st, "never mind")
			st.Reset()
		}
		if _, err := client.Ping(t.Context()); err != nil { // it comes after them
			t.Fatal(err)
		}
		a, b := streams(t, client, server)
		write(t, a, "served")
		checkRead(t, b, "served")
	})
}

// TestOpenWaits: a peer that accepts nothing holds Open up, until ctx ends.
func TestOpenWaits(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		const backlog = 256
		for range backlog {
			if _, err := client.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error, 1)
		go func() {
			_, err := client.Open(ctx)
			waiting <- err
		}()
		for range 100 {
			short, cancel := context.WithCancel(t.Context())
			go cancel()
			if _, err := client.Open(short); !errors.Is(err, context.Canceled) {
				t.Fatalf("Open: %v, want context.Canceled", err)
			}
		}
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Fatalf("Open: %v, want context.Canceled", err)
		}
		if _, err := server.Accept(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Open(t.Context()); err != nil {
			t.Fatalf("Open after an Accept: %v", err)
		}
		poll.Until(t, "only opened streams are kept", func() bool {
			return client.(*session).count() == backlog+1
		})
	})
}

// TestOpenGivenUp: while the connection takes no bytes, an Open that was
// cancelled must leave nothing behind.
func TestOpenGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, err := Client(c, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		opened, givenUp := 0, 0
		for range 300 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			switch _, err := client.Open(ctx); {
			case err == nil:
				opened++
			case errors.Is(err, context.DeadlineExceeded):
				givenUp++
			default:
				t.Fatal(err)
			}
			cancel()
		}
		if opened == 0 || givenUp == 0 {
			t.Fatalf("%d opened, %d given up", opened, givenUp)
		}
		server, err := Server(s, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			for {
				if _, err := server.Accept(); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := client.(*session).count(); n != opened {
			t.Errorf("%d streams are kept, %d were opened", n, opened)
		}
	})
}
