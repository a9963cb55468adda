package edge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// TLS passes connections of TLS on to the clients that have bound the name which
// the visitor asks for (SNI, RFC 6066, section 3), from the first byte on: what is
// inside only the visitor and the client's side see. As of a port's ([TCP]), the end
// of one direction is passed on as such, and an abort as an abort; whoever comes
// while the client is away waits. The server never says anything on such a
// connection itself: where the client cannot be reached, it is reset.
type TLS struct {
	Registry registry.Registry
	// Domain is the parent of the public names, as in [HTTP].
	Domain string
	// Park is how long a visitor waits for a client that dropped. 0: not at all.
	Park time.Duration
	// Gate refuses connections where the server's memory is full. Nil: none.
	Gate *Gate
	// Log gets why connections failed. Nil discards.
	Log *slog.Logger

	mu      sync.Mutex // guards the following
	conns   map[*tlsVisitor]struct{}
	closed  bool
	running sync.WaitGroup // connections
}

// tlsVisitor is a visitor's connection.
type tlsVisitor struct {
	net.Conn
	ctx    context.Context // of its way to the client
	cancel context.CancelFunc
}

// Route is for [Door.Route]: it takes conn over where sni is the name of a route of
// kind TLS, whose client is there or may come back. What asks for a challenge of
// ACME (RFC 8737) is no exception: it is the client that proves its name. Any other
// name is left to the server's own certificates.
func (t *TLS) Route(sni string, conn net.Conn) bool {
	name := t.name(sni)
	if name == "" || !t.has(name) {
		return false
	}
	v := &tlsVisitor{Conn: conn}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	if t.Gate.full() || !t.enter(v) {
		v.abort()
		return true
	}
	go func() {
		defer t.leave(v)
		t.pass(name, v)
	}()
	return true
}

// name is the registry's for an SNI, or "".
func (t *TLS) name(sni string) string {
	host, ok := canonical(sni)
	if !ok || strings.ContainsAny(sni, ":[") { // a port, which there is none of, or an address
		return ""
	}
	label, below := strings.CutSuffix(host, "."+t.Domain)
	switch {
	case below && protocol.CheckName(label) == nil:
		return label
	case !below && host != t.Domain && protocol.CheckDomain(host) == nil:
		return host
	}
	return ""
}

// has reports whether name is a route's of kind TLS. That it is held is enough: with
// another certificate in the client's place the visitor might say to the server what
// is meant for the client.
func (t *TLS) has(name string) bool {
	route, err := t.Registry.Lookup(context.Background(), name)
	var offline *registry.OfflineError
	switch {
	case err == nil:
		return route.Kind == protocol.KindTLS
	case errors.As(err, &offline):
		return offline.Kind == protocol.KindTLS
	}
	return false
}

// Shutdown takes no more connections, and waits for those that are open until ctx
// ends, whose error it returns; then they are reset.
func (t *TLS) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for v := range t.conns {
		v.abort()
	}
	t.mu.Unlock()
	<-done
	return ctx.Err()
}

func (t *TLS) enter(v *tlsVisitor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.conns == nil {
		t.conns = make(map[*tlsVisitor]struct{})
	}
	t.conns[v] = struct{}{}
	t.running.Add(1)
	return true
}

func (t *TLS) leave(v *tlsVisitor) {
	v.cancel()
	t.mu.Lock()
	delete(t.conns, v)
	t.mu.Unlock()
	t.running.Done()
}

// abort ends a connection so that the visitor sees an error.
func (v *tlsVisitor) abort() {
	v.cancel()
	if tcp, ok := v.Conn.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	v.Close()
}

// pass passes one connection on.
func (t *TLS) pass(name string, v *tlsVisitor) {
	from, _ := netip.ParseAddrPort(v.RemoteAddr().String())
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	stream, err := Dial(v.ctx, t.Registry, name, from, t.Park)
	if err != nil {
		t.log().Info("connection failed", "name", name, "err", brief(err))
		v.abort()
		return
	}
	proxy.Splice(v.Conn, stream, nil)
}

func (t *TLS) log() *slog.Logger {
	if t.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Log
}
