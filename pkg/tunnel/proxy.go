package tunnel

import (
	"net/url"

	"github.com/revtun/tunnel/internal/transport"
)

// FixedProxy is for [Client.Proxy]: every server is reached through the one
// forward proxy http://[USER:PASSWORD@]HOST[:PORT] or https://…; without a
// scheme, http. The error does not show proxy, which may hold a password.
func FixedProxy(proxy string) (func(*url.URL) (*url.URL, error), error) {
	return transport.FixedProxy(proxy)
}
