// Package server runs a tunnel server: it takes clients' sessions, claims names
// for them in the registry, and starts and stops the edge that visitors reach
// them by. Begin reading at [Server.Run].
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Config says how a server runs. Durations of 0 are their defaults where one is
// named, and off where not.
type Config struct {
	// Listen is the address for visitors and clients. Default 127.0.0.1:8080.
	Listen string
	// Domain is the parent of the public names. Default "localhost".
	Domain string
	// PathNames makes each name public as a path of the server's own host, too:
	// https://Domain/NAME/. It is what clients are told then.
	PathNames bool
	// Resolver looks up who may claim a custom domain. Default: the system's.
	Resolver Resolver
	// PublicURL is where visitors find the server, if not at Listen: scheme, host
	// and port. Nil: http, and the port of Listen; or https, and the port of TLS.
	PublicURL *url.URL
	// Trusted are the proxies whose X-Forwarded-* fields are believed, and whose
	// connections may begin with a header of the PROXY protocol.
	Trusted []netip.Prefix
	// TLS says how the server ends TLS. Nil: it does not.
	TLS *TLS

	// TCPPorts are the ports that clients may have for connections, at the host of
	// TLS.Listen, or of Listen where there is no TLS. Default: none.
	TCPPorts Ports
	// UDPPorts are the ports that clients may have for datagrams, at the same host.
	// Default: none. They may be the same as TCPPorts.
	UDPPorts Ports
	// UDPIdle is how long a visitor of such a port is remembered of whom and for whom
	// nothing came, UDPVisitors how many a port may have. Default 2 minutes, 1,000.
	UDPIdle     time.Duration
	UDPVisitors int

	// Auth decides who may connect. Needed.
	Auth auth.Authenticator
	// LoginFailures is how many failed logins one address may have in a minute, and
	// all together 140 times as many, see [auth.Throttle]; and, counted apart, how many
	// wrong passwords of visitors there may be. 0: no limit.
	LoginFailures int
	// Registry keeps the names. Default: in memory.
	Registry registry.Registry

	// Grace is how long Run, when its context ended, lets finish what is under way.
	Grace time.Duration
	// Hold is how long a dropped client's names stay its own.
	Hold time.Duration
	// Park is how long a request waits for a client that dropped.
	Park time.Duration

	MaxHeaderBytes int           // of a request; default 64 KiB
	MaxURIBytes    int           // default 16 KiB
	HeaderTimeout  time.Duration // to send a request's header
	IdleTimeout    time.Duration // between two requests of a visitor's connection
	MaxSessions    int           // clients connected at once; default 10,000
	MaxRequests    int           // under way on one session; default 10,000
	MaxStreams     int           // opened in a session's life, before another takes over; default 2,147,483,647
	MaxNames       int           // of one session; default 100

	// Memory is the limit of what the server holds. When it is near, requests and
	// sessions are refused. Nil: none.
	Memory *pace.Memory

	Agent string       // says "tunnel-server/VERSION" to clients
	Log   *slog.Logger // nil discards
}

// unreadPart is the part of the memory limit that may be of bytes which arrived
// from clients and no visitor has read.
const unreadPart = 4

// Server is one node. Make it with [New].
type Server struct {
	c        Config
	log      *slog.Logger
	listener net.Listener
	tls      net.Listener // nil: no TLS
	quic     *net.UDPConn // HTTP/3's; nil: none
	http3    *edge.HTTP3
	edge     *edge.HTTP
	gate     *edge.Gate
	budget   *mux.Budget // of what arrived from clients and no visitor has read
	http     *http.Server
	port     string // of the public URLs
	tcp      *edge.TCP
	udp      *edge.UDP
	sni      *edge.TLS // nil: no TLS
	last     lastPorts
	proofs   *proofs
	resume   resumer
	throttle auth.Throttle
	refused  refused
	origins  origins // attached by PTTH
	draining atomic.Bool

	running sync.WaitGroup // sessions, and what they start
	passing sync.WaitGroup // streams to private endpoints; none is added while the server drains

	mu       sync.Mutex               // guards the following
	sessions map[string]*session      // by SESSION, once they said hello
	leaving  map[*session]struct{}    // those whose next connection is there, see renew.go
	shaking  map[mux.Session]struct{} // those that have not said hello
	open     int                      // connections of both kinds
}

// New makes a server that listens, and serves once [Server.Run] is called. The
// error is of the configuration or of listening.
func New(c Config) (*Server, error) {
	if c.Auth == nil {
		return nil, errors.New("server: Config.Auth is needed")
	}
	setDefault(&c.Listen, "127.0.0.1:8080")
	setDefault(&c.Domain, "localhost")
	setDefault(&c.MaxHeaderBytes, 64<<10)
	setDefault(&c.MaxURIBytes, 16<<10)
	setDefault(&c.MaxSessions, 10_000)
	setDefault(&c.MaxNames, 100)
	if c.Registry == nil {
		c.Registry = &registry.Memory{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, log: c.Log, proofs: newProofs(c.Resolver), sessions: make(map[string]*session), leaving: make(map[*session]struct{}), shaking: make(map[mux.Session]struct{})}
	rand.Read(s.resume.key[:])
	limits := edge.Limits{HeaderTimeout: c.HeaderTimeout, IdleTimeout: c.IdleTimeout}
	if c.Memory != nil && c.Memory.Limit > 0 {
		s.budget = mux.NewBudget(int64(c.Memory.Limit / unreadPart))
	}
	s.gate = &edge.Gate{Memory: c.Memory, Unread: s.budget, Log: c.Log}
	if err := s.listen(limits); err != nil {
		return nil, err
	}
	s.edge = &edge.HTTP{
		Registry: c.Registry, Own: s.own(), Domain: c.Domain, PathNames: c.PathNames, Public: c.PublicURL, Trusted: c.Trusted,
		Park: c.Park, MaxURI: c.MaxURIBytes, MaxHeader: c.MaxHeaderBytes, Gate: s.gate, Secure: s.secure(), Log: c.Log,
		Logins: &auth.Throttle{PerMinute: c.LoginFailures, Log: c.Log.With("of", "visitors")},
	}
	s.http = s.edge.Server(limits)
	if s.quic != nil {
		var err error
		if s.http3, err = s.edge.HTTP3(s.quic, s.sni.Except(c.TLS.GetCertificate), limits); err != nil {
			s.closeListeners()
			return nil, fmt.Errorf("server: %w", err)
		}
	}
	host := s.portsHost()
	s.tcp = &edge.TCP{Registry: c.Registry, Host: host, Proxies: c.Trusted, Park: c.Park, Gate: s.gate, Log: c.Log}
	s.udp = &edge.UDP{Registry: c.Registry, Host: host, Idle: c.UDPIdle, Visitors: c.UDPVisitors, Gate: s.gate, Log: c.Log}
	s.throttle = auth.Throttle{Auth: c.Auth, PerMinute: c.LoginFailures, Log: c.Log}
	return s, nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then drains: it takes no new session, tells the
// clients to go, and lets what is under way finish for Config.Grace at most.
// When it returns, everything that it started has ended. It is called once.
func (s *Server) Run(ctx context.Context) error {
	served := s.serve()
	watching, stopWatching := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	if w, ok := s.c.Auth.(watcher); ok {
		watch.Go(func() { w.Run(watching, s.endRevoked) })
	}
	watch.Go(func() { s.gate.Run(watching) })
	watch.Go(func() { s.lookAfter(watching, served) })
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("server: %w", err)
		s.closeServers()
	case <-ctx.Done():
		s.drain()
	}
	stopWatching()
	watch.Wait() // it ends sessions, too
	s.end()
	s.log.Info("stopped")
	return err
}

// watcher is an authenticator that notices when tokens are taken away.
type watcher interface {
	Run(ctx context.Context, changed func()) error
}

// drain takes no more sessions, and lets what is under way finish.
func (s *Server) drain() {
	s.log.Info("draining", "grace", s.c.Grace)
	s.refuseSessions()
	var telling sync.WaitGroup
	for _, one := range s.all() {
		telling.Add(1)
		s.running.Go(func() {
			defer telling.Done()
			one.send(&protocol.Message{Drain: &protocol.Drain{Reason: "the server is shutting down"}})
		})
	}
	told := make(chan struct{})
	s.running.Go(func() { telling.Wait(); close(told) })
	grace, cancel := context.WithTimeout(context.Background(), s.c.Grace)
	defer cancel()
	var ports sync.WaitGroup
	ports.Go(func() { s.tcp.Shutdown(grace) })
	ports.Go(func() { s.passed(grace) })
	ports.Go(func() { s.udp.Shutdown(grace) })
	if s.sni != nil {
		ports.Go(func() { s.sni.Shutdown(grace) })
	}
	if err := s.shutdown(grace); err != nil {
		s.log.Warn("grace is over, ending what is left", "grace", s.c.Grace)
	}
	ports.Wait()
	select {
	case <-told: // bye is to come after it
	case <-time.After(farewellTime): // but not for those that read nothing
	}
}

// end ends all sessions and ports, and waits for them.
func (s *Server) end() {
	s.refuseSessions()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	s.tcp.Shutdown(now) // also where there was no drain
	s.udp.Shutdown(now)
	if s.sni != nil {
		s.sni.Shutdown(now)
	}
	s.mu.Lock()
	for m := range s.shaking {
		s.running.Go(func() { m.Close() })
	}
	s.mu.Unlock()
	for _, one := range s.all() {
		one.end(&protocol.Error{Code: protocol.Draining, Message: "the server is shutting down"}, s.c.Hold)
	}
	s.closeOrigins()
	s.running.Wait()
}

// begin counts a connection that is about to be a session of id, unless there
// are too many or the server drains: then running may be waited for. One whose
// session is there may be its next, and finds room beyond the limit, also where memory is full.
func (s *Server) begin(id string) *protocol.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, next := s.c.MaxSessions, s.sessions[id] != nil
	if next {
		limit *= 2
	}
	switch {
	case s.draining.Load():
		return &protocol.Error{Code: protocol.Draining, Message: "the server is shutting down", Hint: "try again in a moment"}
	case s.open >= limit:
		return &protocol.Error{Code: protocol.TooManySessions, Message: "the server has as many clients as it takes", Hint: "try again later, or raise --max-sessions on the server"}
	case !next && s.c.Memory.Full():
		return &protocol.Error{Code: protocol.Overloaded, Message: "the server's memory is full", Hint: "try again in a moment, or raise --memory-limit on the server"}
	}
	s.open++
	s.running.Add(1)
	return nil
}

// over is the end of what began.
func (s *Server) over() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.running.Done()
}

// shake notes that m has not said hello yet, so that the server's end does not
// wait for it. It reports whether there is still time to.
func (s *Server) shake(m mux.Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.shaking[m] = struct{}{}
	return true
}

func (s *Server) shaken(m mux.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shaking, m)
}

func (s *Server) refuseSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining.Store(true)
}

func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.AppendSeq(make([]*session, 0, len(s.sessions)+len(s.leaving)), maps.Keys(s.leaving))
	for _, one := range s.sessions {
		all = append(all, one)
	}
	return all
}

// endRevoked ends the sessions whose token was taken away (R41), or may not claim
// any more what they have: those claim again, and learn it.
func (s *Server) endRevoked() {
	for _, one := range s.all() {
		if !s.c.Auth.Valid(one.identity) {
			one.end(errRevoked(), 0)
		} else if name := one.overclaims(); name != "" {
			one.end(&protocol.Error{Code: protocol.SessionFenced, Message: "the rights of the token have changed, and " + name + " is none of them"}, 0)
		}
	}
	s.endOrigins()
}

func errRevoked() *protocol.Error {
	return &protocol.Error{
		Code: protocol.TokenRevoked, Message: "the token of this session was taken away",
		Hint: "ask the server's operator for a new one",
	}
}

// ownName reports whether name's public host, or path, is the server's own.
func (s *Server) ownName(name string) bool {
	if s.c.PathNames && slices.Contains(edge.OwnPaths(), name) {
		return true
	}
	return s.c.PublicURL != nil && strings.EqualFold(s.c.PublicURL.Hostname(), name+"."+s.c.Domain)
}

// publicHost is where visitors find the server's ports.
func (s *Server) publicHost() string {
	if p := s.c.PublicURL; p != nil {
		return p.Hostname()
	}
	return s.c.Domain
}

// nameURL is where visitors find name.
func (s *Server) nameURL(name string) string {
	if s.c.PathNames {
		return s.publicURL(s.publicHost()) + "/" + name + "/"
	}
	return s.publicURL(name + "." + s.c.Domain)
}

// publicURL is where visitors find host.
func (s *Server) publicURL(host string) string {
	scheme, port, standard := s.scheme()
	if port == "" || port == standard {
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
