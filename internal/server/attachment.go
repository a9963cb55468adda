package server

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/protocol"
)

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
