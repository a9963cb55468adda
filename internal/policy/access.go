package policy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Admits reports whether a visitor at from may visit, as far as addresses go. One whose
// address is not known may not where there is a list.
func (p *Policy) Admits(from netip.Addr) bool {
	if !p.Shares() || len(p.Share.Allow)+len(p.Share.Deny) == 0 {
		return true
	}
	from = from.Unmap().WithZone("")
	has := func(n netip.Prefix) bool { return n.Contains(from) }
	return from.IsValid() && !slices.ContainsFunc(p.Share.Deny, has) &&
		(len(p.Share.Allow) == 0 || slices.ContainsFunc(p.Share.Allow, has))
}

// Shares reports whether there is more to be looked at than how the app is called.
func (p *Policy) Shares() bool { return p != nil && p.Share != nil }

// ByPassword and ByLink report whether visitors are admitted by a password, and by a share
// link. With neither they need nothing.
func (p *Policy) ByPassword() bool { return p.Shares() && len(p.Share.BasicAuth) > 0 }

// ByLink: see ByPassword.
func (p *Policy) ByLink() bool { return p.Shares() && len(p.Share.Link) > 0 }

// NoIndex reports whether search engines are to stay away.
func (p *Policy) NoIndex() bool { return p.Shares() && p.Share.NoIndex }

// Link returns until when a share link's token is good; its error is
// [protocol.VerifyLink]'s.
func (p *Policy) Link(token string, now time.Time) (expires time.Time, err error) {
	id := p.entered.id("link", token)
	if expires, ok := p.entered.has(id); ok && now.Before(expires) {
		return expires, nil
	}
	if expires, err = protocol.VerifyLink(p.Share.Link, token, now); err == nil {
		p.entered.add(id, expires)
	}
	return expires, err
}

// Known reports whether name has shown this password before, and it was right.
func (p *Policy) Known(name, password string) bool {
	_, ok := p.entered.has(p.entered.id("user", name+":"+password)) // no name has a colon
	return ok
}

// Login reports whether password is name's. It takes tens of milliseconds of computing,
// also where there is no such user; [Policy.Known] does not.
func (p *Policy) Login(name, password string) bool {
	user := protocol.User{Salt: make([]byte, sha256.Size)}
	for _, one := range p.Share.BasicAuth {
		if one.Name == name {
			user = one
		}
	}
	if !user.Is(password) { // never of who has no hash
		return false
	}
	p.entered.add(p.entered.id("user", name+":"+password), time.Time{})
	return true
}

// Alone waits until nobody else looks at a password of p, and keeps others waiting until
// done is called.
func (p *Policy) Alone() (done func()) {
	p.login.Lock()
	return p.login.Unlock
}

// maxEntered is how many tokens and passwords are remembered that were right.
const maxEntered = 1000

// entered are the passwords and tokens that were right, as what nobody can turn back or
// try without this process's memory. The zero value has none.
type entered struct {
	mu   sync.Mutex // guards the following
	key  []byte
	good map[digest]time.Time // until when
}

type digest [sha256.Size]byte

func (e *entered) id(kind, secret string) (d digest) {
	e.mu.Lock()
	if e.key == nil {
		e.key = make([]byte, sha256.Size)
		rand.Read(e.key)
	}
	m := hmac.New(sha256.New, e.key)
	e.mu.Unlock()
	m.Write([]byte(kind + "\x00" + secret))
	m.Sum(d[:0])
	return d
}

func (e *entered) has(id digest) (until time.Time, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	until, ok = e.good[id]
	return until, ok
}

func (e *entered) add(id digest, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.good) >= maxEntered || e.good == nil {
		e.good = make(map[digest]time.Time) // those that are needed are looked at again
	}
	e.good[id] = until
}
