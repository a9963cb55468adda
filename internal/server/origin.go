package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/protocol"
)

// origins are those that are attached. The zero value has none.
type origins struct {
	mu       sync.Mutex // guards the following
	byName   map[string]*origin
	attached map[*attachment]struct{}
}

// origin is a name that connections of PTTH serve.
type origin struct {
	server  *Server
	name    string // the registry's
	owner   string
	share   *protocol.Share // who may visit; nil: everybody
	ends    time.Time       // when its time is over; the zero time: never
	lines   *upstream.Lines
	settled chan struct{} // closed when it is known whether the name could be bound

	// Guarded by origins.mu, and before settled by nothing: the following.
	err     error // why the name could not be bound
	release registry.Release
	using   int  // connections that serve it, or are about to
	kept    bool // it was served, or held for its owner before: it is to be held
	silent  bool // the last one was given up because nothing came from it
}

// origin returns the one that c's identity serves as name, by share. Each call is followed
// by one of done where there is no error.
func (s *Server) origin(c *claimant, name string, share *protocol.Share, until time.Time) (*origin, error) {
	for {
		s.origins.mu.Lock()
		o := s.origins.byName[name]
		switch {
		case o == nil:
			o = s.newOrigin(c, name, share, until)
			s.origins.mu.Unlock()
			o.bind(c.group)
			close(o.settled)
		case o.owner != c.owner:
			s.origins.mu.Unlock()
			return nil, originTaken(name)
		case !o.share.Same(share):
			s.origins.mu.Unlock()
			if !o.yields() {
				return nil, &protocol.Error{Code: protocol.NameTaken, Message: "other connections of yours serve the name " + name + " by another " + protocol.HeaderPolicy, Hint: "end them first"}
			}
			continue
		default:
			o.using++
			s.origins.mu.Unlock()
			<-o.settled
		}
		if o.err != nil {
			o.done(0)
			return nil, o.err
		}
		return o, nil
	}
}

// newOrigin notes one that nobody serves yet. The caller holds origins.mu.
func (s *Server) newOrigin(c *claimant, name string, share *protocol.Share, until time.Time) *origin {
	o := &origin{
		server: s, name: name, owner: c.owner, share: share, ends: until,
		lines: upstream.NewLines(s.c.MaxRequests), settled: make(chan struct{}), using: 1,
	}
	if s.origins.byName == nil {
		s.origins.byName = make(map[string]*origin)
	}
	s.origins.byName[name] = o
	return o
}

// yields gives the origin up if what serves it gives no sign of life, and reports
// whether it did.
func (o *origin) yields() bool {
	<-o.settled
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	if o.err == nil && o.lines.Alive(ctx) {
		return false
	}
	o.lost()
	return true
}

func originTaken(name string) *protocol.Error {
	return &protocol.Error{Code: protocol.NameTaken, Message: "another serves the name " + name, Hint: "stop it, or wait until its hold has passed"}
}

// bind claims the name.
func (o *origin) bind(group string) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	route := &registry.Route{
		Name: o.name, Owner: o.owner, Group: group, Kind: protocol.KindHTTP, Ends: o.ends, HTTP: o.lines,
		Alive: o.lines.Alive, Silent: o.wasSilent, Lost: o.lost,
	}
	if o.share != nil {
		route.Policy = &policy.Policy{Share: o.share}
	}
	_, err := o.server.c.Registry.Lookup(ctx, o.name)
	o.kept = errors.As(err, new(*registry.OfflineError))
	o.release, o.err = o.server.c.Registry.Bind(ctx, route)
	if errors.Is(o.err, registry.ErrTaken) {
		o.err = originTaken(o.name)
	}
}

func (o *origin) wasSilent() bool {
	o.server.origins.mu.Lock()
	defer o.server.origins.mu.Unlock()
	return o.silent
}

// lost ends what serves the name, as another route of its owner does now.
func (o *origin) lost() {
	o.forget()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	o.lines.Drop(now)
}

// forget lets the next attachment claim the name anew.
func (o *origin) forget() {
	o.server.origins.mu.Lock()
	defer o.server.origins.mu.Unlock()
	if o.server.origins.byName[o.name] == o {
		delete(o.server.origins.byName, o.name)
	}
}

// done is for each connection that serves the origin no more. The last one gives the
// name back, for hold if it was served or held before.
func (o *origin) done(hold time.Duration) {
	all := &o.server.origins
	all.mu.Lock()
	o.using--
	last := o.using == 0
	if last && all.byName[o.name] == o {
		delete(all.byName, o.name)
	}
	release := o.release
	if !o.kept {
		hold = 0
	}
	all.mu.Unlock()
	if last {
		o.lines.Abandon()
	}
	if last && release != nil {
		release(hold)
	}
}
