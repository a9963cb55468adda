//go:build !linux && !darwin

package transport

import "net"

// limitUnsent does nothing: this system has no such limit.
func limitUnsent(net.Conn) {}
