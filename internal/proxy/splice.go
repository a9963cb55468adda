package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// idleCopy is how much an idle connection has room for; one that carries more takes
// a buffer of copySize for as long as it does.
const idleCopy = 4 << 10

var smallBuffers = sync.Pool{New: func() any { return new([idleCopy]byte) }}

// Splice passes bytes between a, the visitor's side, and b, the app's, in both
// directions until both have ended, or one broke, and closes them. early is what was
// read of a before. It returns how many bytes came from each side.
//
// The end of one direction is passed on as such, where the other side has CloseWrite
// (R16), and an abort as an abort (R17): a side is aborted by its method Reset, or,
// as a TCP connection, by SetLinger(0). As long as a TCP connection is to be sent
// more it is one that the end of this process aborts, too (R1). Where a side has a
// method OnAbort, as a mux.Stream does, it tells of an abort that no Read would.
func Splice(a, b io.ReadWriteCloser, early []byte) (up, down int64) {
	t := &splice{a: side{ReadWriteCloser: a}, b: side{ReadWriteCloser: b}}
	return t.run(early)
}

// ErrNoCloseNotify is of a connection of TLS that has ended without saying so: whoever was
// killed ends it like that, and so do some who are done (RFC 8446, section 6.1).
var ErrNoCloseNotify = fmt.Errorf("no close_notify: %w", io.ErrUnexpectedEOF)

// splice is two connections that are one.
type splice struct {
	a, b     side
	watchers sync.WaitGroup
}

// side is a connection of a splice.
type side struct {
	io.ReadWriteCloser
	read  atomic.Bool // its end was read
	ended atomic.Bool // it was sent the other's end, or is just about to be
	gone  atomic.Bool // it was aborted, as OnAbort told
}

// run passes on what came early from a and then the rest.
func (t *splice) run(early []byte) (up, down int64) {
	setLinger(t.a.ReadWriteCloser, 0)
	setLinger(t.b.ReadWriteCloser, 0)
	// A visitor that has ended its side, and is gone while the app is silent, is
	// noticed by nothing else.
	defer onAbort(t.a.ReadWriteCloser, t.abort)()
	// What has come whole from an app whose client is gone is the visitor's still.
	defer onAbort(t.b.ReadWriteCloser, func() {
		t.b.gone.Store(true)
		if t.b.read.Load() {
			t.finishSoon(&t.a)
		}
	})()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		up = t.pass(&t.b, &t.a, early)
	}()
	down = t.pass(&t.a, &t.b, nil)
	<-passed
	t.a.Close()
	t.b.Close()
	t.watchers.Wait()
	return up, down
}

// pass copies src to dst and passes the end on. An abort stays one: neither side may
// take it for an end.
func (t *splice) pass(dst, src *side, early []byte) (n int64) {
	n, readErr, writeErr := copyBytes(dst, src, early)
	if src == &t.a && src.ended.Load() && errors.Is(readErr, ErrNoCloseNotify) {
		readErr = nil // the visitor has all that the app sent, and is done
	}
	switch {
	case readErr == nil && writeErr == nil && !wasReset(src):
		src.read.Store(true)
		dst.ended.Store(true)
		setLinger(dst.ReadWriteCloser, -1)
		if closeWrite(dst.ReadWriteCloser) == nil {
			t.ended(dst, src)
			return n
		}
	case writeErr != nil && dst.read.Load() && discard(src.ReadWriteCloser):
		return n
	}
	t.abort()
	return n
}

// ended is called when src's end was passed on to dst.
func (t *splice) ended(dst, src *side) {
	if src.gone.Load() {
		t.finishSoon(dst)
	}
	// It can still be reset, which nothing else tells while there is nothing to be
	// sent to it.
	if conn, ok := src.ReadWriteCloser.(syscall.Conn); ok && !src.ended.Load() {
		t.watchers.Go(func() {
			switch gone := awaitReset(conn) && !src.ended.Load(); {
			case gone && src == &t.b:
				t.finishSoon(dst)
			case gone:
				t.abort()
			}
		})
	}
}

// finishSoon is for what was sent all that will come, while what it sends reaches
// nobody: it may take the rest, and end.
func (t *splice) finishSoon(s *side) {
	if c, ok := s.ReadWriteCloser.(interface{ SetReadDeadline(time.Time) error }); ok {
		c.SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// discard is for what is sent to an app that has answered and gone. The sender is
// not to be reset under the answer that it has not read yet (RFC 9112, section
// 9.6, says it of HTTP). It reports whether the end came soon.
func discard(src io.Reader) bool {
	c, ok := src.(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return false
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	_, err := io.CopyN(io.Discard, src, lingerBytes)
	return err == io.EOF
}

func (t *splice) abort() {
	abort(t.b.ReadWriteCloser)
	abort(t.a.ReadWriteCloser)
}

// copyBytes copies until src ends, which is no error. It works with plain Read and
// Write: ReadFrom of a TCP connection would splice, but hold a pipe for each idle
// connection.
func copyBytes(dst, src *side, early []byte) (n int64, readErr, writeErr error) {
	if len(early) > 0 {
		if _, err := dst.Write(early); err != nil {
			return 0, nil, err
		}
		n = int64(len(early))
	}
	small := smallBuffers.Get().(*[idleCopy]byte)
	defer smallBuffers.Put(small)
	var large *[copySize]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	buf := small[:]
	for {
		m, err := src.Read(buf)
		if m > 0 {
			if _, err := dst.Write(buf[:m]); err != nil {
				return n, nil, err
			}
			n += int64(m)
		}
		switch {
		case err == io.EOF:
			return n, nil, nil
		case err != nil:
			return n, err, nil
		case m == len(buf) && large == nil:
			large = buffers.Get().(*[copySize]byte)
			buf = large[:]
		case m < idleCopy && large != nil:
			buffers.Put(large)
			large, buf = nil, small[:]
		}
	}
}

// wasReset reports whether what read as the end of s was none: a reset that a Write
// was told of reads as the end afterwards.
func wasReset(s *side) bool {
	conn, ok := s.ReadWriteCloser.(syscall.Conn)
	return ok && !s.ended.Load() && hungUp(conn)
}

// onAbort has f called when c tells of its abort, until stop is called.
func onAbort(c io.Closer, f func()) (stop func() bool) {
	if c, ok := c.(interface{ OnAbort(func()) func() bool }); ok {
		return c.OnAbort(f)
	}
	return func() bool { return false }
}

// setLinger says what the end of a TCP connection, or of this process, is to its
// peer: with 0 an abort.
func setLinger(c io.Closer, seconds int) {
	switch c := c.(type) {
	case interface{ SetLinger(int) error }:
		c.SetLinger(seconds)
	case interface{ NetConn() net.Conn }:
		setLinger(c.NetConn(), seconds)
	}
}

// closeWrite ends the writing side, or all of a connection that has no halves.
func closeWrite(c io.Closer) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return c.Close()
}
