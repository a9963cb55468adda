package pebble

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// Loopback is the address of a resolver that says 127.0.0.1 to every A, and that
// there is nothing else.
func Loopback(tb testing.TB) string {
	tb.Helper()
	return Resolver(tb, nil)
}

// Resolver is the address of a resolver, on UDP and TCP, that asks nameserver
// for TXT and SOA, as if the whole tree led there, and says 127.0.0.1 to every A.
// An answer that is not NOERROR is passed on as it is.
func Resolver(tb testing.TB, nameserver func() string) string {
	tb.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		for _, question := range q.Question {
			switch {
			case question.Qtype == dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
					A:   net.IPv4(127, 0, 0, 1),
				})
			case nameserver != nil && (question.Qtype == dns.TypeTXT || question.Qtype == dns.TypeSOA):
				in, err := dns.Exchange(q, nameserver())
				if err != nil {
					m.Rcode = dns.RcodeServerFailure
					break
				}
				m = in
			}
		}
		_ = w.WriteMsg(m)
	})
	return serve(tb, handler)
}

// serve answers on one port, over UDP and TCP.
func serve(tb testing.TB, handler dns.Handler) string {
	tb.Helper()
	for range 10 { // the port that TCP got may be taken for UDP
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		addr := l.Addr().String()
		packets, err := net.ListenPacket("udp", addr)
		if err != nil {
			l.Close()
			continue
		}
		for _, s := range []*dns.Server{{Listener: l}, {PacketConn: packets}} {
			started, ended := make(chan struct{}), make(chan struct{})
			s.Handler = handler
			s.NotifyStartedFunc = func() { close(started) }
			go func() {
				defer close(ended)
				_ = s.ActivateAndServe()
			}()
			<-started
			tb.Cleanup(func() {
				_ = s.Shutdown()
				<-ended
			})
		}
		return addr
	}
	tb.Fatal("no port is free for both UDP and TCP")
	return ""
}
