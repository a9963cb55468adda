//go:build !linux && !darwin

package transport

import "net"

// LimitUnsent does nothing: this system has no such limit.
func LimitUnsent(net.Conn) {}
