package auth

import (
	"container/list"
	"context"
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
	// siteFactor is how many times one address's limit an IPv6 /48 has.
	siteFactor = 2
	// allFactor is how many times one address's limit all addresses have together.
	allFactor = 20
	// firstFactor is the same for the failures that are a site's first within a
	// window, which count for nothing else.
	firstFactor = 120
	// maxKnown is how many addresses are remembered that logged in.
	maxKnown = 16_384
	// maxWrong is how many wrong tokens of an address are remembered.
	maxWrong = 8
	// ofIssued is the door where tokens count that others issue, see place: no endpoint
	// has that name.
	ofIssued = "oidc:"
)

// Throttle limits failed logins: those of one address, where all of an IPv6 /64
// are one; those of an IPv6 /48, which may be twice as many; and those of all
// addresses together, which may be 20 times as many. What is over a limit is
// refused without a look at the token, or the answer would tell whether it was
// right.
//
// Who did not guess is spared. A site, which is an IPv4 address or an IPv6 /48,
// that has not failed for a minute is no part of all: its first failure counts
// against a limit of its own, of 120 times PerMinute. So nobody else is shut out
// by who has fewer than that many sites, and 140 times PerMinute is what can be
// guessed in a minute at most. The last 16,384 addresses that logged in are
// subject to their own limit alone, and add as much each; a session that logged
// in with the same token before, of the last 16,384, is subject to none: its id
// is a secret, so that nothing can be guessed with it. No token is no guess, nor
// is the same wrong one again, as of a client that a supervisor starts over and
// over.
//
// A token that somebody else issued is dear to tell, so that each look at one counts that did not
// end with a login, also at one that was seen before, and at one that could not be told as the
// issuer is away. That is counted apart, within the same limits, so that an issuer which is away
// shuts out nobody who shows another kind of token.
//
// It keeps, of each door, at most 840 times PerMinute networks that failed, and 16,384
// addresses, 180 to 500 bytes each; a session is 180. A clock that is set
// changes nothing.
type Throttle struct {
	Auth      Authenticator
	PerMinute int          // failed logins of one address in a minute; 0: no limit
	Log       *slog.Logger // nil discards; one line a minute at most

	mu      sync.Mutex // guards the following, and makes guesses that come at once count one after the other
	sources map[place]*source
	known   list.List // of the *source that logged in, the last one first
	logins  logins
	totals  map[string]*total // by place.of
	swept   time.Time
	warned  time.Time
	refused int // since warned
}

// place is where a login came from, and of what: what fails at one door shuts nobody out
// of another's.
type place struct {
	of string // "": the server's own
	netip.Prefix
}

// total is what failed at one door.
type total struct {
	first debt // of sites that had not failed of late
	all   debt // of the others
}

// source is an address, or a site, that failed within the last minutes, or an
// address that is known.
type source struct {
	known  *list.Element // nil: it is not
	debt   debt
	failed time.Time // the last time, of a site
	wrong  []digest  // the last tokens that were compared and wrong
}

func (s *source) failedOfLate(now time.Time) bool {
	return !s.failed.IsZero() && now.Sub(s.failed) < window
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

// preparer is an authenticator that may have to ask others before it can tell a token.
type preparer interface {
	// Issued reports whether it is dear to tell token, and others may have to be asked. It
	// looks at the form alone.
	Issued(token string) bool
	// Prepare returns when that is done, or of no use, or ctx has ended.
	Prepare(ctx context.Context, token string)
}

// Authenticate is that of [Authenticator] for a client at from. The zero address
// is one like any other. The error may be a [*Throttled], too. Where others have to be
// asked before token can be told, nobody else waits for that; ctx ends the wait.
func (t *Throttle) Authenticate(ctx context.Context, from netip.Addr, token, session string) (Identity, error) {
	p, asks := t.Auth.(preparer)
	asks = asks && p.Issued(token)
	limited := t.PerMinute > 0 && token != ""
	g := guess{from: from, token: sha256.Sum256([]byte(token)), session: sha256.Sum256([]byte(session)), issued: asks}
	if asks {
		if limited {
			if err := t.ahead(&g); err != nil {
				return Identity{}, err
			}
		}
		p.Prepare(ctx, token)
	}
	if !limited {
		return t.Auth.Authenticate(token, session)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refuse(&g); err != nil {
		return Identity{}, err
	}
	id, err := t.Auth.Authenticate(token, session)
	t.note(&g, err)
	return id, err
}

// guess is a login, which may be one.
type guess struct {
	from           netip.Addr
	token, session digest
	issued         bool // see preparer
	known          bool // the session logged in with the token before
	free           bool // it is known, or the token is known to be wrong
}

// ahead is refuse before anything was done for g.
func (t *Throttle) ahead(g *guess) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refuse(g)
}

// refuse returns a [*Throttled] where g is over a limit. The caller holds mu.
func (t *Throttle) refuse(g *guess) error {
	now := time.Now()
	address, site := places("", g.from)
	s := t.sources[address]
	g.known = t.logins.know(g.session, g.token)
	g.free = g.known || s != nil && slices.Contains(s.wrong, g.token)
	var wait time.Duration
	if !g.free {
		wait = t.wait(address, site, now)
	}
	if g.issued && !g.known {
		address, site = places(ofIssued, g.from)
		wait = max(wait, t.wait(address, site, now))
	}
	if wait == 0 {
		return nil
	}
	t.warn(g.from, now)
	return &Throttled{RetryAfter: wait}
}

// note counts g, which was looked at with that error. The caller holds mu.
func (t *Throttle) note(g *guess, err error) {
	now := time.Now()
	address, site := places("", g.from)
	switch {
	case err == nil:
		t.remember(t.source(address, now))
		t.logins.add(g.session, g.token)
	case !g.free && errors.Is(err, &protocol.Error{Code: protocol.Unauthorized}):
		t.failed(address, site, now).guessed(g.token)
	}
	if !g.issued || g.known {
		return
	}
	address, site = places(ofIssued, g.from)
	if err == nil {
		t.remember(t.source(address, now))
		return
	}
	t.failed(address, site, now)
}

// Wait is how long no secret is to be looked at that comes from there; 0: it may be. It is
// for what is compared elsewhere, where each comparison is told to [Throttle.Count] before
// the next one asks. A nil Throttle has no limit.
// Each of, such as an endpoint's name, is counted for itself.
func (t *Throttle) Wait(of string, from netip.Addr) time.Duration {
	if t == nil || t.PerMinute <= 0 {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	address, site := places(of, from)
	wait := t.wait(address, site, now)
	if wait > 0 {
		t.warn(from, now)
	}
	return wait
}

// Count notes that a secret which came from there was compared, and whether it was right.
func (t *Throttle) Count(of string, from netip.Addr, right bool) {
	if t == nil || t.PerMinute <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	address, site := places(of, from)
	if right {
		t.remember(t.source(address, now))
		return
	}
	t.failed(address, site, now)
}

// Site is the network that one customer of a provider may have: all of an IPv6
// /48, or an IPv4 address. The zero address is at the zero Prefix.
func Site(a netip.Addr) netip.Prefix { return network(a, 48) }

// places are the address and the site of from.
func places(of string, from netip.Addr) (address, site place) {
	return place{of, network(from, 64)}, place{of, Site(from)}
}

// network is a itself, or that many bits of it where it is of IPv6.
func network(a netip.Addr, bits int) netip.Prefix {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		bits = a.BitLen()
	}
	p, _ := a.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}

// wait is how long address at there is not listened to.
func (t *Throttle) wait(address, there place, now time.Time) time.Duration {
	s, site := t.sources[address], t.sources[there]
	sum := t.totals[address.of]
	if sum == nil {
		sum = new(total)
	}
	var own time.Duration
	if s != nil {
		own = s.debt.wait(now, t.PerMinute)
		if s.known != nil {
			return own
		}
	}
	if site == nil || !site.failedOfLate(now) {
		return max(own, sum.first.wait(now, t.PerMinute*firstFactor))
	}
	if site != s {
		own = max(own, site.debt.wait(now, t.PerMinute*siteFactor))
	}
	return max(own, sum.all.wait(now, t.PerMinute*allFactor))
}

// failed counts a wrong token against all that it is to count against, and returns whose
// it was.
func (t *Throttle) failed(address, network place, now time.Time) *source {
	s := t.source(address, now)
	s.debt.add(now, t.PerMinute)
	if s.known != nil {
		return s
	}
	site := t.source(network, now)
	if site != s {
		site.debt.add(now, t.PerMinute*siteFactor)
	}
	sum := t.totals[address.of]
	if sum == nil {
		sum = new(total)
		if t.totals == nil {
			t.totals = make(map[string]*total)
		}
		t.totals[address.of] = sum
	}
	if site.failedOfLate(now) {
		sum.all.add(now, t.PerMinute*allFactor)
	} else {
		sum.first.add(now, t.PerMinute*firstFactor)
	}
	site.failed = now
	return s
}

func (s *source) guessed(sum digest) {
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
func (t *Throttle) source(at place, now time.Time) *source {
	if now.Sub(t.swept) >= window {
		t.swept = now
		for p, s := range t.sources {
			if s.known == nil && !s.debt.until.After(now) && !s.failedOfLate(now) {
				delete(t.sources, p)
			}
		}
		for of, sum := range t.totals {
			if !sum.first.until.After(now) && !sum.all.until.After(now) {
				delete(t.totals, of)
			}
		}
	}
	s := t.sources[at]
	if s == nil {
		s = new(source)
		if t.sources == nil {
			t.sources = make(map[place]*source)
		}
		t.sources[at] = s
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
