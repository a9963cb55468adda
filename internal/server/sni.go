package server

import (
	"net"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// claimTLS binds a name whose connections of TLS the client gets as they are. It is
// one name with that of an HTTP route: who has it has all of it (S5).
func (s *session) claimTLS(b *protocol.Bind, p *policy.Policy) (*protocol.Bound, error) {
	if s.server.sni == nil {
		return nil, &protocol.Error{
			Code: protocol.KindUnsupported, Message: "this server has no TLS of its own, so it cannot pass any on",
			Hint: "its operator switches it on with --acme-email or --cert, see tunnel-server --help; or use tunnel-client tcp",
		}
	}
	var route *registry.Route
	name, err := named(b.Name, func(name string) error {
		route = &registry.Route{Name: name, Kind: protocol.KindTLS, Policy: p, Ends: ends(b), Dial: s.pool.Dial(name)}
		return s.bindRoute(route)
	})
	if err != nil {
		return nil, err
	}
	bound := &protocol.Bound{Name: name, URL: s.server.tlsURL(name + "." + s.server.c.Domain)}
	for _, domain := range b.Domains {
		bound.URLs = append(bound.URLs, s.server.tlsURL(domain))
	}
	_, err = s.bindDomains(route, b.Domains)
	return bound, err
}

// tlsURL is where visitors find host's connections of TLS: at the port of HTTPS, which
// is named always as there is no standard one for tls://.
func (s *Server) tlsURL(host string) string {
	port := s.port
	if p := s.c.PublicURL; p != nil && p.Scheme == "https" {
		if port = p.Port(); port == "" {
			port = "443"
		}
	}
	return "tls://" + net.JoinHostPort(host, port)
}
