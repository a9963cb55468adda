package server

import (
	"context"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// checkShare refuses what the edge cannot carry out: nothing is published that is less
// protected than its owner thinks.
func checkShare(b *protocol.Bind) error {
	if b.Share == nil {
		return nil
	}
	if b.Private {
		return &protocol.Error{Code: protocol.ShareUnsupported, Message: "a private endpoint has no visitors to be told apart", Hint: "leave out who may visit it, or --private"}
	}
	if err := b.Share.Check(b.Kind); err != nil {
		return &protocol.Error{Code: protocol.ShareUnsupported, Message: "the endpoint cannot be shared so: " + err.Error()}
	}
	return nil
}

// ends is when the endpoint's time is over; the zero time: never.
func ends(b *protocol.Bind) time.Time {
	if b.Share == nil || b.Share.TTL == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(b.Share.TTL) * time.Millisecond)
}

// ending is release for a route that may come to the end of its time: then it is given
// back. The caller holds mu.
func (s *session) ending(route *registry.Route, release registry.Release) registry.Release {
	if route.Ends.IsZero() {
		return release
	}
	// The registry tells visitors by itself, at the same moment.
	timer := time.AfterFunc(time.Until(route.Ends), func() { s.whileLive(func() { s.expire(route.Name) }) })
	return func(hold time.Duration) {
		timer.Stop()
		release(hold)
	}
}

// expire gives back a name whose time is over. A session that has no other one finishes
// what is under way and ends.
func (s *session) expire(name string) {
	s.unbind(name)
	if s.bound() > 0 {
		return
	}
	s.log.Info("time to live is over", "name", name)
	ctx, cancel := context.WithTimeout(context.Background(), s.server.c.Grace)
	defer cancel()
	s.pool.Drain(ctx)
	s.end(errEnded(), 0)
}

// bound is how many names the session has.
func (s *session) bound() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names)
}

func errEnded() *protocol.Error {
	return &protocol.Error{Code: protocol.Ended, Message: "the endpoint's time to live is over", Hint: "start it again to share it on"}
}
