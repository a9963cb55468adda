package protocol

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Reverse HTTP as draft-kazuho-ptth-ptth-01 has it: a backend asks a reverse proxy for
//
//	GET /.well-known/ptth/https%3A%2F%2Fdemo.example.com/ HTTP/1.1
//	Connection: Upgrade
//	Upgrade: ptth
//	ALPN: h2, http%2F1.1
//	Authorization: Bearer TOKEN
//
// and after the 101, whose ALPN is the version chosen, plain HTTP of that version goes
// on with the roles turned around. docs/ptth.md tells the whole exchange.
const (
	// UpgradePTTH is the token of Upgrade, and of :protocol in an extended CONNECT.
	UpgradePTTH = "ptth"

	// PathPTTH begins the path by which PTTH is asked for; the origins follow, and a
	// slash.
	PathPTTH = "/.well-known/ptth/"

	// HeaderALPN is the field that offers, or chooses, what is spoken (RFC 7639).
	HeaderALPN = "ALPN"

	// HeaderPolicy is a field of ours. In the request it is a [Share] for all its origins, as
	// JSON in base64url without padding (RFC 4648, section 5); in the 101 the names of the
	// parts that the proxy carries out, see [Share.Parts]. What a proxy does not name is not
	// in force there.
	HeaderPolicy = "Tunnel-Policy"

	// MaxOrigins is how many origins one request may list.
	MaxOrigins = 100
)

// What is spoken on a connection of PTTH, as ALPN identifiers (RFC 7301, section 6).
const (
	ALPNHTTP1 = "http/1.1"
	ALPNHTTP2 = "h2"
)

// Origin is a scheme, host and port (RFC 6454, section 4). The zero value is none.
type Origin struct {
	Scheme string // http or https
	Host   string // in lower case; of IPv6 in brackets
	Port   string // "": the scheme's own
}

// String serializes o (RFC 6454, section 6.2).
func (o Origin) String() string {
	if o.Port == "" {
		return o.Scheme + "://" + o.Host
	}
	return o.Scheme + "://" + o.Host + ":" + o.Port
}

// ParseOrigin reads a serialized origin of http or https. Letters may be of either
// case, and the scheme's own port may stand there. Opaque origins, "null", are
// refused.
func ParseOrigin(s string) (Origin, error) {
	bad := func(why string) (Origin, error) {
		return Origin{}, fmt.Errorf("origin %q %s", s[:min(len(s), 2*MaxDomain)], why)
	}
	scheme, rest, ok := strings.Cut(strings.ToLower(s), "://")
	switch {
	case s == "null":
		return bad("is of nobody")
	case !ok || scheme != "http" && scheme != "https":
		return bad("is not http:// or https:// and a host")
	case strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/?#@\%,"<>^|{}`+"`", r) }):
		return bad("has more than a host and a port, or a character that no host has")
	}
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		host, port = rest[:i], rest[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return bad("has no valid port")
		}
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if host == "" || len(host) > MaxDomain || !bracketed && strings.ContainsAny(host, "[]:") {
		return bad("has no valid host")
	}
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	return Origin{scheme, host, port}, nil
}

// ParseOrigins reads the path of a request for PTTH, as it stood in the request: the
// list of RFC 6570, section 3.2.2, each origin of it percent-encoded once. Who lists
// an origin twice gets it once.
func ParseOrigins(path string) ([]Origin, error) {
	path, _, _ = strings.Cut(path, "?")
	list, begins := strings.CutPrefix(path, PathPTTH)
	list, ends := strings.CutSuffix(list, "/")
	if !begins || !ends || list == "" || strings.Contains(list, "/") {
		return nil, errors.New("the path is not " + PathPTTH + " with a list of origins, percent-encoded and joined by commas, and a slash")
	}
	if n := strings.Count(list, ",") + 1; n > MaxOrigins {
		return nil, fmt.Errorf("the list has %d origins, more than %d", n, MaxOrigins)
	}
	var origins []Origin
	seen := make(map[Origin]bool)
	for item := range strings.SplitSeq(list, ",") {
		plain, err := url.PathUnescape(item)
		if err != nil {
			return nil, errors.New("the list of origins is not percent-encoded well")
		}
		origin, err := ParseOrigin(plain)
		if err != nil {
			return nil, err
		}
		if !seen[origin] {
			seen[origin] = true
			origins = append(origins, origin)
		}
	}
	return origins, nil
}

// PTTHPath is the path by which PTTH is asked for, for origins.
func PTTHPath(origins []Origin) string {
	items := make([]string, len(origins))
	for i, origin := range origins {
		items[i] = escape(origin.String())
	}
	return PathPTTH + strings.Join(items, ",") + "/"
}

// FormatALPN is the value of the field ALPN for protocols (RFC 7639, section 2.2).
func FormatALPN(protocols ...string) string {
	items := make([]string, len(protocols))
	for i, p := range protocols {
		items[i] = escape(p)
	}
	return strings.Join(items, ", ")
}

// ParseALPN reads the values of the field ALPN. What is not percent-encoded though it
// should be, such as http/1.1, is taken as it is meant.
func ParseALPN(values []string) (protocols []string, err error) {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.Trim(item, " \t"); item == "" {
				continue // RFC 9110, section 5.6.1
			}
			p, err := url.PathUnescape(item)
			if err != nil || len(p) > 255 {
				return nil, errors.New("the field ALPN is not a list of protocol identifiers, percent-encoded (RFC 7639)")
			}
			protocols = append(protocols, p)
		}
	}
	if len(protocols) == 0 {
		return nil, errors.New("the field ALPN is missing: it names the versions of HTTP that the origin can speak, such as h2, http%2F1.1")
	}
	return protocols, nil
}

// escape percent-encodes all but letters, digits and "-._~", which no part of a
// protocol on the way reads as anything else (RFC 3986, section 2.3).
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
