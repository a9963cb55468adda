package server

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// claim binds the name that b asks for, or a random one, or a port. The error is a
// *protocol.Error or the registry's.
func (s *session) claim(b *protocol.Bind) (*protocol.Bound, error) {
	p, err := policyOf(b)
	if err != nil {
		return nil, err
	}
	if b.Name != "" {
		if err := protocol.CheckName(b.Name); err != nil {
			return nil, err
		}
	}
	if err := s.authorize(b); err != nil {
		return nil, err
	}
	if b.Private {
		return s.claimPrivate(b)
	}
	switch b.Kind {
	case "", protocol.KindHTTP:
		return s.claimHTTP(b, p)
	case protocol.KindTCP:
		return s.claimTCP(b, p)
	case protocol.KindUDP:
		return s.claimUDP(b, p)
	case protocol.KindTLS:
		return s.claimTLS(b, p)
	}
	return nil, &protocol.Error{Code: protocol.KindUnsupported, Message: "this server has no routes of kind " + string(b.Kind)}
}

func (s *session) claimHTTP(b *protocol.Bind, p *policy.Policy) (*protocol.Bound, error) {
	var route *registry.Route
	name, err := named(b.Name, func(name string) error {
		route = &registry.Route{Name: name, Kind: protocol.KindHTTP, Generation: b.Generation, Policy: p, Ends: ends(b), HTTP: s.pool.Route(name)}
		return s.bindRoute(route)
	})
	if err != nil {
		return nil, err
	}
	urls, err := s.bindDomains(route, b.Domains)
	return &protocol.Bound{Name: name, URL: s.server.nameURL(name), URLs: urls}, err
}

// named binds name, or random ones until one is free where it is "".
func named(name string, bind func(name string) error) (string, error) {
	if name != "" {
		return name, bind(name)
	}
	for range 9 {
		name := protocol.RandomName()
		err := bind(name)
		if !errors.Is(err, &protocol.Error{Code: protocol.NameTaken}) {
			return name, err
		}
	}
	name = protocol.RandomName()
	return name, bind(name)
}

// portClaim is what differs between the kinds of ports.
type portClaim struct {
	kind  protocol.Kind
	ports Ports
	name  func(port int) string // of the registry
	dial  func(name string) func(context.Context, netip.AddrPort) (net.Conn, error)
	open  func(port int, owner string) error
}

func (s *session) claimTCP(b *protocol.Bind, p *policy.Policy) (*protocol.Bound, error) {
	return s.claimPort(b, p, portClaim{protocol.KindTCP, s.server.c.TCPPorts, edge.TCPName, s.pool.Dial, func(port int, _ string) error { return s.server.tcp.Open(port) }})
}

func (s *session) claimUDP(b *protocol.Bind, p *policy.Policy) (*protocol.Bound, error) {
	return s.claimPort(b, p, portClaim{protocol.KindUDP, s.server.c.UDPPorts, edge.UDPName, s.pool.DialUDP, s.server.udp.Open})
}

// claimPort binds a port. The name chooses it, and is nobody else's business.
func (s *session) claimPort(b *protocol.Bind, p *policy.Policy, c portClaim) (*protocol.Bound, error) {
	name := cmp.Or(b.Name, protocol.RandomName())
	key := portKey{c.kind, s.owner, name}
	owner := key.routeOwner()
	last := s.server.last.of(key)
	taken := &protocol.Error{Code: protocol.NameTaken, Message: "the name " + name + " is taken", Hint: "choose another with --name, or stop the client that has it"}
	if last.port != 0 && s.server.isAlive(c.name(last.port), owner) {
		return nil, taken
	}
	another := func(port int) bool { return s.server.last.another(key, port) }
	port, err := c.ports.claim(s.owner, name, b.Port, last.port, another, func(port int) error {
		route := &registry.Route{Name: c.name(port), Owner: owner, Kind: c.kind, Policy: p, Ends: ends(b), Dial: c.dial(name)}
		if err := s.bindRoute(route); err != nil {
			return err
		}
		err := c.open(port, owner)
		if err != nil {
			s.unbind(route.Name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for {
		now := s.server.last.keepAfter(key, last, port)
		if now.port == port {
			break
		}
		// Two clients with one name came at once, and the other was first.
		if s.server.isAlive(c.name(now.port), owner) {
			s.unbind(c.name(port))
			return nil, taken
		}
		last = now
	}
	s.remember(name, c.name(port))
	return &protocol.Bound{Name: name, Port: port, URL: string(c.kind) + "://" + net.JoinHostPort(s.server.publicHost(), strconv.Itoa(port))}, nil
}

// remember notes what the registry knows name as.
func (s *session) remember(name, route string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.routes == nil {
		s.routes = make(map[string]string)
	}
	s.routes[name] = route
}

// closing is release for a route that may have a port, which is to be closed then.
func (s *Server) closing(route *registry.Route, release registry.Release) registry.Release {
	kind, port, _ := strings.Cut(route.Name, "/")
	n, _ := strconv.Atoi(port)
	released := map[string]func(int){"tcp": s.tcp.Released, "udp": s.udp.Released}[kind]
	if n == 0 || released == nil {
		return release
	}
	return func(hold time.Duration) {
		release(hold)
		released(n)
	}
}

// isAlive reports whether name is bound, by owner, to a client that is there.
func (s *Server) isAlive(name, owner string) bool {
	route, err := s.c.Registry.Lookup(context.Background(), name)
	if err != nil || route.Owner != owner {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	return route.Alive == nil || route.Alive(ctx)
}

// policyOf checks what the client said of its local app, and of who may visit it.
func policyOf(b *protocol.Bind) (*policy.Policy, error) {
	if err := checkShare(b); err != nil {
		return nil, err
	}
	u := b.Upstream
	switch {
	case u == nil && !b.Visitor && b.Share == nil:
		return nil, nil
	case u == nil:
		return &policy.Policy{Visitor: b.Visitor, Share: b.Share}, nil
	}
	bad := u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(u.Host) > 255
	if bad || strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/?#@\"<>`, r) }) {
		return nil, &protocol.Error{Code: protocol.ProtocolViolation, Message: "the upstream of a bind is not http or https and a host"}
	}
	return &policy.Policy{Scheme: u.Scheme, Host: u.Host, Visitor: b.Visitor, Share: b.Share}, nil
}

// bindRoute binds one route of the session's, which counts in its pool, and keeps its
// release, unless the session ended meanwhile.
func (s *session) bindRoute(route *registry.Route) error {
	name := route.Name
	err := s.tryBind(route)
	if err != nil {
		s.pool.Drop()
	}
	if errors.Is(err, registry.ErrNewer) {
		return &protocol.Error{
			Code: protocol.NameTaken, Message: "a newer run has the name " + name,
			Hint: "nothing to do, its --generation is higher",
		}
	}
	if errors.Is(err, registry.ErrTaken) {
		return &protocol.Error{
			Code: protocol.NameTaken, Message: "the name " + name + " is taken",
			Hint: "choose another with --name, or stop the client that has it",
		}
	}
	return err
}

func (s *session) tryBind(route *registry.Route) error {
	name := route.Name
	s.mu.Lock()
	release, mine := s.names[name]
	n := len(s.names)
	s.mu.Unlock()
	switch {
	case s.server.ownName(name):
		return &protocol.Error{Code: protocol.NameTaken, Message: "the name " + name + " is the server's own", Hint: "choose another with --name"}
	case mine && release != nil:
		return &protocol.Error{Code: protocol.NameTaken, Message: "this session has the name " + name + " already"}
	case n >= s.server.c.MaxNames:
		return &protocol.Error{Code: protocol.TooManyNames, Message: "this session has as many names as it may"}
	}
	route.Owner, route.Group, route.Alive = cmp.Or(route.Owner, s.owner), s.group, s.alive
	route.Silent = func() bool { return errors.Is(s.mux.Err(), mux.ErrSilent) }
	route.Lost = func() {
		if s.replaced.Load() {
			s.moved(name)
			return
		}
		// It connects again, one that was silent when it wakes up, and learns which of its
		// names are left.
		s.end(&protocol.Error{Code: protocol.SessionFenced, Message: "another client of the same token took the name " + name}, s.server.c.Hold)
	}
	release, err := s.server.c.Registry.Bind(context.Background(), route)
	if err != nil {
		return err
	}
	release = s.server.closing(route, release)
	s.mu.Lock()
	if !s.ended {
		s.names[name] = s.ending(route, release)
		release = nil
	}
	s.mu.Unlock()
	if release != nil {
		release(0)
		return &protocol.Error{Code: protocol.Draining, Message: "the session has ended"}
	}
	return nil
}

// alive asks the client for a sign of life. Any byte is one: on a slow link the
// answer itself may stand behind much else.
func (s *session) alive(ctx context.Context) bool {
	if s.replaced.Load() {
		return false // it may be well, but its names are the next connection's
	}
	asked := time.Now()
	_, err := s.mux.Ping(ctx)
	return err == nil || s.mux.Idle() < time.Since(asked)
}

// probeTime is how long a client may take to say that it is there.
const probeTime = 3 * time.Second

// resumer makes and checks the secrets with which a session's next connection
// takes over. They are sealed rather than kept: a session that was lost long ago
// costs nothing, and a restart of the server makes all of them void.
type resumer struct{ key [32]byte }

const nonceSize = 16

// check returns the secret for the welcome, and to whom the session's names
// belong: to the identity, or, where no token was shown, to who has the secret.
func (r *resumer) check(shown, session string, id auth.Identity) (secret, owner string, resumed bool) {
	var nonce [nonceSize]byte
	if raw, err := base64.RawURLEncoding.DecodeString(shown); err == nil && len(raw) == nonceSize+sha256.Size {
		copy(nonce[:], raw)
		resumed = hmac.Equal(raw[nonceSize:], r.seal(nonce, session, id))
	}
	if !resumed {
		rand.Read(nonce[:])
	}
	secret = base64.RawURLEncoding.EncodeToString(append(nonce[:], r.seal(nonce, session, id)...))
	owner = id.ID
	if id.OfSession() {
		owner = "session:" + hex.EncodeToString(nonce[:])
	}
	return secret, owner, resumed
}

func (r *resumer) seal(nonce [nonceSize]byte, session string, id auth.Identity) []byte {
	m := hmac.New(sha256.New, r.key[:])
	m.Write(nonce[:])
	m.Write([]byte(session + "\x00" + id.ID))
	return m.Sum(nil)
}
