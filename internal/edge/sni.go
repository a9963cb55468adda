package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strings"
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

	conns raws
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
	if t.Gate.full() {
		abort(conn)
		return true
	}
	t.conns.enter(conn, func(v *rawConn) { t.pass(name, v) })
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
	kind, _ := kindOf(context.Background(), t.Registry, name)
	return kind == protocol.KindTLS
}

// Except returns get without the names of kind TLS. It is for who does not come by way
// of Route, and is not to be shown a certificate in the client's place either: over
// HTTP/3, where nothing is passed on.
func (t *TLS) Except(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if name := t.name(hello.ServerName); name != "" && t.has(name) {
			return nil, errEndToEnd
		}
		return get(hello)
	}
}

// Shutdown takes no more connections, and waits for those that are open until ctx
// ends, whose error it returns; then they are reset.
func (t *TLS) Shutdown(ctx context.Context) error { return t.conns.shutdown(ctx) }

// pass passes one connection on.
func (t *TLS) pass(name string, v *rawConn) {
	from, _ := netip.ParseAddrPort(v.RemoteAddr().String())
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	stream, err := Dial(v.ctx, t.Registry, name, from, t.Park)
	if err != nil {
		t.log().Log(v.ctx, levelOf(err), "connection failed", "name", name, "err", brief(err))
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
