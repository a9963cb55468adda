package server_test

import (
	"context"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// nameServer answers TXT queries over UDP until the test ends: with the records of
// a name, with SERVFAIL for those that have nil, with NXDOMAIN for all others.
func nameServer(t *testing.T, records map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
			if txt, ok := records[q.Name.String()]; ok && q.Type == dnsmessage.TypeTXT {
				m.RCode = dnsmessage.RCodeSuccess
				if txt == nil {
					m.RCode = dnsmessage.RCodeServerFailure
				}
				for _, one := range txt {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
						Body:   &dnsmessage.TXTResource{TXT: []string{one}},
					})
				}
			}
			if packed, err := m.Pack(); err == nil {
				conn.WriteTo(packed, from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// The system's resolver, over the wire: what is there, what is not, and what nobody
// can tell.
func TestRecordsOverDNS(t *testing.T) {
	r := nameServer(t, map[string][]string{
		"_tunnel.app.example.org.":   {"v=spf1 -all", idOf(t, "token-of-bob")},
		"_tunnel.other.example.org.": {idOf(t, "token-of-ann")},
		"_tunnel.sick.example.org.":  nil,
	})
	n, _ := domains(t, server.Config{Resolver: r}, "")
	bob := n.connect("", "token-of-bob", "")
	bob.refused(bob.claim("demo", "none.example.org"), protocol.Forbidden)
	bob.refused(bob.claim("demo", "other.example.org"), protocol.Forbidden)
	bob.refused(bob.claim("demo", "sick.example.org"), protocol.DomainUnverified)
	bob.must(bob.claim("demo", "app.example.org"))
	bob.serve("bob")
	n.leads("app.example.org", "bob")
}
