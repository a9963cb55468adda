package edge

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Visitor returns the address that r comes from: the connection's, or, where
// that is a trusted proxy's, what X-Forwarded-For says. Of that list each proxy
// appends to, the last address that is not a trusted one counts: what stands
// before it, the visitor may have made up. Where a trusted proxy names no
// address, it is the proxy's. The zero Addr is of a connection without one.
func (h *HTTP) Visitor(r *http.Request) netip.Addr {
	remote := remoteOf(r)
	list := strings.Join(r.Header["X-Forwarded-For"], ",")
	for h.trusts(remote) && list != "" {
		cut := strings.LastIndexByte(list, ',') // -1: the first
		next, ok := address(strings.TrimSpace(list[cut+1:]))
		if !ok {
			break
		}
		remote, list = next, list[:max(cut, 0)]
	}
	return remote
}

// nameVisitor tells the client who r is from: the connection's address and port, or,
// with port 0, the address that a trusted proxy names. What a visitor sent by that name
// has been removed.
func (h *HTTP) nameVisitor(header http.Header, r *http.Request, v *visit) {
	visitor := h.Visitor(r)
	if !visitor.IsValid() {
		return
	}
	var port uint16
	if conn, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && visitor == v.remote {
		port = conn.Port()
	}
	header[protocol.HeaderVisitor] = []string{netip.AddrPortFrom(visitor, port).String()}
}

// remoteOf is the address of r's connection.
func remoteOf(r *http.Request) netip.Addr {
	a, _ := address(r.RemoteAddr)
	return a
}

// address reads an address, with or without a port.
func address(s string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(s)
	a := ap.Addr()
	if err != nil {
		a, err = netip.ParseAddr(strings.Trim(s, "[]"))
	}
	return a.Unmap().WithZone(""), err == nil
}

func (h *HTTP) trusts(a netip.Addr) bool {
	for _, p := range h.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
