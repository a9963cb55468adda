package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

// PTTH: an HTTP server that attaches itself, without a client of ours. It asks for the
// requests of its origins, and after the 101 they come on the same connection, by HTTP
// with the roles turned around. Each origin is a name, with a route like any other; all
// connections that one identity attaches for it serve it together. How it asks is here;
// origin.go has the names, and attachment.go the connections.

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
