package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// source is the body of the request that Forward passes on. Once released it
// reads nothing more of the visitor's connection, which is the handler's.
type source struct {
	f   *forwarding
	out *http.Request // gets the trailers that came unannounced

	reading  sync.Mutex // held while reading
	released atomic.Bool
	ended    atomic.Bool // it was read to its end

	mu    sync.Mutex
	over  bool // Forward has returned, and f.rc is not to be used
	woken bool // the connection had its read deadline set, and takes no other request
}

var errReleased = errors.New("request is over")

func (s *source) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.released.Load() {
		return 0, errReleased
	}
	s.f.accept()
	n, err := s.f.r.Body.Read(p)
	switch {
	case err == io.EOF:
		if s.out.Trailer == nil {
			s.out.Trailer = s.f.r.Trailer
		}
		s.end()
	case err != nil:
		err = fmt.Errorf("read request body: %w", err)
	}
	return n, err
}

// end notes that nothing is left to read. net/http watches the connection from the
// body's end on, and where that was woken the request after this one would be
// cancelled: the body counts as unread then, and the connection is closed.
func (s *source) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended.Store(!s.woken)
}

// Close is for the transport, which may call it at any time. It ends a read that
// is under way; the visitor's context ends with it, and the request's does not.
func (s *source) Close() error {
	s.released.Store(true)
	if s.reading.TryLock() {
		s.reading.Unlock()
		return nil
	}
	s.wake()
	return nil
}

// release lets no further read begin when Forward returns. One that is under way
// ends with the request: net/http sees to it when the answer is out.
func (s *source) release() {
	s.released.Store(true)
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

// stop waits until no read is under way, and lets none begin. What is still to be
// read is lost.
func (s *source) stop() {
	s.released.Store(true)
	s.wake()
	s.reading.Lock()
	defer s.reading.Unlock()
}

// wasWoken reports whether the end of the visitor's context is of our making.
func (s *source) wasWoken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.woken
}

func (s *source) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && !s.ended.Load() {
		s.woken = true
		s.f.rc.SetReadDeadline(time.Unix(1, 0))
	}
}
