package server_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// TestPortHost: clients' ports are where visitors come, also where the plain listener is
// for this machine alone. Only Linux has 127.0.0.2 without more.
func TestPortHost(t *testing.T) {
	for _, secured := range []bool{false, true} {
		free := ports(t, 2)
		c := server.Config{TCPPorts: free, UDPPorts: free}
		used, unused := "127.0.0.1", "127.0.0.2"
		if secured {
			used, unused = unused, used
			c.TLS = &server.TLS{Listen: "127.0.0.2:0", GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, errors.New("none")
			}}
		}
		one := start(t, c).connect("", "token", "")
		for _, kind := range []protocol.Kind{protocol.KindTCP, protocol.KindUDP} {
			b := one.must(one.claimKind(kind, string(kind)))
			if listens(kind, used, b.Port) == listens(kind, unused, b.Port) || !listens(kind, used, b.Port) {
				t.Errorf("TLS %v, %s: %s %v, %s %v", secured, kind, used, listens(kind, used, b.Port), unused, listens(kind, unused, b.Port))
			}
		}
	}
}

// listens reports whether somebody listens at port of host.
func listens(kind protocol.Kind, host string, port int) bool {
	ip := net.ParseIP(host)
	if kind == protocol.KindUDP {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: port})
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: ip, Port: port})
	if err == nil {
		l.Close()
	}
	return err != nil
}
