// Package rewrite makes a local app believe that it is called directly: what a
// request says of the public origin becomes the app's own, and what the answer says of
// that the public one. The server does it for the routes whose owner asked for it, and
// the client where the server was not told, as over PTTH.
package rewrite

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// Origin is whose URLs they are (RFC 6454).
type Origin struct {
	Scheme string // "": either
	Host   string // host[:port]
	Path   string // of a part of it: what comes before its paths; "": all of it
}

// Request makes out, which came for public, one for local.
func Request(out *http.Request, public, local Origin) {
	out.Host = local.Host
	// WebDAV names its target by URL (RFC 4918, section 10.3).
	for _, name := range []string{"Referer", "Destination"} {
		ReplaceOrigin(out.Header, name, public, local)
	}
	public.Path = "" // RFC 6454, section 6.1: an origin has none
	ReplaceOrigin(out.Header, "Origin", public, local)
}

// Response turns what local says of itself in res back to public. asked is the Origin
// of the request as it came. The app may have been told by X-Forwarded-Proto of another
// scheme than its own, so local has none.
func Response(res *http.Response, asked []string, local, public Origin) {
	ReplaceOrigin(res.Header, "Location", local, public)
	ReplaceOrigin(res.Header, "Content-Location", local, public)
	// A page may truly be of the local origin; then it is that which is allowed.
	const allow = "Access-Control-Allow-Origin"
	if !slices.Equal(res.Header[allow], asked) {
		ReplaceOrigin(res.Header, allow, local, public)
	}
	if cookies := res.Header["Set-Cookie"]; len(cookies) > 0 {
		domain := strings.ToLower(strings.TrimSuffix(hostname(public.Host), "."))
		for i, c := range cookies {
			cookies[i] = replaceDomain(c, hostname(local.Host), domain)
		}
	}
}

// ReplaceOrigin makes the URLs of a field that are from's, and below its path, to's. Others, and
// relative ones, stay. The slice of values may be another header's too.
func ReplaceOrigin(h http.Header, name string, from, to Origin) {
	for i, value := range h[name] {
		scheme, rest, _ := strings.Cut(value, "//")
		switch strings.ToLower(scheme) {
		case "http:":
			scheme = "http"
		case "https:":
			scheme = "https"
		case "":
			scheme = to.Scheme // of the page that shows it
		default:
			continue
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if !sameHost(rest[:end], from.Host, scheme) || from.Scheme != "" && from.Scheme != scheme {
			continue
		}
		path, ok := rest[end:], true
		if from.Path != "" {
			path, ok = CutPrefix(path, from.Path)
		}
		if to.Path != "" {
			path = AddPrefix(path, to.Path)
		}
		if ok {
			values := slices.Clone(h[name])
			values[i] = to.Scheme + "://" + to.Host + path
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

// CutPrefix takes prefix off a path with query and fragment, or reports that the
// path is not below it.
func CutPrefix(path, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	switch {
	case !ok, rest != "" && strings.IndexByte("/?#", rest[0]) < 0:
		return "", false
	case rest == "" || rest[0] != '/':
		rest = "/" + rest
	}
	return rest, true
}

// AddPrefix puts prefix before a path with query and fragment, unless the local
// app has done so, as it was told to by X-Forwarded-Prefix.
func AddPrefix(path, prefix string) string {
	if _, done := CutPrefix(path, prefix); done {
		return path
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return prefix + path
}

// hostname returns a host without its port, as it is spelled.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
