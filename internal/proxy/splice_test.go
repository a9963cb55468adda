package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"
)

// spliced is a splice between two TCP connections, and their other ends.
type spliced struct {
	visitor, app *net.TCPConn
	ending       chan struct{} // closed when the visitor was sent the app's end
	wrote        chan error    // what came of a write to the app, of those that are taken
	done         chan struct{}
}

// splicing begins one.
func splicing(t *testing.T) *spliced {
	t.Helper()
	visitor, a := pair(t)
	app, b := pair(t)
	s := &spliced{visitor: visitor, app: app, done: make(chan struct{})}
	s.ending, s.wrote = make(chan struct{}), make(chan error, 1)
	for _, c := range []*net.TCPConn{visitor, app} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	go func() {
		defer close(s.done)
		Splice(ending{a, s.ending}, telling{b, s.wrote}, nil)
	}()
	t.Cleanup(func() {
		visitor.Close()
		app.Close()
		<-s.done
	})
	return s
}

func (s *spliced) ended(t *testing.T) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the splice does not end")
	}
}

func resetBy(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// TestSpliceNoEndAfterReset: a reset that a write was told of reads as an end, and is
// none (R17).
func TestSpliceNoEndAfterReset(t *testing.T) {
	for range 300 {
		s := splicing(t)
		s.app.SetReadBuffer(4 << 10)
		s.visitor.Write(make([]byte, 300<<10)) // more than the app takes
		io.ReadFull(s.app, make([]byte, 1<<10))
		read := make(chan error, 1)
		go func() {
			_, err := s.visitor.Read(make([]byte, 1))
			read <- err
		}()
		resetBy(s.app)
		if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the app was reset, and the visitor read %v", err)
		}
		s.ended(t)
	}
}

// TestSpliceHalfClosedThenReset: who has ended its side is still seen to go (R2).
func TestSpliceHalfClosedThenReset(t *testing.T) {
	for name, of := range map[string]func(*spliced) (gone, other *net.TCPConn){
		"visitor": func(s *spliced) (gone, other *net.TCPConn) { return s.visitor, s.app },
		"app":     func(s *spliced) (gone, other *net.TCPConn) { return s.app, s.visitor },
	} {
		t.Run(name, func(t *testing.T) {
			s := splicing(t)
			gone, other := of(s)
			io.WriteString(gone, "question")
			gone.CloseWrite()
			if b, err := io.ReadAll(other); string(b) != "question" || err != nil {
				t.Fatalf("%q, %v", b, err)
			}
			resetBy(gone)
			s.ended(t)
			if _, err := other.Write([]byte("x")); err == nil {
				_, err = other.Write([]byte("x"))
				if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other side may write on: %v", err)
				}
			}
		})
	}
}

// TestSpliceEarlyAnswer: an app that has answered and closed resets who sends on. The
// answer gets there whole, and its end, as it would directly.
func TestSpliceEarlyAnswer(t *testing.T) {
	answer := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(answer)
	s := splicing(t)
	s.app.Write(answer)
	s.app.CloseWrite()
	<-s.ending
	s.app.Close() // what comes now is answered by a reset
	var err error
	for err == nil { // until that has come
		s.visitor.Write([]byte("more"))
		err = <-s.wrote
	}
	s.visitor.Write([]byte("and more"))
	s.visitor.CloseWrite()
	got, err := io.ReadAll(s.visitor)
	if !bytes.Equal(got, answer) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(answer), err)
	}
	s.ended(t)
}

// ending closes end when it was sent the other's end.
type ending struct {
	*net.TCPConn
	end chan struct{}
}

func (e ending) CloseWrite() error {
	defer close(e.end)
	return e.TCPConn.CloseWrite()
}

// telling tells what came of its writes to who takes that.
type telling struct {
	*net.TCPConn
	wrote chan error
}

func (t telling) Write(p []byte) (int, error) {
	n, err := t.TCPConn.Write(p)
	select {
	case t.wrote <- err:
	default:
	}
	return n, err
}

// TestSpliceIdle: what is idle holds a small buffer in each direction.
func TestSpliceIdle(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	sizes := make(chan int, 10)
	src := &side{ReadWriteCloser: asked{b, sizes}}
	go copyBytes(&side{ReadWriteCloser: discards{}}, src, nil)
	step := func(send int) int {
		if send > 0 {
			a.Write(make([]byte, send))
		}
		return <-sizes
	}
	if n := step(0); n != idleCopy {
		t.Errorf("at first it reads %d bytes", n)
	}
	if n := step(idleCopy); n != copySize {
		t.Errorf("in bulk it reads %d bytes", n)
	}
	if n := step(10); n != idleCopy {
		t.Errorf("afterwards it reads %d bytes", n)
	}
}

// asked tells of the size of each Read.
type asked struct {
	net.Conn
	sizes chan int
}

func (s asked) Read(p []byte) (int, error) {
	s.sizes <- len(p)
	return s.Conn.Read(p)
}

type discards struct{ io.ReadWriteCloser }

func (discards) Write(p []byte) (int, error) { return len(p), nil }
