//go:build !unix

package proxy

import "net"

// stale can't be told here; Transport.Fresh keeps idle connections from
// carrying what must not be repeated.
func stale(net.Conn) bool { return false }
