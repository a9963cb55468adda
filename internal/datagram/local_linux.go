package datagram

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// controlSize is the buffer for what comes beside a datagram, in bytes.
const controlSize = 128

// tellLocal makes c tell which address a datagram was sent to, and reports whether it
// does. A socket of one address need not, and one of all addresses would answer from
// whichever the system likes best for the way back, which visitors do not take for an
// answer. A socket of IPv6 takes what is IPv4 for mapped addresses here, too.
func tellLocal(c *net.UDPConn) bool {
	at, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok || !at.IP.IsUnspecified() {
		return false
	}
	return ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true) == nil ||
		ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true) == nil
}

// localOf reads what came beside a datagram.
func localOf(control []byte) netip.Addr {
	var six ipv6.ControlMessage
	if six.Parse(control) == nil && six.Dst != nil {
		a, _ := netip.AddrFromSlice(six.Dst.To16())
		return a
	}
	var four ipv4.ControlMessage
	if four.Parse(control) == nil && four.Dst != nil {
		a, _ := netip.AddrFromSlice(four.Dst.To4())
		return a
	}
	return netip.Addr{}
}

// controlFor is what goes beside an answer from local. A group's address is nobody's to
// send from.
func controlFor(local netip.Addr) []byte {
	local = local.Unmap() // the kernel takes IPv4's message on a socket of IPv6, too
	switch {
	case !local.IsValid() || local.IsMulticast() || local == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return nil
	case local.Is4():
		return (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
}
