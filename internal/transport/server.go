package transport

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// WrongServer says that server is not the URL of one, and how to write it where but the scheme is
// missing.
func WrongServer(server string) error {
	hint := ""
	if u, err := url.Parse("http://" + server); err == nil && u.Host == server && u.Hostname() != "" {
		hint = ": write " + likelyScheme(u.Hostname()) + "://" + server
	}
	return fmt.Errorf("server %q is not http://HOST[:PORT] or https://HOST[:PORT]%s", server, hint)
}

// likelyScheme is that of a server at host: one on this machine seldom has TLS.
func likelyScheme(host string) string {
	a, err := netip.ParseAddr(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && a.IsLoopback() {
		return "http"
	}
	return "https"
}
