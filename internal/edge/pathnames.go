package edge

import (
	"net/http"
	"slices"
	"strings"

	"github.com/revtun/tunnel/internal/rewrite"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Where there is no wildcard DNS, a route is also found by the first segment of
// the path on the server's own host: https://Domain/NAME/. The segment is taken
// off on the way to the local app, and put before what the app says of its paths.
//
// All such routes are one origin to a browser (RFC 6454): their pages are not
// kept from each other, whatever is done here. What is done keeps them from
// getting into each other's way, and from changing what holds for the origin as a
// whole.

// prefixField tells the local app what was taken off.
const prefixField = "X-Forwarded-Prefix"

// OwnPaths are the names that no route can have where PathNames is set: the
// server answers there itself. What is below /.well-known/ is no name.
func OwnPaths() []string { return []string{"healthz", "readyz"} }

// byPath is resolve's second half on the server's own host. It takes the name
// off v.target where that is there literally: another spelling of it, with an
// escape, a parameter or a second slash, names no route, nor does a path of the
// server's own. bare says that the slash behind the name is missing.
func byPath(v *visit) (name string, bare bool) {
	path, query, _ := strings.Cut(v.target, "?")
	first, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "", false
	}
	name, _, found := strings.Cut(first, "/")
	if protocol.CheckName(name) != nil || slices.Contains(OwnPaths(), name) {
		return "", false
	}
	v.prefix = "/" + name
	if v.target = v.target[len(v.prefix):]; !found {
		v.target = "/"
		if query != "" {
			v.target += "?" + query
		}
	}
	return name, !found
}

// climbs reports whether a target leaves the root by its dot segments (RFC 3986,
// section 5.2.4) in the eyes of any parser: behind a name it would be another
// name's then, to a cache in front of the server for one.
func climbs(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	if !strings.Contains(path, "..") && !strings.Contains(path, "%") {
		return false
	}
	path = strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "\\", "%2F", "\\", "%5c", "\\", "%5C", "\\", "%3b", ";", "%3B", ";").Replace(path)
	depth := 0
	for segment := range strings.SplitSeq(path, "/") {
		named := false // of what some take for one name and others for several, one counts
		for part := range strings.SplitSeq(segment, `\`) {
			part, _, more := strings.Cut(part, ";") // "..;x" is ".." to some
			switch part {
			case "", ".":
			case "..":
				if depth--; depth < 0 {
					return true
				}
				named = false
			default:
				if !named {
					depth++
				}
				named = true
			}
			named = named || more // what follows is a parameter, to some
		}
	}
	return false
}

// redirectBare sends a visitor from /NAME to /NAME/, so that the relative URLs of
// the page are below it.
func redirectBare(w http.ResponseWriter, v *visit) {
	w.Header()["Location"] = []string{v.prefix + v.target}
	w.Header()["Cache-Control"] = []string{"no-store"} // the name may be another's tomorrow
	w.WriteHeader(http.StatusPermanentRedirect)
}

// rooted reports whether a URL reference is a path from the root (RFC 3986,
// section 4.2). Browsers take a backslash for a slash.
func rooted(ref string) bool {
	return strings.HasPrefix(ref, "/") && (len(ref) == 1 || ref[1] != '/' && ref[1] != '\\')
}

// unprefixRequest makes what a visitor said of paths below the name the local
// app's, where the app is called by the public host; rewriteRequest does the same
// where it is not.
func unprefixRequest(out *http.Request, v *visit) {
	for _, name := range []string{"Referer", "Destination"} {
		rewrite.ReplaceOrigin(out.Header, name, public(v), rewrite.Origin{Scheme: v.scheme, Host: v.host})
	}
}

// unprefixDestination does it for a WebDAV target that names no host (RFC 4918,
// section 8.3).
func unprefixDestination(out *http.Request, v *visit) {
	if values := out.Header["Destination"]; len(values) == 1 && rooted(values[0]) {
		if path, ok := rewrite.CutPrefix(values[0], v.prefix); ok {
			out.Header["Destination"] = []string{path}
		}
	}
}

// prefixResponse makes what the local app says of its paths the visitor's.
func prefixResponse(header http.Header, v *visit) {
	self := rewrite.Origin{Host: v.host}
	for _, name := range []string{"Location", "Content-Location"} {
		for i, value := range header[name] {
			if rooted(value) {
				header[name][i] = rewrite.AddPrefix(value, v.prefix)
			}
		}
		rewrite.ReplaceOrigin(header, name, self, rewrite.Origin{Scheme: v.scheme, Host: v.host, Path: v.prefix})
	}
	for i, value := range header["Refresh"] {
		header["Refresh"][i] = prefixRefresh(value, v)
	}
	for i, cookie := range header["Set-Cookie"] {
		header["Set-Cookie"][i] = confinePath(cookie, v.prefix)
	}
	confineWorker(header, v.prefix)
	// These are for the origin as a whole, which is not this route's.
	for _, name := range []string{"Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Strict-Transport-Security"} {
		delete(header, name)
	}
}

// confineWorker keeps a service worker from answering for other routes. Browsers
// take the field for a URL, and leave tabs out of it.
func confineWorker(header http.Header, prefix string) {
	const name = "Service-Worker-Allowed"
	if len(header[name]) == 0 {
		return
	}
	scope := rewrite.AddPrefix(header.Get(name), prefix)
	if climbs(scope[len(prefix):]) || strings.ContainsAny(scope, "\t\r\n") {
		delete(header, name)
		return
	}
	header[name] = []string{scope}
}

// prefixRefresh is for "5; url=/path", which each browser knows and no RFC does.
func prefixRefresh(value string, v *visit) string {
	at := strings.IndexByte(value, '=')
	if at < 0 {
		return value
	}
	head, ref := value[:at+1], strings.Trim(value[at+1:], " '\"")
	if rooted(ref) {
		return head + rewrite.AddPrefix(ref, v.prefix)
	}
	one := http.Header{"Refresh": {ref}}
	rewrite.ReplaceOrigin(one, "Refresh", rewrite.Origin{Host: v.host}, rewrite.Origin{Scheme: v.scheme, Host: v.host, Path: v.prefix})
	return head + one["Refresh"][0]
}

// confinePath makes a cookie one for what is below prefix, and for this host
// alone. Of several Path attributes the last counts (RFC 6265, section 5.3).
func confinePath(cookie, prefix string) string {
	parts := strings.Split(cookie, ";")
	kept, path := parts[:1], ""
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "path":
			path = strings.TrimSpace(value)
		case "domain":
		default:
			kept = append(kept, part)
		}
	}
	cookie = strings.Join(kept, ";")
	if !strings.HasPrefix(path, "/") {
		return cookie // the browser takes the request's directory, which is below prefix
	}
	if path = rewrite.AddPrefix(path, prefix); path == prefix || climbs(path[len(prefix):]) {
		path = prefix + "/"
	}
	return cookie + "; Path=" + path
}
