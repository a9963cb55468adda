package mux

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadBufferFollows: the buffer of a session is large while much arrives,
// and small again after a pause or a while of little.
func TestReadBufferFollows(t *testing.T) {
	in := make(chan []byte, 1)
	var idle time.Duration
	small := make([]byte, idleRead)
	r := &reader{src: chunks(in), seen: func() time.Duration { return idle }, buf: small, small: small}
	arrive := func(n int) {
		t.Helper()
		in <- make([]byte, n)
		if err := r.more(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want int) {
		t.Helper()
		if len(r.buf) != want {
			t.Fatalf("a buffer of %d bytes, want %d", len(r.buf), want)
		}
		r.unread = nil
	}
	arrive(idleRead - 1)
	check(idleRead)
	for _, calmly := range []func(){
		func() { idle = pause; arrive(1) },
		func() {
			for range calm {
				arrive(idleRead / 2)
				r.unread = r.unread[:7]
			}
			if len(r.unread) != 7 {
				t.Errorf("%d bytes are unread, want 7", len(r.unread))
			}
		},
	} {
		idle = 0
		arrive(idleRead)
		check(busyRead)
		arrive(busyRead)
		check(busyRead)
		arrive(1)
		check(busyRead)
		calmly()
		check(idleRead)
	}
	r.unread = r.buf
	if err := r.more(); err != io.ErrShortBuffer {
		t.Errorf("reading into a full buffer: %v", err)
	}
}

// chunks is a Reader of which each Read gives one.
type chunks chan []byte

func (c chunks) Read(b []byte) (int, error) {
	p := <-c
	if len(p) > len(b) {
		return 0, errors.New("the buffer is too small")
	}
	return copy(b, p), nil
}

// TestLongFrame: a frame as long as the window, that arrives byte by byte, is not
// read yet: nothing is granted for what is still to come of it.
func TestLongFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, p := slow(t)
		st := opens(t, s, c, 1)[0]
		write(t, p, frame(typeData, 0, 1, initialWindow, "x"))
		granted := func() (sum int) {
			for _, frames := range c.takeAll(t) {
				for _, f := range frames {
					sum += int(f.length)
				}
			}
			return sum
		}
		checkRead(t, st, "x")
		if n := granted(); n != 0 {
			t.Errorf("%d bytes are granted after 1 was read", n)
		}
		rest := strings.Repeat("x", initialWindow-1)
		write(t, p, rest)
		checkRead(t, st, rest)
		if n := granted(); n < initialWindow/2 || n > initialWindow {
			t.Errorf("%d bytes are granted after %d were read", n, initialWindow)
		}
	})
}

// TestTinyFrames: what arrives byte by byte takes no more memory than bytes.
func TestTinyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, p := slow(t)
		st := opens(t, s, c, 1)[0]
		write(t, p, strings.Repeat(data(0, 1, "x")+data(0, 1, ""), 100_000))
		synctest.Wait()
		if size, memory := st.kept(); size != 100_000 || memory > size+16<<10 {
			t.Errorf("%d bytes wait in %d of memory", size, memory)
		}
		checkRead(t, st, strings.Repeat("x", 100_000))
		if _, memory := st.kept(); memory != 0 {
			t.Errorf("%d bytes of memory are kept for nothing", memory)
		}
	})
}

// TestStrangeOrder has a peer send what it should not, or when it should not:
// what is read is what a stream's own order makes of it, and nothing is left.
func TestStrangeOrder(t *testing.T) {
	const open, ack, fin, rst = flagSYN, flagACK, flagFIN, flagRST
	window := func(flags byte) string { return frame(typeWindow, flags, 2, 0, "") }
	for name, c := range map[string]struct {
		sent  string
		later string // when the stream was accepted
		read  string
		want  error // ErrReset with nothing later: it is not accepted
	}{
		"all at once":                {data(open|fin, 2, "body"), "", "body", io.EOF},
		"data after the end":         {window(open) + data(fin, 2, "body") + data(0, 2, "more"), "", "body", io.EOF},
		"an end after the end":       {window(open) + data(fin, 2, "body") + data(fin, 2, "more"), "", "body", io.EOF},
		"a reset after the end":      {window(open) + data(fin, 2, "body") + window(rst), "", "body", io.EOF},
		"an end after a reset":       {window(open), data(0, 2, "body") + window(rst) + window(fin), "", ErrReset},
		"data with a reset":          {window(open), data(rst, 2, "body"), "", ErrReset},
		"an end with a reset":        {window(open), data(fin|rst, 2, "body"), "", ErrReset},
		"taken back":                 {window(open) + data(0, 2, "body") + window(rst) + window(fin), "", "", ErrReset},
		"taken back with data":       {window(open) + data(rst, 2, "body"), "", "", ErrReset},
		"taken back with an end":     {window(open) + data(fin|rst, 2, "body"), "", "", ErrReset},
		"opened and reset":           {data(open|rst, 2, "body"), "", "", ErrReset},
		"opened again after a reset": {window(open|rst) + data(open|fin, 2, "body"), "", "body", io.EOF},
		"accepted, though not ours":  {data(open|ack, 2, "body") + window(ack|fin) + window(ack), "", "body", io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				session, p := lone(t, Config{}, peer.discard)
				write(t, p, c.sent)
				synctest.Wait()
				checkAccounts(t, session)
				if c.want == ErrReset && c.later == "" {
					if n := places(session); n != 0 {
						t.Errorf("%d streams have places", n)
					}
					checkForgotten(t, session)
					return
				}
				st, err := session.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if c.later != "" {
					write(t, p, c.later)
					synctest.Wait()
				}
				got, err := io.ReadAll(st)
				if err == nil {
					err = io.EOF
				}
				if string(got) != c.read || err != c.want {
					t.Errorf("read %q, %v; want %q, %v", got, err, c.read, c.want)
				}
				st.Close()
				write(t, p, window(rst)) // also of the one that came second
				time.Sleep(2 * linger)
				checkAccounts(t, session)
				checkForgotten(t, session)
				if err := session.Err(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// checkAccounts compares what a session counts with what there is.
func checkAccounts(t *testing.T, of Session) {
	t.Helper()
	s := of.(*session)
	s.mu.Lock()
	defer s.mu.Unlock()
	theirs, unaccepted := 0, 0
	for id, st := range s.streams {
		if id%2 != s.nextID%2 {
			theirs++
		}
		if st.unaccepted.Load() {
			unaccepted++
		}
	}
	if s.theirs != theirs || len(s.places) != unaccepted {
		t.Errorf("it counts %d streams of the peer, there are %d; and %d that were not accepted, there are %d",
			s.theirs, theirs, len(s.places), unaccepted)
	}
}

// TestClosedHere: frames for a stream that was closed here cost nothing and
// break nothing.
func TestClosedHere(t *testing.T) {
	for name, end := range map[string]func(Stream){
		"closed": func(st Stream) { st.Close() },
		"reset":  func(st Stream) { st.Reset() },
	} {
		for _, flags := range []byte{0, flagACK, flagFIN, flagRST} {
			t.Run(fmt.Sprint(name, ", flags ", flags), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, c, p := slow(t)
					st := opens(t, s, c, 1)[0]
					end(st)
					c.takeAll(t)
					for range 3 {
						write(t, p, data(flags, 1, "late")+frame(typeWindow, flags, 1, 1000, ""))
					}
					c.takeAll(t)
					if size, _ := st.kept(); size != 0 {
						t.Errorf("%d bytes are kept", size)
					}
					time.Sleep(2 * linger)
					c.takeAll(t)
					checkAccounts(t, s)
					checkForgotten(t, s)
					if s.Err() != nil || len(s.places) != 0 {
						t.Errorf("%v, %d places are taken", s.Err(), len(s.places))
					}
				})
			})
		}
	}
}
