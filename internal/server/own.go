package server

import (
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"math"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

//go:embed start.html
var startHTML string

var startPage = template.Must(template.New("start").Parse(startHTML))

// own is the handler of the server's own host.
func (s *Server) own() http.Handler {
	where := "at its subdomains"
	if s.c.PathNames {
		where = "below its paths, and at its subdomains"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		startPage.Execute(w, where)
	})
	mux.HandleFunc("GET "+protocol.PathDescription, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		json.NewEncoder(w).Encode(s.describe())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc(protocol.PathPrefix+"{session}", s.upgrade)
	nothing := func(w http.ResponseWriter, r *http.Request) {
		transport.Refuse(w, &protocol.Error{
			Code: protocol.NotFound, Message: "the server's own host has nothing here for this method",
			Hint: "tunnels are " + where + "; clients connect to the host itself",
		})
	}
	mux.HandleFunc("/", nothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would answer a path that is not clean, such as a list of origins that is
		// not percent-encoded well, with a redirect to one that is encoded twice.
		switch asked := r.URL.EscapedPath(); {
		case strings.HasPrefix(asked, protocol.PathPTTH):
			s.transpose(w, r)
		case !clean(asked):
			nothing(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// clean reports whether p has no empty segments and none that are dots. An empty path
// is that of "/" (RFC 9110, section 4.2.3).
func clean(p string) bool {
	short := path.Clean(p)
	return p == "" || p == short || p == short+"/"
}

// describe tells what a client may want to know before it connects.
func (s *Server) describe() *protocol.Description {
	d := &protocol.Description{
		Versions: []int{protocol.Version}, Transports: []string{protocol.Upgrade, "websocket", protocol.UpgradePTTH},
		Kinds: []protocol.Kind{protocol.KindHTTP}, Domain: s.c.Domain, Origins: s.publicURL("*." + s.c.Domain), PathNames: s.c.PathNames,
	}
	if s.c.TCPPorts != (Ports{}) {
		d.Kinds = append(d.Kinds, protocol.KindTCP)
	}
	if s.c.UDPPorts != (Ports{}) {
		d.Kinds = append(d.Kinds, protocol.KindUDP)
	}
	if s.sni != nil {
		d.Kinds = append(d.Kinds, protocol.KindTLS)
	}
	return d
}

// upgrade takes a client's session: hop by hop what package protocol tells.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	from := s.edge.Visitor(r)
	refuse := func(e *protocol.Error) { s.refuseUpgrade(w, r, from, e) }
	id := r.PathValue("session")
	if !validSession(id) {
		refuse(&protocol.Error{Code: protocol.BadRequest, Message: "the session id is not 16 to 128 letters, digits, - and _"})
		return
	}
	identity, err := s.throttle.Authenticate(r.Context(), from, bearer(r), id)
	if err != nil {
		retryLater(w, err)
		refuse(asError(err, protocol.Unauthorized))
		return
	}
	if e := s.begin(id); e != nil {
		refuse(e)
		return
	}
	conn, kind, err := transport.Accept(w, r)
	if err != nil {
		s.over()
		if e, ok := err.(*protocol.Error); ok {
			refuse(e)
			return
		}
		s.refused.log(s.log, protocol.SessionLost, "session failed", "remote", r.RemoteAddr, "err", err)
		return
	}
	log := s.log.With("session", short(id), "remote", r.RemoteAddr, "transport", string(kind))
	one := &session{claimant: claimant{server: s, identity: identity, group: group(identity, from), log: log}, id: id, from: addrPort(r, from)}
	// The handler returns: net/http frees what it held for the request.
	go func() {
		defer s.over()
		one.run(conn)
	}()
}

// refuseUpgrade says no.
func (s *Server) refuseUpgrade(w http.ResponseWriter, r *http.Request, from netip.Addr, e *protocol.Error) {
	s.refused.log(s.log, e.Code, "session refused", "remote", r.RemoteAddr, "from", from.String(), "code", string(e.Code), "err", e.Message)
	transport.Refuse(w, e)
}

// retryLater says when a login that was refused for its many failures may be tried
// again.
func retryLater(w http.ResponseWriter, err error) {
	var throttled *auth.Throttled
	if errors.As(err, &throttled) {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(throttled.RetryAfter.Seconds()))))
	}
}

// group is who the names of id are held together with: a stranger can have any
// number of identities, a verified one is its own.
func group(id auth.Identity, from netip.Addr) string {
	if !id.Stranger {
		return id.ID
	}
	return "from:" + auth.Site(from).String()
}

// addrPort is from with the port of r's connection, where that is from's own, and 0
// behind a proxy.
func addrPort(r *http.Request, from netip.Addr) netip.AddrPort {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	if remote.Addr().Unmap().WithZone("") != from {
		return netip.AddrPortFrom(from, 0)
	}
	return netip.AddrPortFrom(from, remote.Port())
}

// bearer returns the token of RFC 6750, section 2.1, or "".
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func validSession(id string) bool {
	if len(id) < 16 || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// short is enough of a session id to tell sessions apart in a log.
func short(id string) string { return id[:8] }
