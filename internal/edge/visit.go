package edge

import (
	"io"
	"net/http"
	"net/netip"
	"strings"

	"github.com/revtun/tunnel/internal/policy"
)

// visit is what is known of a request from outside: where it came from, and
// where the visitor believes to be.
type visit struct {
	remote  netip.Addr // of the connection; invalid where it has none
	trusted bool       // remote is a proxy that is believed
	scheme  string     // "http" or "https", as the visitor sees it
	host    string     // host[:port], as the visitor sent it
	target  string     // path and query, as the visitor sent them, or "*"; "": not valid
	prefix  string     // what was in front of target and names the route, "/NAME"; "": the host does
	token   string     // of a share link, that was in target; "": none
	policy  *policy.Policy

	preflight bool // it is one, of somebody who has shown nothing that lets in
}

func (h *HTTP) visit(r *http.Request) *visit {
	v := &visit{scheme: "http", host: r.Host, target: target(r)}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		v.remote = ap.Addr().Unmap().WithZone("")
	}
	for _, p := range h.Trusted {
		if p.Contains(v.remote) {
			v.trusted = true
			break
		}
	}
	if r.TLS != nil {
		v.scheme = "https"
	} else if h.Public != nil && h.Secure == nil {
		v.scheme = h.Public.Scheme
	}
	if v.trusted {
		switch lastOf(r.Header["X-Forwarded-Proto"]) {
		case "http", "ws": // Traefik says ws and wss of WebSockets
			v.scheme = "http"
		case "https", "wss":
			v.scheme = "https"
		}
		if f := lastOf(r.Header["X-Forwarded-Host"]); f != "" {
			v.host = f
		}
	}
	return v
}

// lastOf returns the last member of a list-based field: what the nearest proxy
// said.
func lastOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.ToLower(strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:]))
}

// target returns the request target as the local app would have seen it: in
// origin-form or "*" (RFC 9112, section 3.2), or "" where it is neither.
func target(r *http.Request) string {
	uri := r.RequestURI
	if r.URL.User != nil {
		return "" // RFC 9110, section 4.2.4: it is there to mislead
	}
	if r.URL.Host != "" { // absolute-form
		_, rest, _ := strings.Cut(uri, "://")
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0:
			return "/"
		case rest[i] == '?':
			return "/" + rest[i:]
		}
		return rest[i:]
	}
	// What is left are forms that one parser takes for a path and the next one for
	// an address, such as "http:/path".
	if uri != "*" && !strings.HasPrefix(uri, "/") {
		return ""
	}
	return uri
}

// setForwarded makes the forwarding fields ours: whatever a visitor sent under
// such a name is gone, unless a trusted proxy sent it (S3, S4).
func setForwarded(header http.Header, v *visit) {
	v.strip(header)
	values := []string{v.host, v.scheme, ""} // one allocation for all three
	header["X-Forwarded-Host"], header["X-Forwarded-Proto"] = values[0:1:1], values[1:2:2]
	if v.prefix != "" {
		header[prefixField] = []string{v.prefix}
	}
	if v.remote.IsValid() {
		values[2] = v.remote.String()
		if prior := header["X-Forwarded-For"]; len(prior) > 0 {
			values[2] = strings.Join(prior, ", ") + ", " + values[2]
		}
		header["X-Forwarded-For"] = values[2:]
	}
}

// strip removes the fields that are not the visitor's to send.
func (v *visit) strip(header http.Header) {
	for name := range header {
		if ours(name, v.trusted) || replaced(name, v.policy) {
			delete(header, name)
		}
	}
}

// ours reports whether a field by this name is not a visitor's to send. A
// trusted proxy may send the forwarding fields, in their right spelling.
func ours(name string, trusted bool) bool {
	if !begins(name, "TtXxFf") {
		return false // spares most names the rest
	}
	spelled := spell(name)
	switch {
	case strings.HasPrefix(spelled, "Tunnel-"):
		return true
	case strings.HasPrefix(spelled, "X-Forwarded"), spelled == "Forwarded", spelled == "X-Real-Ip":
		return !trusted || spelled != name
	}
	return false
}

// begins reports whether name begins with one of letters.
func begins(name, letters string) bool {
	return name != "" && strings.IndexByte(letters, name[0]) >= 0
}

// spell returns the name that a field may be taken for. To a CGI-like program
// every other character looks like the hyphen; how many stand between two words, and
// whether any stand at the end, is not what a name should hang on.
func spell(name string) string {
	if !strings.ContainsFunc(name, odd) && !strings.Contains(name, "--") && !strings.HasSuffix(name, "-") {
		return name
	}
	words := strings.FieldsFunc(name, func(c rune) bool { return c == '-' || odd(c) })
	return http.CanonicalHeaderKey(strings.Join(words, "-"))
}

// odd reports whether c is neither a letter, a digit nor a hyphen.
func odd(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
}

// trailers is the body of a request whose trailers may hold what strip removes:
// there are servers that take them for header fields.
type trailers struct {
	io.ReadCloser
	visit *visit
	out   *http.Request
}

func (t *trailers) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		t.visit.strip(t.out.Trailer)
	}
	return n, err
}
