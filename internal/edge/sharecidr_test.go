package edge_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// A network counts as far as it can be believed: what a visitor says of itself is nothing.
func TestCIDR(t *testing.T) {
	const refused = "403 visitor_refused"
	allow, deny := networks("192.0.2.0/24", "2001:db8::/32"), networks("127.0.0.0/8", "192.0.2.7/32")
	for _, c := range []struct {
		name    string
		share   *protocol.Share
		trusted string
		forged  string // X-Forwarded-For
		want    string
	}{
		{"an address that is allowed", &protocol.Share{Allow: networks("127.0.0.1/32")}, "", "", "demo"},
		{"one that is not", &protocol.Share{Allow: allow}, "", "", refused},
		{"one that is denied", &protocol.Share{Deny: deny}, "", "", refused},
		{"said by a visitor", &protocol.Share{Allow: allow}, "", "192.0.2.1", refused},
		{"said by a visitor, denied", &protocol.Share{Deny: deny}, "", "192.0.2.1", refused},
		{"said by a proxy", &protocol.Share{Allow: allow}, "127.0.0.0/8", "192.0.2.1", "demo"},
		{"said by a proxy, of IPv6", &protocol.Share{Allow: allow}, "127.0.0.0/8", "2001:db8::1", "demo"},
		{"said by a visitor to a proxy", &protocol.Share{Allow: allow}, "127.0.0.0/8", "192.0.2.1, 198.51.100.1", refused},
		{"denied by a proxy", &protocol.Share{Deny: deny}, "127.0.0.0/8", "192.0.2.7", refused},
		{"denied, and a visitor says otherwise", &protocol.Share{Deny: deny}, "127.0.0.0/8", "198.51.100.1, 192.0.2.7", refused},
		{"mapped", &protocol.Share{Deny: deny}, "127.0.0.0/8", "::ffff:192.0.2.7", refused},
		{"garbage by a proxy", &protocol.Share{Allow: allow}, "127.0.0.0/8", "192.0.2.1, x", refused},
		{"nobody by a proxy", &protocol.Share{Allow: allow}, "127.0.0.0/8", "", refused},
	} {
		var config server.Config
		if c.trusted != "" {
			config.Trusted = networks(c.trusted)
		}
		addr := guarded(t, config, c.share)
		lines := []string{"GET / HTTP/1.1", demo, "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1"}
		if c.forged != "" {
			lines = append(lines, "X-Forwarded-For: "+c.forged)
		}
		if got := answered(get(t, addr, lines...)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// It holds beside all else, and before it.
func TestCIDRHoldsAlways(t *testing.T) {
	key, public := linkKeys(t)
	addr := guarded(t, server.Config{}, &protocol.Share{BasicAuth: alice(t), Link: public, NoIndex: true, Deny: networks("127.0.0.0/8")})
	for _, lines := range [][]string{
		{"GET / HTTP/1.1", demo, rightful}, {"GET /?tunnel-share=" + good(key) + " HTTP/1.1", demo}, {"GET / HTTP/1.1", demo, "Cookie: tunnel-share=" + good(key)},
		{"GET /robots.txt HTTP/1.1", demo}, {"OPTIONS / HTTP/1.1", demo, "Origin: https://a.example", "Access-Control-Request-Method: PUT"},
	} {
		if got := answered(get(t, addr, lines...)); got != "403 visitor_refused" {
			t.Errorf("%q: got %s", lines, got)
		}
	}
}

// denied is a policy that lets nobody of this machine in.
func denied() *policy.Policy {
	return &policy.Policy{Share: &protocol.Share{Deny: networks("127.0.0.0/8")}}
}

// A connection to a port is aborted before a byte of it is passed on, and there is no
// line in the log for each.
func TestCIDROfPorts(t *testing.T) {
	log := new(rig.Buffer)
	names := new(registry.Memory)
	tcp := &edge.TCP{Registry: names, Host: "127.0.0.1", Log: slog.New(slog.NewTextHandler(log, nil))}
	free := loopback(t)
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	_, err := names.Bind(t.Context(), &registry.Route{Name: edge.TCPName(port), Owner: "a", Kind: protocol.KindTCP, Policy: denied(), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
		t.Error("the client is called")
		return nil, io.EOF
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tcp.Open(port); err != nil {
		t.Fatal(err)
	}
	v, err := net.Dial("tcp", free.Addr().String())
	if err == nil { // the reset did not come before the end of the dial
		defer v.Close()
		_, err = io.Copy(io.Discard, v)
	}
	if !isReset(err) {
		t.Errorf("got %v, want a reset", err)
	}
	tcp.Shutdown(t.Context())
	if log.String() != "" {
		t.Errorf("the log is %s", log)
	}
}

func TestCIDROfTLS(t *testing.T) {
	s := startSNI(t, edge.Limits{}, 0)
	dial := secret(t, "app")
	_, err := s.registry.Bind(t.Context(), &registry.Route{Name: "demo", Owner: "a", Kind: protocol.KindTLS, Policy: denied(), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
		return dial()
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, who, err := s.greet(s.visit(), &tls.Config{ServerName: "demo.example.com"}); err == nil {
		t.Errorf("it is let in to %s", who)
	}
	if n := s.served.Load(); n != 0 {
		t.Errorf("the server answers %d itself", n)
	}
}

// A datagram of who may not visit is dropped, and takes no visitor's place.
func TestCIDROfDatagrams(t *testing.T) {
	r := newUDPRig(t, new(edge.UDP))
	r.release(0)
	release, err := r.names.Bind(t.Context(), &registry.Route{Name: edge.UDPName(r.port), Owner: "owner", Kind: protocol.KindUDP, Policy: denied(), Dial: r.dial})
	if err != nil {
		t.Fatal(err)
	}
	v := r.visitor()
	io.WriteString(v, "refused")
	r.await("it is dropped", func(s datagram.Stats) bool { return s.In == 1 && s.Dropped.Refused == 1 && s.Visitors == 0 })
	if len(r.streams) != 0 {
		t.Error("the client is called")
	}
	release(0)
	r.bind("owner", r.dial)
	io.WriteString(v, "let in")
	if got := r.stream().receive(t); !strings.Contains(got, "let in") {
		t.Errorf("got %q", got)
	}
}
