package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	// failed is shown of an endpoint that could not be claimed, or has ended for good.
	failed tunnel.EventType = "failed"

	// An endpoint that has failed is tried again after firstRetry, and then more and more
	// seldom.
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute

	// handoverTime is how long the name or port of an endpoint that was changed may still be
	// taken by what it was before.
	handoverTime  = 5 * time.Second
	handoverRetry = 100 * time.Millisecond
)

// member is one endpoint of start. It is the output of what exposes it, so that it sees
// what happens.
type member struct {
	starter   *starter
	spec      *spec
	log       *slog.Logger
	inspector *inspector              // that of all endpoints; nil: this one is not recorded
	leave     context.CancelCauseFunc // drains it
	patience  time.Duration           // with a name that is taken, at the beginning
	ended     chan struct{}

	mu       sync.Mutex // guards the following
	up       bool       // since the attempt began
	wasUp    bool       // ever
	former   bool       // it is in the configuration no longer, or not so
	replaced bool       // another one has its place
	err      error      // why it has failed; nil: it has not
	away     *time.Timer
	lose     context.CancelCauseFunc // gives the server up; nil: there is no other one
}

func newMember(s *starter, one *spec) *member {
	m := &member{starter: s, spec: one, log: s.log.With("endpoint", one.name), ended: make(chan struct{})}
	if one.inspect.addr != "" {
		m.inspector = s.inspector
	}
	return m
}

// run exposes the endpoint until drain ends, or the server says no for good.
func (m *member) run(drain, end context.Context) {
	defer offer(m.starter.changed, struct{}{})
	defer close(m.ended)
	defer m.leave(nil)
	began := time.Now()
	failures, useless := 0, 0 // in a row; and servers
	servers := max(1, len(m.spec.servers))
	for at := 0; drain.Err() == nil; {
		r := m.expose(drain, end, at)
		if drain.Err() != nil || r.err == nil { // or its time is over
			return
		}
		if m.takeUp() {
			failures, useless = 0, 0
		}
		if r.another {
			at = (at + 1) % servers
			if useless++; useless < servers {
				continue
			}
			useless = 0
		}
		wait := min(firstRetry<<min(failures, 10), lastRetry)
		failures++
		if time.Since(began) < m.patience && taken(r.code) {
			wait, failures = handoverRetry, 0
		} else if m.fail(r, wait); !r.again {
			return
		}
		select {
		case <-drain.Done():
			return
		case <-time.After(wait):
		}
	}
}

// refusal is why an attempt has ended.
type refusal struct {
	err         error
	code        protocol.Code
	cause, hint string
	another     bool // another server may be of use
	again       bool // another time may be
	patient     bool // the user said that it is to be tried for as long as it takes
}

// expose makes one attempt, with the server number at, which lasts as long as that server
// is there.
func (m *member) expose(drain, end context.Context, at int) refusal {
	c, err := m.spec.configure(m.starter.cli, at, m.log)
	if err != nil {
		return refusal{err: usageError{err}, cause: err.Error()}
	}
	if live(m) {
		m.change(change{event: trying, server: c.client.Server})
	}
	patient, several := c.listen.Retry, len(m.spec.servers) > 1
	c.of = m
	c.listen.Retry = patient && !several // or the first one is tried for ever
	ctx, lose := context.WithCancelCause(drain)
	defer lose(nil)
	if several {
		m.attempt(lose)
		defer m.attempt(nil)
	}
	err = m.starter.exposeUntil(ctx, end, c)
	var gone lostServer
	if errors.As(context.Cause(ctx), &gone) {
		return refusal{err: gone, cause: gone.Error(), another: true, again: true, patient: true}
	}
	r := refusal{err: err, patient: patient}
	if err == nil {
		return r
	}
	r.code, r.cause, r.hint = c.explain(err)
	r.another = errors.Is(err, tunnel.ErrUnreachable) || unavailable(r.code) || elsewhere(r.code)
	_, tokenless := errors.AsType[*tunnel.TokenError](err)
	r.again = r.another || taken(r.code) || tokenless
	if r.another {
		r.hint = "" // which is to try again
	}
	r.cause, r.hint = m.spec.inKeys(r.cause), m.spec.inKeys(r.hint)
	return r
}

// taken reports whether someone else has what was to be claimed, who may give it back.
func taken(code protocol.Code) bool {
	return code == protocol.NameTaken || code == protocol.PortUnavailable || code == protocol.TooManyNames
}

// lostServer gives a server up that was away for a while.
type lostServer struct{ away time.Duration }

func (l lostServer) Error() string { return fmt.Sprintf("the server is away for %s", l.away) }

// attempt begins an attempt after which there is another server, with what ends it; nil
// ends it.
func (m *member) attempt(lose context.CancelCauseFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stay()
	m.lose = lose
}

// stay is called with mu held: the server is there, or of no interest any more.
func (m *member) stay() {
	if m.away != nil {
		m.away.Stop()
		m.away = nil
	}
}

// takeUp reports whether the endpoint was up in the attempt that has ended.
func (m *member) takeUp() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	up := m.up
	m.up = false
	return up
}

// fail shows what went wrong. A server that goes away is no failure of an endpoint that was
// up, and none where the user said that it is to be waited for.
func (m *member) fail(r refusal, wait time.Duration) {
	text := r.cause
	if r.hint != "" {
		text += ": " + r.hint
	}
	if r.again {
		text += fmt.Sprintf("; trying again in %s", wait)
	}
	m.mu.Lock()
	counts := !(r.another && (m.wasUp || r.patient))
	if counts {
		m.err = r.err
	}
	m.mu.Unlock()
	if m.starter.cli.Bool("json") {
		m.log.Error("failed", "code", string(r.code), "err", text) // standard output is for programs
	}
	m.starter.out.change(change{event: failed, endpoint: m.spec.name, code: r.code, cause: text})
	if counts {
		offer(m.starter.changed, struct{}{})
	}
}

// failure is why the endpoint has failed, or nil.
func (m *member) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// over reports whether it is not tried any more.
func (m *member) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// replace drains the endpoint for another one of its name. What is said of its end would
// be taken for the other's.
func (m *member) replace() {
	m.mu.Lock()
	m.replaced = true
	m.mu.Unlock()
	m.end(errChanged)
}

// end drains the endpoint, which is in the configuration no longer, or not so. Its requests
// are not replayed by it any more.
func (m *member) end(why error) {
	m.mu.Lock()
	m.former = true
	m.mu.Unlock()
	m.inspector.leave(m.spec.name)
	m.leave(why)
}

func (m *member) change(c change) {
	c.endpoint = m.spec.name
	m.mu.Lock()
	switch c.event {
	case tunnel.Ready, tunnel.Reconnected:
		m.up, m.wasUp, m.err = true, true, nil
		m.stay()
	case tunnel.Disconnected:
		if lose, away := m.lose, m.spec.failover; lose != nil && m.away == nil {
			m.away = time.AfterFunc(away, func() { lose(lostServer{away}) })
		}
	}
	c.former = m.former
	hidden := m.replaced && c.event != tunnel.Draining
	m.mu.Unlock()
	if !hidden {
		m.starter.out.change(c)
	}
}

func (m *member) request(r request) {
	r.endpoint = m.spec.name
	m.starter.out.request(r)
}

// close leaves the output to the others.
func (m *member) close() {}
