package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	defaultKeepAlive  = 15 * time.Second
	defaultDeadAfter  = 40 * time.Second
	defaultMaxStreams = 16384

	// maxUnaccepted is how many streams may be open that the peer has not accepted
	// yet. It is what other implementations allow.
	maxUnaccepted = 256

	// maxOpened is how many ids there are, but for a client's last.
	maxOpened = math.MaxInt32
)

// spentAt is after how many of the streams that may be opened the layer above is
// told: it has an eighth of them left to replace the session.
func spentAt(all int) int { return max(all-all/8, 1) }

// Client makes conn a session whose own streams have odd ids. It takes conn
// over. The error is nil so far.
func Client(conn net.Conn, c Config) (Session, error) { return newSession(conn, c, 1), nil }

// Server makes conn a session whose own streams have even ids. It takes conn
// over. The error is nil so far.
func Server(conn net.Conn, c Config) (Session, error) { return newSession(conn, c, 2), nil }

func newSession(conn net.Conn, c Config, firstID uint32) *session {
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = defaultDeadAfter
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = defaultMaxStreams
	}
	if c.MaxOpened <= 0 || c.MaxOpened > maxOpened {
		c.MaxOpened = maxOpened
	}
	s := &session{
		conn: conn, most: c.MaxStreams, refused: c.Refused, nextID: firstID,
		maxOpened: c.MaxOpened, spent: c.Spent,
		done: make(chan struct{}), places: make(chan struct{}, maxUnaccepted),
		streams: make(map[uint32]*stream),
	}
	s.arrived.L = &s.mu
	s.out.conn, s.out.direct, s.out.fail = conn, newDirect(conn), s.broken
	s.share.budget, s.growth.budget = c.Budget, c.Budget
	s.life.session = s
	s.life.begin(c)
	go s.receive()
	return s
}

// session is a Session. It costs one goroutine while it is idle: receive.
type session struct {
	conn      net.Conn
	maxOpened int
	out       outbox
	life      life
	growth    growth
	share     share
	done      chan struct{}
	places    chan struct{} // holds one for each opened stream that was not accepted

	mu       sync.Mutex // guards the following
	err      error      // why it ended
	cause    error      // why nothing can be sent
	refused  func()     // nil once it was called
	spent    func()     // nil once it was called
	openings int        // streams that were opened here, ever
	streams  map[uint32]*stream
	theirs   int    // how many of them the peer opened
	most     int    // of theirs
	nextID   uint32 // of the next stream that is opened
	accepted []*stream
	arrived  sync.Cond // a stream arrived, or the session ended
}

func (s *session) Open(ctx context.Context) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.takePlace(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if err := s.openable(); err != nil {
		s.mu.Unlock()
		<-s.places
		return nil, err
	}
	st := s.next()
	s.mu.Unlock()
	st.begin()
	return st, nil
}

// takePlace waits until the peer has accepted enough of what was opened.
func (s *session) takePlace(ctx context.Context) error {
	select {
	case s.places <- struct{}{}:
		return nil
	default:
	}
	s.mu.Lock()
	err := s.openable()
	s.mu.Unlock()
	if err != nil {
		return err // and nothing to wait for
	}
	select {
	case s.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.Err()
	}
}

// next makes the stream that is opened next. It is called under mu, where openable
// has nothing to say.
func (s *session) next() *stream {
	st := newStream(s, s.nextID)
	st.unaccepted.Store(true)
	s.streams[st.id] = st
	s.nextID += 2 // past the last one it is never used
	if s.openings++; s.openings >= spentAt(s.maxOpened) && s.spent != nil {
		go s.spent()
		s.spent = nil
	}
	return st
}

// openable says why no stream can be opened.
func (s *session) openable() error {
	if s.err != nil {
		return s.err
	}
	if s.cause != nil {
		return closedBy(s.cause)
	}
	if s.openings >= s.maxOpened {
		return ErrExhausted
	}
	return nil
}

func (s *session) Accept() (Stream, error) {
	s.mu.Lock()
	for len(s.accepted) == 0 && s.err == nil {
		s.arrived.Wait()
	}
	if s.err != nil {
		defer s.mu.Unlock()
		return nil, s.err
	}
	st := s.accepted[0]
	s.accepted[0] = nil
	if s.accepted = s.accepted[1:]; len(s.accepted) == 0 {
		s.accepted = nil
	}
	s.mu.Unlock()
	s.out.answer(header{kind: typeWindow, flags: flagACK, id: st.id})
	return st, nil
}

func (s *session) Limit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = n
}

func (s *session) Ping(ctx context.Context) (time.Duration, error) { return s.life.ping(ctx) }

func (s *session) Idle() time.Duration { return s.life.idle() }

func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

var errHere = errors.New("closed on this side")

func (s *session) Close() error {
	s.end(errHere)
	return nil
}

// lastReads is how long a session that cannot be written to takes what has
// arrived: the peer may have said all there is to say before it went.
const lastReads = time.Second

// broken ends the session because nothing can be sent.
func (s *session) broken(cause error) {
	if errors.Is(cause, os.ErrDeadlineExceeded) || errors.Is(cause, errFlood) {
		s.end(cause)
		return
	}
	s.mu.Lock()
	s.cause = cause
	streams := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	s.out.close(closedBy(cause), streams)
	s.conn.SetReadDeadline(time.Now().Add(lastReads)) // receive ends the session
}

// why is what receive ends the session with, after err.
func (s *session) why(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return s.cause
	}
	return err
}

// closedBy is the error of a session that ended. The cause is formatted, not
// wrapped: it may be io.EOF, and nobody may take that for the clean end of a
// stream.
func closedBy(cause error) error {
	switch {
	case errors.Is(cause, ErrSilent):
		return fmt.Errorf("%w: %w", ErrClosed, cause)
	case cause == io.EOF, cause == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: the peer closed the connection", ErrClosed)
	}
	return fmt.Errorf("%w: %v", ErrClosed, cause)
}

// end ends the session, once.
func (s *session) end(cause error) {
	err := closedBy(cause)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	streams, accepted := s.streams, s.accepted
	s.streams, s.accepted, s.theirs = nil, nil, 0
	s.arrived.Broadcast()
	s.mu.Unlock()

	s.life.stop()
	s.out.close(err, nil)
	close(s.done) // first, so that whoever sees a stream broken sees why
	for _, st := range streams {
		st.abort(err)
	}
	for _, st := range accepted {
		st.Close() // nobody else will
	}
	if errors.Is(cause, ErrSilent) {
		abandon(s.conn)
	}
	s.conn.Close()
}

// stream returns the one with this id, or nil.
func (s *session) stream(id uint32) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// opened takes a stream that the peer opens. It returns nil where there is no
// place for it.
func (s *session) opened(id uint32) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case id == 0 || id%2 == s.nextID%2:
		return nil, fmt.Errorf("stream %d is not the peer's to open", id)
	case s.err != nil:
		return nil, nil
	case s.streams[id] != nil:
		return nil, fmt.Errorf("stream %d was opened twice", id)
	case s.theirs >= s.most:
		if s.refused != nil {
			go s.refused()
			s.refused = nil
		}
		return nil, nil
	case len(s.accepted) >= min(maxUnaccepted, s.most):
		// Those that ended before they were accepted have places, too: what arrived on
		// them is kept.
		return nil, nil
	}
	st := newStream(s, id)
	s.streams[id] = st
	s.theirs++
	s.accepted = append(s.accepted, st)
	s.arrived.Signal()
	return st, nil
}

// takenBack frees the place of a stream that its peer has reset, where nobody has
// accepted it and nothing of it is kept. The peer counts it no more, and would find
// the places of its next streams taken.
func (s *session) takenBack(st *stream) {
	if st.whole() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.accepted, st); i >= 0 {
		s.accepted = slices.Delete(s.accepted, i, i+1)
	}
}

// forget is called when a stream has ended in both directions.
func (s *session) forget(st *stream) {
	s.mu.Lock()
	if s.streams[st.id] == st {
		delete(s.streams, st.id)
		if st.id%2 != s.nextID%2 {
			s.theirs--
		}
	}
	s.mu.Unlock()
	st.place()
}
