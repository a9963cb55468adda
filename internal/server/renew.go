package server

import (
	"context"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A session whose stream ids run out is renewed (R24): the client is asked to
// connect again while requests go on. Its names move to the new connection as that
// claims them, without a gap, and the old one ends when its last request has.

// renew asks the client for another connection of the session.
func (s *session) renew() {
	s.spent.Store(true)
	s.log.Info("session has few stream ids left, asking for another connection")
	s.send(&protocol.Message{Drain: &protocol.Drain{Reason: "the connection has carried as many streams as it can"}})
}

// leave lets a session whose next connection has come keep the names that this one
// has not claimed yet, for a while.
func (s *session) leave() { time.AfterFunc(handshakeTime, s.retire) }

// retire ends a session that was replaced: when the requests under way have, or
// when drainTime has passed.
func (s *session) retire() {
	s.retired.Do(func() {
		go s.whileLive(func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTime)
			defer cancel()
			s.pool.Drain(ctx)
			s.drop(0)
			s.log.Info("session was replaced, ending it")
			s.farewell(nil)
		})
	})
}
