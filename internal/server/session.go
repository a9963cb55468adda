package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// handshakeTime is how long a client may take from its upgrade to its hello.
	handshakeTime = 5 * time.Second
	// farewellTime is how long a client may take to close after bye.
	farewellTime = time.Second
	// drainTime bounds the wait for a draining client's requests; the client has a
	// shorter limit of its own.
	drainTime = 10 * time.Minute
)

// session is one client's connection on the server.
type session struct {
	claimant
	id   string
	from netip.AddrPort // where the client is
	mux  mux.Session
	pool *upstream.Pool

	spent    atomic.Bool // its next connection is to take over
	replaced atomic.Bool // that one is there
	retired  sync.Once

	connects   bool         // the client opens streams to private endpoints
	connecting atomic.Int64 // those that lead to one, or are about to

	writing sync.Mutex // one message at a time
	control mux.Stream

	mu      sync.Mutex // guards the following
	ended   bool
	names   map[string]registry.Release
	routes  map[string]string   // what the registry knows by another name than it was claimed with: ports and private endpoints
	domains map[string][]string // custom domains, by the name that they stand beside
	byRight map[string]bool     // custom domains: whether the token's rights made them the session's
	leaving *time.Timer         // calls retire; nil: it was not replaced
}

// run serves conn until the session has ended.
func (s *session) run(conn net.Conn) {
	started, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	onceStarted := func(f func()) func() {
		return func() {
			select {
			case <-started: // so that there is a control stream to say it on
				s.whileLive(f)
			case <-ended:
			}
		}
	}
	m, err := mux.Server(conn, mux.Config{
		MaxStreams: 1, Refused: onceStarted(s.refuse),
		MaxOpened: s.server.c.MaxStreams, Spent: onceStarted(s.renew),
		Budget: s.server.budget,
	})
	if err != nil {
		s.log.Error("session failed", "err", err)
		return
	}
	var connected sync.WaitGroup
	defer connected.Wait()
	defer m.Close()
	s.mux = m
	s.names = make(map[string]registry.Release)
	if !s.server.shake(m) {
		return
	}
	defer s.server.forget(s)
	timer := time.AfterFunc(handshakeTime, func() { m.Close() })
	err = s.handshake()
	s.server.shaken(m)
	if s.control != nil {
		defer s.control.Close() // what nobody will read any more counts against the budget
	}
	if err != nil {
		timer.Stop()
		e := asError(err, protocol.ProtocolViolation)
		s.server.refused.log(s.log, e.Code, "session failed", "err", err)
		s.farewell(e)
		return
	}
	timer.Stop()
	close(started)
	s.log.Info("session started", "owner", s.owner)
	if s.connects {
		connected.Go(s.acceptConnects)
	}
	err = s.serve()
	s.drop(s.server.c.Hold)
	s.log.Info("session ended", "err", firstOf(m.Err(), err))
	s.farewell(asError(err, protocol.ProtocolViolation))
}

// firstOf returns the first error that says anything.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// handshake reads the hello, fences an older connection of the session, and
// answers welcome.
func (s *session) handshake() error {
	control, err := s.mux.Accept()
	if err != nil {
		return err
	}
	s.control = control
	m, err := protocol.Read(control)
	if err != nil {
		return err
	}
	if m.Hello == nil {
		return &protocol.Error{Code: protocol.ProtocolViolation, Message: "the first message is not a hello"}
	}
	if !slices.Contains(m.Hello.Versions, protocol.Version) {
		return &protocol.Error{
			Code: protocol.VersionUnsupported, Message: "this server speaks version 1 of the control messages only",
			Hint: "use a tunnel-client of the server's version or a neighbouring one",
		}
	}
	s.pool = upstream.NewPool(s.mux, s.server.c.MaxRequests)
	secret, owner, resumed := s.server.resume.check(m.Hello.Resume, s.id, s.identity)
	s.owner = owner
	if m.Hello.Connect {
		s.allowConnects()
	}
	if err := s.server.admit(s, resumed); err != nil {
		return err
	}
	return s.send(&protocol.Message{Welcome: &protocol.Welcome{
		Version: protocol.Version, Agent: s.server.c.Agent, Resume: secret, Resumed: resumed, Connect: s.connects,
	}})
}

// admit makes one the connection of its SESSION. An older one is fenced where
// the client proved to be the same: its names are held when admit returns (R32).
func (s *Server) admit(one *session, resumed bool) error {
	s.mu.Lock()
	old := s.sessions[one.id]
	switch {
	case s.draining.Load():
		s.mu.Unlock()
		return &protocol.Error{Code: protocol.Draining, Message: "the server is shutting down"}
	case old != nil && !resumed:
		s.mu.Unlock()
		return &protocol.Error{Code: protocol.SessionTaken, Message: "this session has a connection", Hint: "use another session id"}
	}
	s.sessions[one.id] = one
	delete(s.shaking, one.mux) // at its end it is told why
	renewed := old != nil && old.spent.Load()
	if renewed {
		s.leaving[old] = struct{}{}
		old.replaced.Store(true)
	}
	s.mu.Unlock()
	switch {
	case renewed:
		old.leave()
	case old != nil:
		old.end(&protocol.Error{Code: protocol.SessionFenced, Message: "a newer connection of this session took over"}, s.c.Hold)
	}
	if !s.c.Auth.Valid(one.identity) {
		return errRevoked() // endRevoked did not see it if it came before
	}
	return nil
}

// forget takes one out, unless a newer connection has its place.
func (s *Server) forget(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[one.id] == one {
		delete(s.sessions, one.id)
	}
	delete(s.leaving, one)
}

// whileLive calls f, unless the session has ended. The server's end waits for it.
func (s *session) whileLive(f func()) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.server.running.Add(1) // run is counted, too, as long as it has not ended
	s.mu.Unlock()
	defer s.server.running.Done()
	f()
}

// refuse ends the session of a client that opens a stream beside the control
// stream, and did not say that it would.
func (s *session) refuse() {
	if s.connects {
		return // it has as many as it may, and the stream was reset
	}
	s.end(&protocol.Error{Code: protocol.ProtocolViolation, Message: "a client opens one stream, the control stream"}, s.server.c.Hold)
}

// serve answers the client's messages until the control stream ends. The error
// is nil where the client said bye.
func (s *session) serve() error {
	drains := false
	for {
		m, err := protocol.Read(s.control)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the control stream ended without bye")
			}
			return err
		}
		switch {
		case m.Bind != nil:
			err = s.send(&protocol.Message{Bound: s.bind(m.Bind)})
		case m.Unbind != nil:
			s.unbind(s.routeOf(m.Unbind.Name))
		case m.Drain != nil && !drains: // a second one would cost another goroutine
			drains = true
			s.drop(0)
			s.server.running.Go(s.drained)
		case m.Bye != nil:
			s.drop(0)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bind claims a name.
func (s *session) bind(b *protocol.Bind) *protocol.Bound {
	bound, err := s.claim(b)
	if err != nil {
		e := asError(err, protocol.NameTaken)
		s.server.refused.log(s.log, e.Code, "name refused", "name", b.Name[:min(len(b.Name), protocol.MaxName)], "code", string(e.Code))
		return &protocol.Bound{ID: b.ID, Name: b.Name, Error: e}
	}
	bound.ID, bound.Enforced = b.ID, b.Share.Parts()
	log := s.log
	if len(bound.Enforced) > 0 {
		log = log.With("share", strings.Join(bound.Enforced, ","))
	}
	if len(bound.URLs) > 0 {
		log = log.With("domains", strings.Join(b.Domains, ","))
	}
	log.Info("name bound", "name", bound.Name, "url", bound.URL)
	return bound
}

// routeOf is what the registry knows a bound name as.
func (s *session) routeOf(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.routes[name], name)
}

func (s *session) unbind(name string) {
	s.mu.Lock()
	release := s.names[name]
	delete(s.names, name)
	maps.DeleteFunc(s.routes, func(_, route string) bool { return route == name })
	domains := s.takeDomains(name)
	s.mu.Unlock()
	for _, release := range domains {
		release(0)
	}
	if release != nil {
		release(0)
		if !isDomain(name) { // which is no route of its own in the pool
			s.pool.Drop()
		}
	}
}

// drained tells a draining client that no request will come any more.
func (s *session) drained() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if s.pool.Drain(ctx) == nil {
		s.send(&protocol.Message{Drained: &protocol.Drained{}})
	}
}

// drop gives all names back and claims no more. The first call counts.
func (s *session) drop(hold time.Duration) {
	s.mu.Lock()
	names := s.names
	s.names, s.ended = nil, true
	if s.leaving != nil {
		s.leaving.Stop()
	}
	s.mu.Unlock()
	for _, release := range names {
		release(hold)
	}
}

// end ends the session for a reason. Its names are given back when it returns;
// the client is told in the background.
func (s *session) end(reason *protocol.Error, hold time.Duration) {
	s.drop(hold)
	s.log.Info("ending session", "code", string(reason.Code))
	s.server.running.Go(func() { s.farewell(reason) })
}

// farewell says bye, with the reason if there is one, and closes. The client is
// given a moment to read it.
func (s *session) farewell(reason *protocol.Error) {
	defer s.mux.Close()
	// A client that does not read holds the message up, and whoever writes before.
	defer time.AfterFunc(2*farewellTime, func() { s.mux.Close() }).Stop()
	if s.control == nil || s.send(&protocol.Message{Bye: &protocol.Bye{Error: reason}}) != nil {
		return
	}
	select {
	case <-s.mux.Done():
	case <-time.After(farewellTime):
	}
}

// send writes one control message. It may wait as long as the session lives: on
// a slow link much may be queued before it.
func (s *session) send(m *protocol.Message) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return protocol.Write(s.control, m)
}

// asError returns the protocol.Error in err, or one with code for it; nil for
// nil.
func asError(err error, code protocol.Code) *protocol.Error {
	var e *protocol.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	}
	return &protocol.Error{Code: code, Message: err.Error()}
}
