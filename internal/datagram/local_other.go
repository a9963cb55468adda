//go:build !linux

package datagram

import (
	"net"
	"net/netip"
)

// controlSize is the buffer for what comes beside a datagram, in bytes.
const controlSize = 0

// tellLocal is for Linux.
func tellLocal(*net.UDPConn) bool { return false }

func localOf([]byte) netip.Addr { return netip.Addr{} }

func controlFor(netip.Addr) []byte { return nil }
