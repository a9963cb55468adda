package auth

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// window is what Throttle.PerMinute counts in.
	window = time.Minute
	// allFactor is how many times one address's limit all addresses have together.
	allFactor = 20
	// maxKnown is how many addresses are remembered that logged in.
	maxKnown = 16_384
	// maxWrong is how many wrong tokens of an address are remembered.
	maxWrong = 8
)

// Throttle limits failed logins: those of one address, where all of an IPv6 /64
// are one, and those of all addresses together, which may be 20 times as many.
// What is over a limit is refused without a look at the token, or the answer
// would tell whether it was right.
//
// Who did not guess is spared. Another address logs in as ever, and one that
// logged in before, of the last 16,384 that did, also when the limit of all is
// reached. No token is no guess, nor is the same wrong one again, as of a
// client that a supervisor starts over and over.
//
// It keeps at most 60 times PerMinute addresses that failed, and the 16,384,
// 250 to 500 bytes each. A clock that is set changes nothing.
type Throttle struct {
	Auth      Authenticator
	PerMinute int          // failed logins of one address in a minute; 0: no limit
	Log       *slog.Logger // nil discards; one line a minute at most

	mu      sync.Mutex // guards the following, and makes guesses that come at once count one after the other
	sources map[netip.Prefix]*source
	known   list.List // of the *source that logged in, the last one first
	all     debt
	swept   time.Time
	warned  time.Time
	refused int // since warned
}

// source is an address that failed within the last minutes, or is known.
type source struct {
	prefix netip.Prefix
	known  *list.Element // nil: it is not
	debt   debt
	wrong  []digest // the last tokens that were compared and wrong
}

// debt is a bucket that drains by itself: when it will be empty.
type debt struct{ until time.Time }

// wait is how long until the bucket has room for one more of per a window.
func (d *debt) wait(now time.Time, per int) time.Duration {
	return max(0, max(0, d.until.Sub(now))+window/time.Duration(per)-window)
}

func (d *debt) add(now time.Time, per int) {
	if d.until.Before(now) {
		d.until = now
	}
	d.until = d.until.Add(window / time.Duration(per))
}

// Throttled is the error of a login that was refused unseen. It wraps a
// [*protocol.Error] with [protocol.LoginThrottled].
type Throttled struct {
	RetryAfter time.Duration // when the next one is looked at; above 0
}

func (e *Throttled) Error() string { return e.Unwrap().Error() }

// Unwrap returns the error for the client.
func (e *Throttled) Unwrap() error {
	return &protocol.Error{
		Code:    protocol.LoginThrottled,
		Message: "there were too many failed logins, and no token is looked at for a while",
		Hint:    "check the token, and try again later",
	}
}

// Authenticate is that of [Authenticator] for a client at from. The zero address
// is one like any other. The error may be a [*Throttled], too.
func (t *Throttle) Authenticate(from netip.Addr, token, session string) (Identity, error) {
	if t.PerMinute <= 0 || token == "" {
		return t.Auth.Authenticate(token, session)
	}
	prefix, sum := network(from), sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	s := t.sources[prefix]
	again := s != nil && slices.Contains(s.wrong, sum)
	if !again {
		if wait := t.wait(s, now); wait > 0 {
			t.warn(from, now)
			return Identity{}, &Throttled{RetryAfter: wait}
		}
	}
	id, err := t.Auth.Authenticate(token, session)
	switch {
	case err == nil:
		t.remember(t.source(prefix, now))
	case !again && errors.Is(err, &protocol.Error{Code: protocol.Unauthorized}):
		t.failed(t.source(prefix, now), sum, now)
	}
	return id, err
}

// network is what counts as one address.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64 // the least that a customer is given
	}
	p, _ := a.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}

// wait is how long s, which may be nil, is not listened to.
func (t *Throttle) wait(s *source, now time.Time) time.Duration {
	var own time.Duration
	if s != nil {
		own = s.debt.wait(now, t.PerMinute)
		if s.known != nil {
			return own
		}
	}
	return max(own, t.all.wait(now, t.PerMinute*allFactor))
}

func (t *Throttle) failed(s *source, sum digest, now time.Time) {
	s.debt.add(now, t.PerMinute)
	if s.known == nil {
		t.all.add(now, t.PerMinute*allFactor)
	}
	if len(s.wrong) == maxWrong {
		s.wrong = slices.Delete(s.wrong, 0, 1)
	}
	s.wrong = append(s.wrong, sum)
}

// remember notes that s logged in.
func (t *Throttle) remember(s *source) {
	if s.known != nil {
		t.known.MoveToFront(s.known)
		return
	}
	s.known = t.known.PushFront(s)
	if t.known.Len() > maxKnown {
		oldest := t.known.Remove(t.known.Back()).(*source)
		oldest.known = nil // the next sweep takes it
	}
}

// source returns the entry of prefix, and takes out those that say nothing any
// more.
func (t *Throttle) source(prefix netip.Prefix, now time.Time) *source {
	if now.Sub(t.swept) >= window {
		t.swept = now
		for p, s := range t.sources {
			if s.known == nil && !s.debt.until.After(now) {
				delete(t.sources, p)
			}
		}
	}
	s := t.sources[prefix]
	if s == nil {
		s = &source{prefix: prefix}
		if t.sources == nil {
			t.sources = make(map[netip.Prefix]*source)
		}
		t.sources[prefix] = s
	}
	return s
}

func (t *Throttle) warn(from netip.Addr, now time.Time) {
	t.refused++
	if t.Log == nil || !t.warned.IsZero() && now.Sub(t.warned) < window {
		return
	}
	t.Log.Warn("failed logins are throttled", "from", from.String(), "refused", t.refused)
	t.warned, t.refused = now, 0
}
