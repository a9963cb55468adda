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

	mu       sync.Mutex // held while reading
	released atomic.Bool
	ended    atomic.Bool // it was read to its end
}

var errReleased = errors.New("request is over")

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
		s.ended.Store(true)
	case err != nil:
		err = fmt.Errorf("read request body: %w", err)
	}
	return n, err
}

// Close is for the transport, which may call it at any time; Forward releases.
func (s *source) Close() error { return nil }

// release lets no further read begin. One that is under way ends with the
// request: net/http sees to it when the answer is out.
func (s *source) release() { s.released.Store(true) }

// stop is release and waits until no read is under way. Nothing can be read after
// it.
func (s *source) stop() {
	s.release()
	s.f.rc.SetReadDeadline(time.Unix(1, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
}
