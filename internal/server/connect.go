package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Private endpoints: what one client asks for, another answers. A client that said
// so in its hello opens streams, each a CONNECT with the name of an endpoint, or, for
// datagrams, the upgrade that the server's own streams begin with.
//
// Names are each owner's own. So there is nothing to be found out by asking for a name,
// or by claiming it, and nobody can lie in wait at a name that another's client is
// going to ask for.

const (
	// maxConnects is how many connections to private endpoints a session may have
	// at once.
	maxConnects = 256
	// spareConnects are those beyond that are told so; more are reset.
	spareConnects = 32
	// maxConnectHeader bounds the header of a CONNECT, in bytes.
	maxConnectHeader = 8 << 10
)

// privateName is the name by which the registry knows a private endpoint. A slash
// is in no host, and neither word a kind of port. Datagrams have names of their own, as
// they have ports of their own: one app may need both kinds.
func privateName(kind protocol.Kind, owner, name string) string {
	if kind == protocol.KindUDP {
		return "private-udp/" + owner + "/" + name
	}
	return "private/" + owner + "/" + name
}

// claimPrivate binds an endpoint that has no public side.
func (s *session) claimPrivate(b *protocol.Bind) (*protocol.Bound, error) {
	kind := cmp.Or(b.Kind, protocol.KindHTTP)
	dial := s.pool.Dial
	switch kind {
	case protocol.KindHTTP, protocol.KindTCP:
	case protocol.KindUDP:
		dial = s.pool.DialUDP
	default:
		return nil, &protocol.Error{Code: protocol.KindUnsupported, Message: "this server has no private endpoints of kind " + string(b.Kind)}
	}
	name, err := named(b.Name, func(name string) error {
		return s.bindRoute(&registry.Route{Name: privateName(kind, s.owner, name), Kind: kind, Dial: dial(name)})
	})
	if errors.Is(err, &protocol.Error{Code: protocol.NameTaken}) {
		err = &protocol.Error{
			Code: protocol.NameTaken, Message: "the private name " + name + " is taken by another client of the same token",
			Hint: "choose another with --name, or stop the client that has it",
		}
	}
	if err != nil {
		return nil, err
	}
	s.remember(name, privateName(kind, s.owner, name))
	return &protocol.Bound{Name: name, URL: "private:" + name}, nil
}

// allowConnects lets the client open streams. It is called before the welcome, which
// the client waits for.
func (s *session) allowConnects() {
	s.connects = true
	s.mux.Limit(1 + maxConnects + spareConnects)
}

// acceptConnects serves the client's streams until the session ends. Those that were
// reset count until they are done with, so that a flood of them is not work without
// a bound.
func (s *session) acceptConnects() {
	server := proxy.Server{Handler: s.connect, MaxHeader: maxConnectHeader, Log: s.log}
	places := make(chan struct{}, maxConnects+spareConnects)
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		places <- struct{}{}
		stream, err := s.mux.Accept()
		if err != nil {
			return
		}
		streams.Go(func() {
			defer func() { <-places }()
			server.ServeConn(stream)
		})
	}
}

// asked reads which endpoint r is for: a name that was not checked, and the kind, which
// is TCP for all that is connections. The error is a [*protocol.Error].
func asked(r *http.Request) (kind protocol.Kind, name string, err error) {
	if r.Method == http.MethodConnect {
		return protocol.KindTCP, r.RequestURI, nil
	}
	name, ok := strings.CutPrefix(r.RequestURI, protocol.PathUDP)
	name, port := strings.CutSuffix(name, "/0/")
	if r.Method != http.MethodGet || !ok || !port || !strings.EqualFold(r.Header.Get("Upgrade"), protocol.UpgradeUDP) {
		return "", r.RequestURI, &protocol.Error{Code: protocol.BadRequest, Message: "the request is neither CONNECT nor an upgrade to connect-udp"}
	}
	return protocol.KindUDP, name, nil
}

// connect answers a request for an endpoint and passes the bytes that follow.
func (s *session) connect(w http.ResponseWriter, r *http.Request) {
	defer s.connecting.Add(-1)
	kind, name, err := asked(r)
	if s.connecting.Add(1) > maxConnects {
		s.refuseConnect(w, r, name, &protocol.Error{Code: protocol.Overloaded, Message: "the session has as many connections as it may"})
		return
	}
	if !s.server.pass() {
		s.refuseConnect(w, r, name, &protocol.Error{Code: protocol.Draining, Message: "the server is shutting down"})
		return
	}
	passed := sync.OnceFunc(s.server.passing.Done)
	defer passed()
	var app net.Conn
	if err == nil {
		app, err = s.reach(r.Context(), kind, name)
	}
	if err != nil {
		s.refuseConnect(w, r, name, err)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		reset(app)
		panic(http.ErrAbortHandler)
	}
	if kind == protocol.KindUDP {
		passed() // datagrams have no end to wait for
		buffered.WriteString(upgradedUDP)
	} else {
		buffered.WriteString("HTTP/1.1 200 OK\r\n\r\n")
	}
	if buffered.Flush() != nil {
		reset(app) // a client that has gone is no end (R2)
		client.Close()
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	proxy.Splice(client, app, bytes.Clone(early))
}

// reset ends a stream to an app so that this sees an error.
func reset(app net.Conn) {
	if r, ok := app.(interface{ Reset() error }); ok {
		r.Reset()
	}
	app.Close()
}

// upgradedUDP is the answer of RFC 9298, section 3.3, and RFC 9297, section 3.4.
const upgradedUDP = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol.UpgradeUDP + "\r\nCapsule-Protocol: ?1\r\n\r\n"

// reach opens a stream to the endpoint name. All that the client can say is a kind and a
// label, which is looked for among its owner's private endpoints (S11, S13, S18).
func (s *session) reach(ctx context.Context, kind protocol.Kind, name string) (net.Conn, error) {
	switch {
	case !s.server.c.Auth.Valid(s.identity):
		return nil, errRevoked() // and the session is about to end
	case protocol.CheckName(name) != nil:
		return nil, registry.ErrUnknown
	case s.server.c.Memory.Full() || s.server.budget.Full():
		return nil, &protocol.Error{Code: protocol.Overloaded, Message: "the server's memory is full"}
	}
	park, other := s.server.c.Park, protocol.KindUDP
	if kind == protocol.KindUDP {
		park, other = 0, protocol.KindTCP // datagrams do not wait
	}
	stream, err := edge.Dial(ctx, s.server.c.Registry, privateName(kind, s.owner, name), s.from, park)
	if errors.Is(err, registry.ErrUnknown) && s.has(ctx, privateName(other, s.owner, name)) {
		err = &protocol.Error{Code: protocol.WrongKind, Message: "the private endpoint " + name + " is not of kind " + string(kind)}
	}
	return stream, err
}

// has reports whether a client has name, or had it a moment ago.
func (s *session) has(ctx context.Context, name string) bool {
	_, err := s.server.c.Registry.Lookup(ctx, name)
	var offline *registry.OfflineError
	return err == nil || errors.As(err, &offline)
}

// refuseConnect answers with the code of err. The stream is not kept for another
// request.
func (s *session) refuseConnect(w http.ResponseWriter, r *http.Request, name string, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has taken it back
	}
	code := edge.Code(err)
	name = name[:min(len(name), protocol.MaxName)]
	level := slog.LevelInfo
	if code == protocol.NameUnknown {
		level = slog.LevelDebug // whoever tries names would fill the log
	}
	s.log.Log(r.Context(), level, "connection failed", "private", name, "code", string(code), "err", fmt.Sprintf("%.300s", err.Error()))
	w.Header().Set(protocol.HeaderError, string(code))
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code.Status())
}

// pass counts a stream to a private endpoint, unless the server drains.
func (s *Server) pass() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.passing.Add(1)
	return true
}

// passed waits until no stream to a private endpoint is left, or ctx ends.
func (s *Server) passed(ctx context.Context) {
	done := make(chan struct{})
	s.running.Go(func() { s.passing.Wait(); close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	}
}
