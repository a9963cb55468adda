package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/protocol"
)

// PTTH: an HTTP server that attaches itself, without a client of ours. It asks for the
// requests of its origins, and after the 101 they come on the same connection, by HTTP
// with the roles turned around. Each origin is a name, with a route like any other; all
// connections that one identity attaches for it serve it together.

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

// attachment is one connection of PTTH.
type attachment struct {
	claimant
	alpn    string
	share   *protocol.Share // for all its origins; nil: everybody may visit
	until   time.Time       // when the time is over that share gives it; the zero time: never
	origins []*origin
	byRight map[string]bool
	conn    net.Conn

	// Guarded by origins.mu: the following.
	line  *upstream.Line // nil: it is about to be
	ended bool           // its right was taken away
}

// transpose answers a request for PTTH.
func (s *Server) transpose(w http.ResponseWriter, r *http.Request) {
	from := s.edge.Visitor(r)
	alpn, err := transport.ChoosePTTH(w, r)
	if err != nil {
		s.refuseUpgrade(w, r, from, asError(err, protocol.BadRequest))
		return
	}
	asked, err := protocol.ParseOrigins(r.URL.EscapedPath())
	if err != nil {
		s.refuseUpgrade(w, r, from, &protocol.Error{Code: protocol.BadRequest, Message: err.Error()})
		return
	}
	share, err := protocol.ParsePolicy(r.Header)
	if err != nil {
		s.refuseUpgrade(w, r, from, asError(err, protocol.BadRequest))
		return
	}
	a := &attachment{alpn: alpn, share: share, until: ends(&protocol.Bind{Share: share})}
	a.server, a.log = s, s.log.With("remote", r.RemoteAddr, "transport", "ptth", "alpn", alpn)
	if err := s.identify(w, r, from, &a.claimant); err != nil {
		s.refuseUpgrade(w, r, from, err)
		return
	}
	names, refusal := a.mayServe(r.Context(), asked)
	if refusal == nil {
		refusal = s.begin("")
	}
	if refusal != nil {
		s.refuseUpgrade(w, r, from, refusal)
		return
	}
	if err := a.join(names); err != nil {
		s.over()
		s.refuseUpgrade(w, r, from, asError(err, protocol.NameTaken))
		return
	}
	conn, err := transport.AcceptPTTH(w, alpn, share)
	if err != nil {
		a.part(a.hold())
		s.over()
		var e *protocol.Error
		if errors.As(err, &e) {
			s.refuseUpgrade(w, r, from, e)
		}
		return
	}
	go func() {
		defer s.over()
		a.run(conn)
	}()
}

// identify finds out who asks: by a bearer token, by basic authentication with the
// token as the password, by a certificate, or, without any, nobody in particular.
func (s *Server) identify(w http.ResponseWriter, r *http.Request, from netip.Addr, c *claimant) *protocol.Error {
	token := bearer(r)
	if _, password, ok := r.BasicAuth(); ok {
		token = password
	}
	if token == "" && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.by = certify(r.TLS.PeerCertificates[0], s.c.Domain)
		c.identity, c.owner, c.group = c.by.identity, c.by.identity.ID, c.by.identity.ID
		return nil
	}
	id, err := s.throttle.Authenticate(r.Context(), from, token, rand.Text())
	if err != nil {
		retryLater(w, err)
		// A 401 names each way to log in.
		w.Header().Add("WWW-Authenticate", `Basic realm="tunnel", charset="UTF-8"`)
		e := *asError(err, protocol.Unauthorized)
		if e.Code == protocol.Unauthorized {
			e.Hint = "show a token of the server in the field Authorization; tunnel-client has it from --token-file or TUNNEL_TOKEN"
		}
		return &e
	}
	c.identity, c.owner, c.group = id, id.ID, group(id, from)
	return nil
}

// mayServe returns the names that lead to all. The error is of the first one that the
// claimant may not serve (S11).
func (a *attachment) mayServe(ctx context.Context, all []protocol.Origin) (names []string, refusal *protocol.Error) {
	if most := a.server.c.MaxNames; len(all) > most {
		return nil, &protocol.Error{Code: protocol.BadRequest, Message: "the list has more origins than a connection may have here", Hint: "attach a connection for each of them"}
	}
	if err := checkShare(&protocol.Bind{Share: a.share}); err != nil {
		return nil, asError(err, protocol.ShareUnsupported)
	}
	a.byRight = make(map[string]bool)
	for _, one := range all {
		name, err := a.server.nameOf(one)
		if err == nil {
			b := &protocol.Bind{Name: name}
			if isDomain(name) {
				b.Name, b.Domains = "", []string{name}
			}
			var byRight map[string]bool
			if byRight, err = a.authorizeOrigin(ctx, b); err == nil && isDomain(name) {
				a.byRight[name] = byRight[name]
			}
		}
		if err != nil {
			e := *asError(err, protocol.Forbidden)
			if e.Code != protocol.DomainUnverified {
				e.Code = protocol.Forbidden
			}
			e.Message = "origin " + one.String() + ": " + e.Message
			return nil, &e
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (a *attachment) authorizeOrigin(ctx context.Context, b *protocol.Bind) (map[string]bool, error) {
	if len(b.Domains) > 0 {
		return a.authorizeDomains(ctx, b, a.rights())
	}
	return a.authorize(ctx, b)
}

// nameOf returns the name of the registry that leads to o, which must be public here.
func (s *Server) nameOf(o protocol.Origin) (string, error) {
	name, below := strings.CutSuffix(o.Host, "."+s.c.Domain)
	if below {
		if err := protocol.CheckName(name); err != nil {
			return "", err
		}
	} else {
		if err := s.checkDomain(o.Host); err != nil {
			e := *asError(err, protocol.DomainInvalid)
			e.Hint = "origins here are " + s.publicURL("NAME."+s.c.Domain) + ", and custom domains"
			return "", &e
		}
		name = o.Host
	}
	public := s.publicURL(o.Host)
	if want, err := protocol.ParseOrigin(public); err != nil || want != o {
		return "", &protocol.Error{Code: protocol.Forbidden, Message: "it is not public here", Hint: "visitors find that host at " + public}
	}
	if s.ownName(name) {
		return "", &protocol.Error{Code: protocol.Forbidden, Message: "it is the server's own"}
	}
	return name, nil
}

// join makes the attachment one of those that serve names, and claims those that
// nobody serves yet. With an error it is one of none.
func (a *attachment) join(names []string) error {
	for _, name := range names {
		o, err := a.server.origin(&a.claimant, name, a.share, a.until)
		if err != nil {
			a.part(a.hold())
			return err
		}
		a.origins = append(a.origins, o)
	}
	return nil
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

// part is done, for all origins.
func (a *attachment) part(hold time.Duration) {
	for _, o := range a.origins {
		o.done(hold)
	}
}

// hold is how long its names are held when it has gone.
func (a *attachment) hold() time.Duration {
	a.server.origins.mu.Lock()
	defer a.server.origins.mu.Unlock()
	if a.ended || a.identity.OfSession() { // which will be somebody else when it comes back
		return 0
	}
	return a.server.c.Hold
}

// run serves the origins by conn until it ends.
func (a *attachment) run(conn net.Conn) {
	a.conn = conn
	defer a.server.detach(a)
	if !a.server.note(a) {
		conn.Close()
		a.part(a.hold())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	line, err := upstream.NewLine(ctx, conn, a.alpn == protocol.ALPNHTTP2)
	cancel()
	if err != nil {
		a.part(a.hold())
		a.log.Info("origin failed", "err", err)
		return
	}
	defer line.Close()
	if a.by != nil {
		defer time.AfterFunc(time.Until(a.by.until), line.Close).Stop()
	}
	names := make([]string, len(a.origins))
	for i, o := range a.origins {
		names[i] = o.name
	}
	log := a.log.With("names", strings.Join(names, ","))
	if !a.attach(line) {
		a.part(a.hold())
		return
	}
	log.Info("origin attached", "owner", a.owner)
	defer a.expires(line)()
	a.serve(line)
	<-line.Left()
	a.server.origins.mu.Lock()
	for _, o := range a.origins {
		o.silent = line.Silent()
	}
	a.server.origins.mu.Unlock()
	a.part(a.hold())
	log.Info("origin leaves", "silent", line.Silent())
	<-line.Done() // what is under way goes on
}

// serve has the origins' requests sent on line.
func (a *attachment) serve(line *upstream.Line) {
	a.server.origins.mu.Lock()
	for _, o := range a.origins {
		o.kept = true
	}
	a.server.origins.mu.Unlock()
	for _, o := range a.origins {
		o.lines.Add(line)
		o.lines.Check(line)
	}
	if a.isLost() { // just now
		line.Close()
	}
}

// expires has line end with its own time or the first of its origins', whichever ends
// first; what is under way then may finish. stop is to be called when line has ended.
func (a *attachment) expires(line *upstream.Line) (stop func()) {
	if a.until.IsZero() { // then none of its origins' time ends, or it were another policy
		return func() {}
	}
	until := a.until
	for _, o := range a.origins {
		if o.ends.Before(until) {
			until = o.ends
		}
	}
	timer := time.AfterFunc(time.Until(until), func() {
		ctx, cancel := context.WithTimeout(context.Background(), a.server.c.Grace)
		defer cancel()
		line.Shutdown(ctx)
	})
	return func() { timer.Stop() }
}

// note has a found by those that end attachments, unless the server drains.
func (s *Server) note(a *attachment) bool {
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	if s.origins.attached == nil {
		s.origins.attached = make(map[*attachment]struct{})
	}
	s.origins.attached[a] = struct{}{}
	return !s.draining.Load()
}

// attach makes line the attachment's, unless its token or a right was taken away
// meanwhile, or the server drains. It is noted before: those that end all see either
// the line or, here, that they have been.
func (a *attachment) attach(line *upstream.Line) bool {
	s := a.server
	s.origins.mu.Lock()
	a.line = line
	ended := a.ended
	s.origins.mu.Unlock()
	return !ended && !s.draining.Load() && a.valid() && a.overclaims() == "" && !a.isLost()
}

// end closes the connection, and with it the attachment.
func (a *attachment) end() {
	a.server.origins.mu.Lock()
	line := a.line
	a.server.origins.mu.Unlock()
	if line == nil {
		a.conn.Close()
		return
	}
	line.Close()
}

// isLost reports whether another route has taken one of the origins meanwhile.
func (a *attachment) isLost() bool {
	a.server.origins.mu.Lock()
	defer a.server.origins.mu.Unlock()
	return slices.ContainsFunc(a.origins, func(o *origin) bool { return a.server.origins.byName[o.name] != o })
}

func (s *Server) detach(a *attachment) {
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	delete(s.origins.attached, a)
}

func (s *Server) attachments() (all []*attachment) {
	s.origins.mu.Lock()
	defer s.origins.mu.Unlock()
	for a := range s.origins.attached {
		all = append(all, a)
	}
	return all
}

// overclaims returns a name that a has and may not have any more, or "".
func (a *attachment) overclaims() string {
	rights := a.rights()
	a.server.origins.mu.Lock()
	defer a.server.origins.mu.Unlock()
	for _, o := range a.origins {
		if isDomain(o.name) && a.byRight[o.name] && !rights.Domain(o.name) || !isDomain(o.name) && !rights.Name(o.name) {
			return o.name
		}
	}
	return ""
}

// endOrigins ends the attachments whose token was taken away, or whose rights do not
// reach as far as they did.
func (s *Server) endOrigins() {
	for _, a := range s.attachments() {
		if !a.valid() || a.overclaims() != "" {
			a.log.Info("ending origin", "code", string(protocol.TokenRevoked))
			s.origins.mu.Lock()
			a.ended = true
			s.origins.mu.Unlock()
			a.end()
		}
	}
}

// closeOrigins ends all attachments: those of HTTP/2 are told to go.
func (s *Server) closeOrigins() {
	for _, a := range s.attachments() {
		s.origins.mu.Lock()
		line := a.line
		s.origins.mu.Unlock()
		if line == nil {
			a.conn.Close()
			continue
		}
		s.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
			defer cancel()
			line.Shutdown(ctx)
		})
	}
}
