package tunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// farewellTime is how long the server may take to answer bye.
const farewellTime = 500 * time.Millisecond

// session is one connection to the server, with the listener's name claimed, or one
// to reach private endpoints by; or connections to a proxy by PTTH.
type session struct {
	conduit
	mux       mux.Session // the conduit, where that has streams
	control   mux.Stream  // nil: there are none
	kind      transport.Kind
	alpn      string // what is spoken, of PTTH
	rawShut   bool   // raw was tried before it, and something on the way does not let it pass
	name      string
	url       string
	urls      []string
	port      int
	draining  chan struct{} // closed when another session is to take its place
	drainOnce sync.Once     // closes draining
	reason    error         // why; valid after draining
	drained   chan struct{} // closed when the server said drained
	read      chan struct{} // closed when the control stream's reader has ended

	mu    sync.Mutex // guards cause
	cause error      // why this side ended the session, or what the server said
}

// conduit is what a session runs on, as [mux.Session] has it.
type conduit interface {
	Ping(ctx context.Context) (time.Duration, error)
	Idle() time.Duration
	Close() error
	Done() <-chan struct{}
	Err() error
}

func newSession() *session {
	return &session{draining: make(chan struct{}), drained: make(chan struct{}), read: make(chan struct{})}
}

// handshake says hello and claims b's name, if there is a b. It returns the secret with which the
// next connection takes over, also with an error that came after it.
func (s *session) handshake(ctx context.Context, h *protocol.Hello, b *protocol.Bind) (resume string, err error) {
	if s.control, err = s.mux.Open(ctx); err != nil {
		return "", err
	}
	if err := protocol.Write(s.control, &protocol.Message{Hello: h}); err != nil {
		return "", err
	}
	welcome, err := await(s.control, func(m *protocol.Message) *protocol.Welcome { return m.Welcome })
	if err != nil {
		return "", err
	}
	if welcome.Version != protocol.Version {
		return "", badVersion(welcome.Version)
	}
	if b == nil {
		if !welcome.Connect {
			return welcome.Resume, &protocol.Error{Code: protocol.KindUnsupported, Message: "this server has no private endpoints", Hint: "its operator may want a newer tunnel-server"}
		}
		return welcome.Resume, nil
	}
	if err := protocol.Write(s.control, &protocol.Message{Bind: b}); err != nil {
		return welcome.Resume, err
	}
	bound, err := await(s.control, func(m *protocol.Message) *protocol.Bound { return m.Bound })
	switch {
	case err != nil:
		return welcome.Resume, err
	case bound.Error != nil:
		return welcome.Resume, bound.Error
	case len(bound.URLs) != len(b.Domains):
		return welcome.Resume, noDomains() // it does not know the field
	}
	if err := b.Share.Enforced(bound.Enforced); err != nil {
		return welcome.Resume, err
	}
	s.name, s.url, s.urls, s.port = bound.Name, bound.URL, bound.URLs, bound.Port
	return welcome.Resume, nil
}

// noDomains is for a server that is older than custom domains.
func noDomains() *protocol.Error {
	return &protocol.Error{
		Code: protocol.KindUnsupported, Message: "the server has no custom domains",
		Hint: "use a newer tunnel-server, or leave the domains out",
	}
}

// badVersion is for a server that answers in a version that was not offered.
func badVersion(version int) *protocol.Error {
	return &protocol.Error{
		Code:    protocol.VersionUnsupported,
		Message: fmt.Sprintf("the server speaks version %d of the control messages, and this client version %d only", version, protocol.Version),
		Hint:    "use a tunnel-client of the server's version or a neighbouring one",
	}
}

// await reads messages until one is what is waited for, or a bye.
func await[T any](control mux.Stream, pick func(*protocol.Message) *T) (*T, error) {
	for {
		m, err := protocol.Read(control)
		if err != nil {
			return nil, garbled(err)
		}
		if m.Bye != nil {
			return nil, byeError(m.Bye)
		}
		if found := pick(m); found != nil {
			return found, nil
		}
	}
}

// garbled is an error of reading the control stream. What is no message is no answer
// of the server's either, which may be final.
func garbled(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return fmt.Errorf("control stream: %v", err)
	}
	return fmt.Errorf("control stream: %w", err)
}

// byeError is why the server ends the session.
func byeError(b *protocol.Bye) error {
	if b.Error == nil {
		return errors.New("the server ended the session")
	}
	return b.Error
}

// readControl hears the server out until the session ends.
func (s *session) readControl() {
	defer close(s.read)
	defer s.control.Close() // what was not read counts against the budget
	for {
		m, err := protocol.Read(s.control)
		switch {
		case err != nil && isClosed(s.Done()):
			return // and that is why
		case err != nil:
			s.end(garbled(err))
			return
		case m.Drain != nil:
			s.drains(drainReason(m.Drain))
		case m.Drained != nil && !isClosed(s.drained):
			close(s.drained)
		case m.Bye != nil:
			s.end(byeError(m.Bye))
			return
		}
	}
}

// drains asks for another session to take this one's place.
func (s *session) drains(reason error) {
	s.drainOnce.Do(func() {
		s.reason = reason
		close(s.draining)
	})
}

// spent reports whether another session is to take its place because its own stream
// ids run out.
func (s *session) spent() bool { return isClosed(s.draining) && s.reason == errSpent }

// drainReason is what the server says of why it drains.
func drainReason(d *protocol.Drain) error {
	if d.Reason == "" {
		return errServerDrains
	}
	return fmt.Errorf("%.200s", d.Reason)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// end ends the session at once. The first cause counts.
func (s *session) end(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	s.Close()
}

// err says why the session ended; it waits for that.
func (s *session) err() error {
	<-s.Done()
	<-s.read
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return s.cause
	}
	return s.Err()
}

// farewell gives the name back, ends the session, and waits for its end.
func (s *session) farewell() {
	if s.control != nil {
		// The write may wait for a server that takes nothing.
		late := time.AfterFunc(farewellTime, func() { s.Close() })
		if protocol.Write(s.control, &protocol.Message{Bye: &protocol.Bye{}}) == nil {
			<-s.Done() // the server answers with bye, or the time is over
		}
		late.Stop()
	}
	s.Close()
	<-s.read
}

// drain gives the name back and waits until the server has got the answers to
// all requests under way, ctx ends, or the session does.
func (s *session) drain(ctx context.Context) error {
	if a, ok := s.conduit.(*attachment); ok {
		return a.drain(ctx)
	}
	defer context.AfterFunc(ctx, func() { s.control.SetWriteDeadline(time.Unix(1, 0)) })()
	// What keeps this from arriving ends the session, or ctx does.
	protocol.Write(s.control, &protocol.Message{Drain: &protocol.Drain{}})
	select {
	case <-s.drained:
		return nil
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
