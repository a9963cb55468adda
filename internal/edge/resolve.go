package edge

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// resolve leads from a host to a route's name, or to the server itself. ok is
// false where it is neither. A name below Domain need not be claimed; any other
// host is one only while it is, or is held for its client.
func (h *HTTP) resolve(ctx context.Context, host string) (name string, own, ok bool) {
	host, ok = canonical(host)
	if !ok {
		return "", false, false
	}
	if h.own(host) {
		return "", true, true
	}
	name, below := strings.CutSuffix(host, "."+h.Domain)
	switch {
	case below && protocol.CheckName(name) != nil:
		return "", false, false
	case !below && (protocol.CheckDomain(host) != nil || !h.claimed(ctx, host)):
		return "", false, false
	}
	return name, false, true
}

// Custom reports whether host, as [protocol.CheckDomain] has it, may be a custom
// domain: it is neither the server's own nor below Domain, whose names are
// claimed otherwise.
func (h *HTTP) Custom(host string) bool {
	return !h.own(host) && !strings.HasSuffix(host, "."+h.Domain)
}

// errEndToEnd is of a name of kind TLS.
var errEndToEnd = errors.New("its client ends TLS itself")

// MayCertify says whether a certificate may be ordered for host, as a visitor spells
// it: nil where it is the server's own, or leads to a client that is there or may come
// back; else why not. An address, localhost, and a name that nobody has are none.
// Of a name of kind TLS the client alone has a certificate.
func (h *HTTP) MayCertify(ctx context.Context, host string) error {
	host, ok := canonical(host)
	if !ok || host == "localhost" || isAddress(host) {
		return registry.ErrUnknown
	}
	name, own, ok := h.resolve(ctx, host)
	switch {
	case own:
		return nil
	case !ok:
		return registry.ErrUnknown
	}
	kind, err := kindOf(ctx, h.Registry, name)
	if errors.Is(err, registry.ErrUnknown) || errors.Is(err, registry.ErrEnded) {
		return err
	}
	if kind == protocol.KindTLS {
		return errEndToEnd
	}
	return nil
}

// kindOf is of the route that has name, or had it and may come back. Where the
// registry cannot tell, the error is its own.
func kindOf(ctx context.Context, r registry.Registry, name string) (protocol.Kind, error) {
	route, err := r.Lookup(ctx, name)
	var offline *registry.OfflineError
	switch {
	case err == nil:
		return route.Kind, nil
	case errors.As(err, &offline):
		return offline.Kind, nil
	}
	return "", err
}

// claimed reports whether name is bound or held. Where the registry cannot tell,
// it may be.
func (h *HTTP) claimed(ctx context.Context, name string) bool {
	_, err := h.Registry.Lookup(ctx, name)
	return !errors.Is(err, registry.ErrUnknown)
}

// own reports whether a canonical host is the server's own.
func (h *HTTP) own(host string) bool {
	if host == h.Domain || host == "localhost" {
		return true
	}
	if isAddress(host) {
		return true
	}
	if h.Public == nil {
		return false
	}
	public, ok := canonical(h.Public.Host)
	return ok && host == public
}

// isAddress reports whether a canonical host is an IP literal.
func isAddress(host string) bool {
	// Only what ends in a digit or has a colon can be one.
	last := host[len(host)-1]
	if (last < '0' || last > '9') && strings.IndexByte(host, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// canonical returns the one form of a host that all its spellings share: without
// port and trailing dot, in lower case (S5). An international name comes as its
// A-label (RFC 5890, section 2.3.2.1): a host that is not ASCII is none.
func canonical(host string) (string, bool) {
	if rest, ok := strings.CutPrefix(host, "["); ok {
		literal, port, ok := strings.Cut(rest, "]")
		a, err := netip.ParseAddr(literal)
		return literal, ok && portOrNothing(port) && err == nil && a.Is6()
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !portOrNothing(host[i:]) {
			return "", false
		}
		host = host[:i]
	}
	for _, c := range []byte(host) {
		if c >= 0x80 {
			return "", false // ToLower would make "k" of the Kelvin sign
		}
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host, host != ""
}

// portOrNothing reports whether s is "" or ":" and digits.
func portOrNothing(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
