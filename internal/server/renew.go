package server

import (
	"context"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A session whose stream ids run out is renewed (R24): the client is asked to
// connect again while requests go on. Its names move to the new connection as that
// claims them, without a gap; the old one ends when its last request has, and the
// last of its upgraded connections, or when drainTime has passed.

const (
	// leaveTime is how long the next connection may take to claim the names. Those
	// that it has not claimed by then are held.
	leaveTime = 10 * time.Second
	// upgradedPoll is how often it is seen whether upgraded connections are left.
	upgradedPoll = time.Second
)

// renew asks the client for another connection of the session.
func (s *session) renew() {
	s.spent.Store(true)
	s.log.Info("session has few stream ids left, asking for another connection")
	s.send(&protocol.Message{Drain: &protocol.Drain{Reason: "the connection has carried as many streams as it can"}})
}

// leave lets a session whose next connection has come keep the names that this one
// has not claimed yet, for a while.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.leaving = time.AfterFunc(leaveTime, s.retire)
	}
}

// moved notes that the next connection has claimed a name.
func (s *session) moved(name string) {
	s.mu.Lock()
	delete(s.names, name)
	left := len(s.names)
	s.mu.Unlock()
	if left == 0 {
		s.retire()
	}
}

// retire ends a session that was replaced.
func (s *session) retire() {
	s.retired.Do(func() {
		go s.whileLive(func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTime)
			defer cancel()
			s.drop(s.server.c.Hold)
			s.pool.Drain(ctx)
			s.upgradedEnd(ctx)
			s.log.Info("session was replaced, ending it")
			s.farewell(nil)
		})
	})
}

// upgradedEnd waits until no upgraded connection is left, and none that leads to a
// private endpoint.
func (s *session) upgradedEnd(ctx context.Context) {
	for s.pool.Active() > 0 || s.connecting.Load() > 0 {
		select {
		case <-time.After(upgradedPoll):
		case <-s.mux.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}
