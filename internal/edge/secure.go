package edge

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Secure says what is different where the server has TLS itself: requests without it
// are redirected.
type Secure struct {
	// Port is the one at which visitors find HTTPS. "" and "443" are the standard one.
	Port string
	// Challenges answers a CA's HTTP-01 (RFC 8555, section 8.3) and leaves the rest to
	// next. Nil: there are none.
	Challenges func(next http.Handler) http.Handler
	// AllowPlain are the names that are served without TLS, too. "*" is all of them.
	AllowPlain []string
	// HSTS is how long browsers are to come by HTTPS only (RFC 6797), unless the app
	// has said so itself. 0: nothing is said.
	HSTS time.Duration
	// HTTP3 tells visitors of HTTP/3 on the same port (RFC 7838), unless the app has
	// named alternatives of its own.
	HTTP3 bool
}

// challengePath is where a CA looks.
const challengePath = "/.well-known/acme-challenge/"

// altSvcAge is how long visitors may remember that there is HTTP/3, in seconds.
const altSvcAge = 24 * 60 * 60

// misdirected reports whether a visitor of TLS asks for another tenant than it greeted
// (S5). Browsers that find one certificate for two names do so, and come again on a
// connection of its own (RFC 9110, section 15.5.20). A trusted proxy has one
// connection for many visitors, and a visitor without SNI has named nobody.
func (h *HTTP) misdirected(r *http.Request, v *visit, name string, own bool) bool {
	if r.TLS == nil || r.TLS.ServerName == "" || r.TLS.ServerName == v.host || v.trusted {
		return false
	}
	greeted, ownGreeted, ok := h.resolve(r.TLS.ServerName)
	return !ok || greeted != name || ownGreeted != own
}

// challenged reports whether r may be a CA's.
func (h *HTTP) challenged(r *http.Request) bool {
	return h.Secure != nil && h.Secure.Challenges != nil && r.TLS == nil && strings.HasPrefix(r.URL.Path, challengePath)
}

// plain reports whether the request for name, or for the server's own host, came
// without TLS and is not to be served so.
func (h *HTTP) plain(r *http.Request, v *visit, name string, own bool) bool {
	if h.Secure == nil || r.TLS != nil || v.scheme == "https" { // as a trusted proxy says
		return false
	}
	if own {
		// Who checks the server's health has no use for a certificate, and what comes
		// from this machine was seen by nobody.
		return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && !h.Visitor(r).IsLoopback()
	}
	return !slices.Contains(h.Secure.AllowPlain, name) && !slices.Contains(h.Secure.AllowPlain, "*")
}

// redirect sends the visitor to HTTPS, with its method and body (RFC 9110, section
// 15.4.9). For a name that nobody has there may be no certificate, and the answer
// comes at once.
func (h *HTTP) redirect(w http.ResponseWriter, r *http.Request, v *visit, name string, own bool) {
	if !own {
		if _, err := h.Registry.Lookup(r.Context(), name); errors.Is(err, registry.ErrUnknown) {
			h.fail(w, r, protocol.NameUnknown)
			return
		}
	}
	host, _ := canonical(v.host)
	if port := h.Secure.Port; port != "" && port != "443" {
		host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	target := v.target
	if target == "*" {
		target = ""
	}
	w.Header().Set("Location", "https://"+host+target)
	if r.ProtoMajor == 1 && r.Body != http.NoBody {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusPermanentRedirect)
		boundRest(w, r)
		return
	}
	w.WriteHeader(http.StatusPermanentRedirect)
}

// announce adds what answers by TLS say of the server.
func (h *HTTP) announce(header http.Header, r *http.Request) {
	if h.Secure == nil || r.TLS == nil {
		return
	}
	if _, said := header["Strict-Transport-Security"]; !said && h.Secure.HSTS > 0 {
		header.Set("Strict-Transport-Security", "max-age="+strconv.Itoa(int(h.Secure.HSTS.Seconds())))
	}
	if _, said := header["Alt-Svc"]; !said && h.Secure.HTTP3 && r.ProtoMajor < 3 {
		port := h.Secure.Port
		if port == "" {
			port = "443"
		}
		header.Set("Alt-Svc", `h3=":`+port+`"; ma=`+strconv.Itoa(altSvcAge))
	}
}
