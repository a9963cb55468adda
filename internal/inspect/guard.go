package inspect

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// HeaderToken carries the token of a [Server] with each request that changes something
// or asks for secrets. With any other it says which Server's ids it has, and another one
// refuses it.
const HeaderToken = "Inspect-Token"

// policy is for the page: nothing comes from elsewhere, nothing is run but its own
// script, and no text becomes HTML.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard answers 403 to what did not come from the page itself, or from a program on this
// machine (S19). A page elsewhere can have a browser send requests here, under its own
// name by DNS rebinding, too: names are not answered but localhost and the one that the
// user listens at. It cannot read the token, as nothing here allows other origins to.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !s.isOurs(r.Host):
			refuse(w, http.StatusForbidden, "the inspector is not called "+r.Host+": use "+s.URL())
		case foreign(r):
			refuse(w, http.StatusForbidden, "the request is another page's")
		case r.Header.Get(HeaderToken) != "" && !s.hasToken(r):
			refuse(w, http.StatusForbidden, "the client was started anew since, and what it had is gone: GET /api/session has the "+HeaderToken+" of now")
		case r.Method != http.MethodGet && r.Method != http.MethodHead && !s.hasToken(r):
			refuse(w, http.StatusForbidden, "the request lacks the "+HeaderToken+" of GET /api/session")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isOurs reports whether host leads here for sure: an address does, whatever a resolver
// says. The port may be another's that leads here.
func (s *Server) isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || s.host != "" && host == s.host
}

// foreign reports whether a browser says that another page's doing is the cause.
func foreign(r *http.Request) bool {
	for _, origin := range r.Header["Origin"] {
		if origin != "http://"+r.Host {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	// Links may lead to the page, and to nothing else.
	return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

func (s *Server) hasToken(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.Header.Get(HeaderToken)), []byte(s.token)) == 1
}
