package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowConn is a connection on which each Write waits until the test takes it.
type slowConn struct {
	net.Conn // of a pipe: what the peer sends
	writes   chan string
	closed   chan struct{}
	close    sync.Once

	mu        sync.Mutex
	deadlines []time.Time
}

func (c *slowConn) Write(b []byte) (int, error) {
	select {
	case c.writes <- string(b):
		return len(b), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *slowConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *slowConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines = append(c.deadlines, t)
	return nil
}

// slow makes a client session over a slowConn, whose first Write, a ping, is
// still to be taken.
func slow(t *testing.T) (*session, *slowConn, peer) {
	t.Helper()
	a, b := net.Pipe()
	c := &slowConn{Conn: a, writes: make(chan string), closed: make(chan struct{})}
	s, err := Client(c, Config{KeepAlive: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		b.Close()
	})
	synctest.Wait()
	return s.(*session), c, peer{b}
}

// take lets the connection take one Write and returns its frames.
func (c *slowConn) take(t *testing.T) (frames []sentFrame) {
	t.Helper()
	synctest.Wait() // so that a Write is under way, if any
	select {
	case b := <-c.writes:
		frames = parse(t, b)
	default:
		t.Fatal("nothing is written")
	}
	synctest.Wait()
	return frames
}

// takeAll takes until nothing more is written.
func (c *slowConn) takeAll(t *testing.T) (writes [][]sentFrame) {
	t.Helper()
	for synctest.Wait(); ; synctest.Wait() {
		select {
		case b := <-c.writes:
			writes = append(writes, parse(t, b))
		default:
			return writes
		}
	}
}

type sentFrame struct {
	header
	body string
}

func parse(t *testing.T, b string) (frames []sentFrame) {
	t.Helper()
	for len(b) > 0 {
		h, ok := parseHeader([]byte(b))
		if !ok {
			t.Fatalf("no frame: %q", b[:headerSize])
		}
		f := sentFrame{header: h}
		b = b[headerSize:]
		if h.kind == typeData {
			f.body, b = b[:h.length], b[h.length:]
		}
		frames = append(frames, f)
	}
	return frames
}

func (f sentFrame) String() string {
	return fmt.Sprintf("type %d flags %d stream %d length %d", f.kind, f.flags, f.id, f.length)
}

// opens opens n streams and has their openings sent.
func opens(t *testing.T, s *session, c *slowConn, n int) []*stream {
	t.Helper()
	all := make([]*stream, n)
	for i := range all {
		st, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = st.(*stream)
	}
	c.takeAll(t)
	return all
}

// background writes and tells the end of it.
func background(w io.Writer, body string) <-chan error {
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(w, body)
		written <- err
	}()
	return written
}

// TestFewWrites: what many streams write while the connection is busy leaves in
// one write, whole.
func TestFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		all := opens(t, s, c, 100)
		write(t, all[0], "first")
		synctest.Wait()
		for i, st := range all {
			write(t, st, fmt.Sprint("small ", i)) // returns at once
		}
		writes := c.takeAll(t)
		if len(writes) != 2 || len(writes[0]) != 1 || len(writes[1]) != len(all) {
			t.Fatalf("%d writes, want one of 1 frame and one of %d: %v", len(writes), len(all), writes)
		}
		for i, f := range writes[1] {
			if want := fmt.Sprint("small ", i); f.id != all[i].id || f.body != want {
				t.Errorf("frame %v %q, want %q", f, f.body, want)
			}
		}
	})
}

// TestIdleSession costs one goroutine, and no buffer.
func TestIdleSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := goroutines()
		s, c, p := slow(t)
		st := opens(t, s, c, 1)[0]
		written := background(st, strings.Repeat("x", 200_000))
		c.takeAll(t)
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		write(t, p, data(0, 1, strings.Repeat("y", 100_000)))
		checkRead(t, st, strings.Repeat("y", 100_000))
		c.takeAll(t)
		if n := goroutines() - before; n != 1 {
			t.Errorf("%d goroutines, want 1", n)
		}
		s.out.mu.Lock()
		defer s.out.mu.Unlock()
		if s.out.queue != nil || s.out.line != nil || st.rest != nil || st.in.first != nil {
			t.Errorf("kept: a queue of %d bytes, a line of %d, an inbox of %d", cap(s.out.queue), cap(s.out.line), st.in.size)
		}
	})
}

// goroutines counts those of the caller's bubble.
func goroutines() int {
	b := make([]byte, 1<<20)
	all := string(b[:runtime.Stack(b, true)])
	_, bubble, _ := strings.Cut(all, "synctest bubble ")
	bubble, _, _ = strings.Cut(bubble, "]")
	return strings.Count(all, "synctest bubble "+bubble+"]")
}

// TestSmallPassesBulk: a small message waits for the batch that the connection
// takes, and for no more.
func TestSmallPassesBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		all := opens(t, s, c, 3)
		for _, st := range all[:2] {
			background(st, strings.Repeat("x", 200_000))
		}
		c.take(t)
		write(t, all[2], "small")
		for i, want := range []bool{false, true} {
			frames := c.take(t)
			if got := frames[0].body == "small"; got != want {
				t.Errorf("write %d begins with %v", i, frames[0])
			}
		}
	})
}

// TestTurns: streams that send as much as they can send as much as each other,
// also where what is small always leaves them a part of the last frame.
func TestTurns(t *testing.T) {
	for _, small := range []int{0, 1, 8 << 10, maxFrame - headerSize, 40_000} {
		for _, streams := range []int{2, 3, 4, 5, 9} {
			t.Run(fmt.Sprintf("%d beside %d bytes", streams, small), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { takeTurns(t, streams, small) })
			})
		}
	}
}

func takeTurns(t *testing.T, streams, small int) {
	s, c, _ := slow(t)
	all := opens(t, s, c, streams+1)
	for _, st := range all {
		st.grant(1 << 30)
	}
	for _, st := range all[1:] {
		background(st, strings.Repeat("x", 8<<20))
	}
	c.take(t) // the first stream had it for itself
	sent := make(map[uint32]int)
	for range 100 {
		for n := small; n > 0; n -= maxFrame - headerSize {
			write(t, all[0], strings.Repeat("s", min(n, maxFrame-headerSize)))
		}
		for _, f := range c.take(t) {
			sent[f.id] += len(f.body)
		}
	}
	least, most := sent[all[1].id], sent[all[1].id]
	for _, st := range all[1:] {
		least, most = min(least, sent[st.id]), max(most, sent[st.id])
	}
	if most-least > 2*maxFrame {
		t.Errorf("sent between %d and %d bytes: %v", least, most, sent)
	}
}

// TestOpeningTravelsWithData: an opening that had to wait goes with what follows
// it; and what was reset before is not opened at all.
func TestOpeningTravelsWithData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		var all [4]Stream
		for i := range all {
			var err error
			if all[i], err = s.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		written := background(all[0], "hello")
		all[1].CloseWrite()
		all[2].Reset()
		synctest.Wait()
		c.take(t) // the ping
		if err := <-written; err != nil {
			t.Error(err)
		}
		want := []sentFrame{
			{header{typeWindow, flagSYN | flagFIN, 3, 0}, ""},
			{header{typeData, flagSYN, 1, 5}, "hello"},
			{header{typeWindow, flagSYN, 7, 0}, ""},
		}
		if got := c.takeAll(t); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) || got[0][1].body != "hello" {
			t.Errorf("sent %v, want %v", got, want)
		}
	})
}

// TestLineForgets: what was opened and reset while the connection is stalled is
// not kept.
func TestLineForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		first, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 10_000 {
			st, err := s.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			st.Reset()
		}
		s.out.mu.Lock()
		n := len(s.out.line)
		s.out.mu.Unlock()
		if n > 100 {
			t.Errorf("%d streams in line", n)
		}
		if len(s.places) != 1 || s.count() != 1 {
			t.Errorf("%d places taken and %d streams kept, want 1", len(s.places), s.count())
		}
		background(first, "x")
		c.take(t)
		if got := c.takeAll(t); len(got) != 1 || len(got[0]) != 1 || got[0][0].body != "x" {
			t.Errorf("sent %v, want one frame", got)
		}
	})
}

// TestWriteDeadlineOfAStalledConn: a deadline ends a Write that is larger than
// everything, and what it says was written arrives, and no more.
func TestWriteDeadlineOfAStalledConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		st := opens(t, s, c, 1)[0]
		body := strings.Repeat("0123456789", 100_000)
		st.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		n, err := st.Write([]byte(body))
		if err != os.ErrDeadlineExceeded || time.Since(start) != time.Second {
			t.Fatalf("wrote %d, %v after %v; want a time-out", n, err, time.Since(start))
		}
		got := ""
		arrive := func() {
			for _, frames := range c.takeAll(t) {
				for _, f := range frames {
					got += f.body
				}
			}
		}
		arrive()
		if n == 0 || got != body[:n] {
			t.Errorf("sent %d bytes, %d were written", len(got), n)
		}
		st.SetWriteDeadline(time.Time{})
		st.grant(1 << 30)
		written := background(st, body[n:])
		arrive()
		if err := <-written; err != nil || got != body {
			t.Errorf("sent %d of %d bytes, %v", len(got), len(body), err)
		}
	})
}

// TestWaitingWrite ends a Write that waits for a stalled connection.
func TestWaitingWrite(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *session, st *stream, p peer)
		want error
	}{
		"closed":      {func(_ *session, st *stream, _ peer) { st.Close() }, net.ErrClosed},
		"half-closed": {func(_ *session, st *stream, _ peer) { st.CloseWrite() }, net.ErrClosed},
		"reset":       {func(_ *session, st *stream, _ peer) { st.Reset() }, ErrReset},
		"deadline":    {func(_ *session, st *stream, _ peer) { st.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"peer resets": {func(_ *session, _ *stream, p peer) { io.WriteString(p, frame(typeWindow, flagRST, 1, 0, "")) }, ErrReset},
		"session":     {func(s *session, _ *stream, _ peer) { s.Close() }, ErrClosed},
		"connection":  {func(_ *session, _ *stream, p peer) { p.Close() }, ErrClosed},
	} {
		for _, opening := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, opening %v", name, opening), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, conn, p := slow(t)
					if !opening {
						conn.take(t) // the ping
					}
					o, err := s.Open(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					written := background(o, strings.Repeat("x", 1<<20))
					synctest.Wait()
					start := time.Now()
					c.end(s, o.(*stream), p)
					if err := <-written; !errors.Is(err, c.want) {
						t.Errorf("write: %v, want %v", err, c.want)
					}
					if d := time.Since(start); d != 0 {
						t.Errorf("woken after %v", d)
					}
				})
			})
		}
	}
}

// failingConn is a connection that takes n writes.
type failingConn struct {
	net.Conn
	n int
}

func (c *failingConn) Write(b []byte) (int, error) {
	if c.n--; c.n < 0 {
		return len(b) / 2, errors.New("no route to host")
	}
	return len(b), nil
}

// TestFailedWrite ends the session, with its cause.
func TestFailedWrite(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s, err := Client(&failingConn{a, 2}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(make([]byte, 1<<20)); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v, want ErrClosed", err)
	}
	<-s.Done()
	if err := s.Err(); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("Err: %v", err)
	}
	checkBroken(t, st, ErrClosed)
}

// shortConn takes half of what it is given and says that all is well.
type shortConn struct{ net.Conn }

func (c shortConn) Write(b []byte) (int, error) { return len(b) / 2, nil }

// TestShortWrite: a connection that breaks the rules of io.Writer ends the session, or
// the peer would take what comes next for something else.
func TestShortWrite(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := lasting(t, Client, shortConn{a}, Config{})
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the session goes on")
	}
	if err := s.Err(); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), io.ErrShortWrite.Error()) {
		t.Errorf("Err: %v", err)
	}
}

// TestWriteTimeoutIsRefreshed: each write of the connection has time, and the
// deadline is not set for each.
func TestWriteTimeoutIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := slow(t)
		st := opens(t, s, c, 1)[0]
		for range 1000 {
			time.Sleep(time.Second)
			write(t, st, "x")
			synctest.Wait()
			c.mu.Lock()
			last := c.deadlines[len(c.deadlines)-1]
			c.mu.Unlock()
			if left := time.Until(last); left < writeTimeout-writeSlack || left > writeTimeout {
				t.Fatalf("a write has %v, want about %v", left, writeTimeout)
			}
			c.take(t)
			st.grant(1)
		}
		if n := len(c.deadlines); n > 100 {
			t.Errorf("the deadline was set %d times in 1000 writes", n)
		}
	})
}

// TestRefusedFlood: a peer that opens what it may not, and takes no answers,
// ends its session before they take much memory (S10).
func TestRefusedFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p := slow(t)
		s.most = 1
		n := 0
		for id := uint32(2); s.Err() == nil && n < 1e6; id += 2 {
			io.WriteString(p, frame(typeWindow, flagSYN, id, 0, ""))
			n++
		}
		if limit := maxAnswers + 1000; n > limit {
			t.Errorf("ended after %d refused streams, want at most %d", n, limit)
		}
		if err := s.Err(); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), errFlood.Error()) {
			t.Errorf("Err: %v", err)
		}
	})
}

// TestPongsAreBounded: of a flood of pings that comes within one write, some are
// answered, and pings alone end no session.
func TestPongsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, p := slow(t)
		for range 2 {
			flood := strings.Repeat(frame(typePing, flagSYN, 0, 7, ""), 50_000)
			write(t, p, flood)
		}
		c.take(t)
		frames := c.take(t)
		if len(frames) != maxPongs || frames[0].kind != typePing || frames[0].flags != flagACK || frames[0].length != 7 {
			t.Errorf("%d answers, want %d; the first is %v", len(frames), maxPongs, frames[0])
		}
		write(t, p, frame(typePing, flagSYN, 0, 8, ""))
		if frames := c.take(t); len(frames) != 1 || frames[0].length != 8 {
			t.Errorf("the answer to a ping after the flood: %v", frames)
		}
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestGrantsAdd: however much the peer grants, it is as if it had granted a lot.
func TestGrantsAdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, p := slow(t)
		st := opens(t, s, c, 1)[0]
		for _, n := range []uint32{1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1<<32 - 1, 1<<31 + 3} {
			b := frame(typeWindow, 0, 1, 0, "")
			write(t, p, b[:8]+string(binary.BigEndian.AppendUint32(nil, n)))
			synctest.Wait()
			s.out.mu.Lock()
			if st.credit < initialWindow || int32(st.credit) < 0 {
				t.Errorf("credit %d after a grant of %d", st.credit, n)
			}
			s.out.mu.Unlock()
		}
		written := background(st, strings.Repeat("x", 1<<20))
		c.takeAll(t)
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}
