package forward

import (
	"fmt"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// ProxyV2 is a Prepare that begins a connection to the app with a header of the PROXY
// protocol, version 2, from which the app learns the visitor's address and port. Where
// visitor is no ADDRESS:PORT, the header says that the connection is the client's own
// (LOCAL). The header's destination is the app's address, or, where that is of another
// family or a socket's path, the family's unspecified address.
func ProxyV2(app net.Conn, visitor string) error {
	header := proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if from, err := netip.ParseAddrPort(visitor); err == nil {
		// The library would make a visitor by IPv4 one by IPv6 for an app on ::1, and no
		// rule of the app's would know the address.
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		header.Command, header.TransportProtocol = proxyproto.PROXY, proxyproto.TCPv6
		if from.Addr().Is4() {
			header.TransportProtocol = proxyproto.TCPv4
		}
		header.SourceAddr = net.TCPAddrFromAddrPort(from)
		header.DestinationAddr = net.TCPAddrFromAddrPort(destination(app, from.Addr()))
	}
	if _, err := header.WriteTo(app); err != nil {
		return fmt.Errorf("send a PROXY header to the app: %w", err)
	}
	return nil
}

// destination is the app's address in the visitor's family.
func destination(app net.Conn, visitor netip.Addr) netip.AddrPort {
	if at, ok := app.RemoteAddr().(*net.TCPAddr); ok {
		ap := at.AddrPort()
		if ip := ap.Addr().Unmap().WithZone(""); ip.Is4() == visitor.Is4() {
			return netip.AddrPortFrom(ip, ap.Port())
		}
	}
	if visitor.Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}
