package edge

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/pkg/protocol"
)

// origin is whose URLs they are (RFC 6454).
type origin struct {
	scheme string // "": either
	host   string // host[:port]
	path   string // of a part of it: what comes before its paths; "": all of it
}

// rewriteRequest makes the local app see itself called directly.
func rewriteRequest(out *http.Request, v *visit, p *policy.Policy) {
	out.Host = v.host
	if v.prefix != "" {
		unprefixDestination(out, v)
	}
	if !p.Rewrites() && v.prefix == "" {
		return
	}
	public := origin{host: v.host, path: v.prefix}
	if v.scheme == "https" {
		// A page that came without TLS, from whoever was on its way, is foreign. The
		// other way round, a proxy may not have said that there is TLS.
		public.scheme = "https"
	}
	if !p.Rewrites() {
		unprefixRequest(out, v, public)
		return
	}
	out.Host = p.Host
	local := origin{scheme: p.Scheme, host: p.Host}
	// WebDAV names its target by URL (RFC 4918, section 10.3).
	for _, name := range []string{"Referer", "Destination"} {
		replaceOrigin(out.Header, name, public, local)
	}
	public.path = "" // RFC 6454, section 6.1: an origin has none
	replaceOrigin(out.Header, "Origin", public, local)
}

// rewriteResponse turns what the local app says of itself back to the public
// name. It may have been told by X-Forwarded-Proto of another scheme than its own.
func rewriteResponse(res *http.Response, r *http.Request, v *visit, p *policy.Policy) {
	if v.prefix != "" {
		defer prefixResponse(res.Header, v) // of what is public by then
	}
	if !p.Rewrites() {
		return
	}
	local, public := origin{host: p.Host}, origin{scheme: v.scheme, host: v.host}
	replaceOrigin(res.Header, "Location", local, public)
	replaceOrigin(res.Header, "Content-Location", local, public)
	// A page may truly be of the local origin; then it is that which is allowed.
	const allow = "Access-Control-Allow-Origin"
	if !slices.Equal(res.Header[allow], r.Header["Origin"]) {
		replaceOrigin(res.Header, allow, local, public)
	}
	if cookies := res.Header["Set-Cookie"]; len(cookies) > 0 {
		local := hostname(p.Host)
		domain, _ := canonical(v.host)
		for i, c := range cookies {
			cookies[i] = replaceDomain(c, local, domain)
		}
	}
}

// replaceOrigin makes the URLs of a field that are from's, and below its path, to's. Others, and
// relative ones, stay. The slice of values may be another header's too.
func replaceOrigin(h http.Header, name string, from, to origin) {
	for i, value := range h[name] {
		scheme, rest, _ := strings.Cut(value, "//")
		switch strings.ToLower(scheme) {
		case "http:":
			scheme = "http"
		case "https:":
			scheme = "https"
		case "":
			scheme = to.scheme // of the page that shows it
		default:
			continue
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if !sameHost(rest[:end], from.host, scheme) || from.scheme != "" && from.scheme != scheme {
			continue
		}
		path, ok := rest[end:], true
		if from.path != "" {
			path, ok = cutPrefix(path, from.path)
		}
		if to.path != "" {
			path = addPrefix(path, to.path)
		}
		if ok {
			values := slices.Clone(h[name])
			values[i] = to.scheme + "://" + to.host + path
			h[name] = values
		}
	}
}

// sameHost compares two host[:port], where the port of scheme may be missing.
func sameHost(a, b, scheme string) bool {
	port := ":80"
	if strings.EqualFold(scheme, "https") {
		port = ":443"
	}
	return strings.EqualFold(a, b) || strings.EqualFold(strings.TrimSuffix(a, port), strings.TrimSuffix(b, port))
}

// replaceDomain changes the Domain attribute of a Set-Cookie value (RFC 6265,
// section 4.1.2.3) where it is from, or a parent of it.
func replaceDomain(cookie, from, to string) string {
	parts := strings.Split(cookie, ";")
	for i, part := range parts[1:] {
		name, value, ok := strings.Cut(part, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "Domain") {
			continue
		}
		domain := strings.TrimPrefix(strings.TrimSpace(value), ".")
		if domain != "" && strings.HasSuffix("."+strings.ToLower(from), "."+strings.ToLower(domain)) {
			parts[i+1] = name + "=" + to
		}
	}
	return strings.Join(parts, ";")
}

// confineCookies keeps cookies from the other tenants (S20): one that names the
// parent of all, or what a browser might take for it, becomes a cookie of the
// host that set it.
func (h *HTTP) confineCookies(header http.Header) {
	for i, cookie := range header["Set-Cookie"] {
		parts := strings.Split(cookie, ";")
		kept := parts[:1]
		for _, part := range parts[1:] {
			name, value, _ := strings.Cut(part, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "Domain") || !h.shared(strings.TrimSpace(value)) {
				kept = append(kept, part)
			}
		}
		if len(kept) < len(parts) {
			header["Set-Cookie"][i] = strings.Join(kept, ";")
		}
	}
}

// shared reports whether the Domain of a cookie is, or may be, h.Domain or a
// parent of it. Browsers decode what is not plainly a host.
func (h *HTTP) shared(domain string) bool {
	domain = strings.Trim(domain, ".")
	for _, c := range []byte(domain) {
		if c >= 0x80 || strings.IndexByte("%\"'\\ \t", c) >= 0 {
			return true
		}
	}
	return domain != "" && strings.HasSuffix("."+h.Domain, "."+strings.ToLower(domain))
}

// stripCode removes what may be taken for the tunnel's own word from the answer
// of the local app: its trailers too, once they have come.
func stripCode(res *http.Response) {
	deleteCode(res.Header)
	deleteCode(res.Trailer)
	if res.ContentLength < 0 && res.StatusCode != http.StatusSwitchingProtocols {
		res.Body = &answerTrailers{res.Body, res}
	}
}

func deleteCode(header http.Header) {
	for name := range header {
		if begins(name, "Tt") && spell(name) == protocol.HeaderError {
			delete(header, name)
		}
	}
}

// answerTrailers is the body of an answer that may have trailers.
type answerTrailers struct {
	io.ReadCloser
	res *http.Response
}

func (t *answerTrailers) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		deleteCode(t.res.Trailer)
	}
	return n, err
}

// BeforeWait passes on what [proxy.Forward] flushes by.
func (t *answerTrailers) BeforeWait(f func()) bool {
	w, ok := t.ReadCloser.(interface{ BeforeWait(func()) bool })
	return ok && w.BeforeWait(f)
}
