package mux

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// linger is how long a stream that was closed before its end was read may be
// written to by the peer, before it is reset. TCP resets at once; a peer that
// reads our end and ends its own side within this time sees no error.
const linger = 2 * time.Second

// stream is a Stream on go-yamux.
type stream struct {
	y       *yamux.Stream
	session *session

	reading sync.Mutex // held by Read
	writing sync.Mutex // held by Write

	mu       sync.Mutex // guards the following
	deadline time.Time  // of Read
	taking   bool       // Read takes data, and go-yamux has no read deadline
	ended    bool       // the peer's end was read
	closed   bool       // Close was called
}

// Read waits under the deadline, and then takes what is there without one.
// go-yamux tells the peer under the deadline of the read that it may send more.
// Where the deadline passed in between, that was never said again, and the
// stream stalled for ever.
func (s *stream) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if err := s.readable(); err != nil || len(b) == 0 {
		return 0, err
	}
	if _, err := s.y.Read(nil); err != nil { // returns once there is something to read
		return 0, s.readError(err)
	}
	s.take(true)
	n, err := s.y.Read(b)
	s.take(false)
	if n > 0 {
		// An error beside data is the session's, and may be a bare io.EOF. What
		// holds for the stream, the next Read says.
		return n, nil
	}
	return 0, s.readError(err)
}

// readable says why nothing may be read now, if so.
func (s *stream) readable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// take switches go-yamux's read deadline off while data is taken.
func (s *stream) take(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taking = on
	switch {
	case on && !s.deadline.IsZero():
		s.y.SetReadDeadline(time.Time{})
	case !on && !s.deadline.IsZero() && !s.closed:
		s.y.SetReadDeadline(s.deadline)
	}
}

// readError makes an error of a Read without data one of ours.
func (s *stream) readError(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case err == io.EOF: // go-yamux wraps it where it is not the stream's end
		s.ended = true
		return io.EOF
	}
	return s.session.wrap(err)
}

// Write keeps other Writes waiting: two at once make go-yamux overrun the
// peer's window, which ends the session.
func (s *stream) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	n, err := s.y.Write(b)
	return n, s.session.wrap(err)
}

func (s *stream) CloseWrite() error { return s.session.wrap(s.y.CloseWrite()) }

func (s *stream) Reset() error { return s.session.wrap(s.y.Reset()) }

func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.deadline = t
	if s.taking {
		return nil // take sets it
	}
	return s.y.SetReadDeadline(t)
}

func (s *stream) SetWriteDeadline(t time.Time) error { return s.y.SetWriteDeadline(t) }

func (s *stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

func (s *stream) LocalAddr() net.Addr { return s.session.conn.LocalAddr() }

func (s *stream) RemoteAddr() net.Addr { return s.session.conn.RemoteAddr() }

// Close ends the writing side and gives up the reading side: what the peer
// sent is thrown away, and after linger it gets an error.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	ended := s.ended
	s.y.SetReadDeadline(time.Unix(1, 0)) // wakes a blocked Read
	s.mu.Unlock()

	err := s.CloseWrite()
	if !ended {
		time.AfterFunc(linger, func() { s.y.Reset() })
	}
	return err
}
