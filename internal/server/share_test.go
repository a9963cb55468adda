package server_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

func (c *client) share(name string, s *protocol.Share) *protocol.Bound {
	c.t.Helper()
	return c.shareOf(&protocol.Bind{Name: name, Share: s})
}

func (c *client) shareOf(b *protocol.Bind) *protocol.Bound {
	c.t.Helper()
	b.ID = 7
	c.send(&protocol.Message{Bind: b})
	m := c.read()
	if m.Bound == nil {
		c.t.Fatalf("no answer to bind but %+v", m)
	}
	return m.Bound
}

// here is the test's own network.
func here() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func TestShareIsConfirmed(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "token", "")
	c.serve("app")
	b := c.must(c.share("demo", &protocol.Share{Deny: here(), NoIndex: true}))
	if !slices.Equal(b.Enforced, []string{"deny_cidr", "noindex"}) {
		t.Errorf("confirmed: %v", b.Enforced)
	}
	if b := c.must(c.bind("open")); b.Enforced != nil {
		t.Errorf("confirmed: %v", b.Enforced)
	}
	if res, _ := n.get("demo.localhost", "/"); res.StatusCode != 403 {
		t.Errorf("status %d", res.StatusCode)
	}
	if res, _ := n.get("open.localhost", "/"); res.StatusCode != 200 {
		t.Errorf("a name without: status %d", res.StatusCode)
	}
}

// It holds for all kinds, and to the end that was asked for.
func TestShareOfEachKind(t *testing.T) {
	names := new(registry.Memory)
	tcp, udp := rig.FreePorts(t, 1), rig.FreePorts(t, 1)
	n := start(t, server.Config{
		Registry: names, Domain: "example.com", TCPPorts: server.Ports{First: tcp, Last: tcp}, UDPPorts: server.Ports{First: udp, Last: udp},
		TLS: &server.TLS{Listen: "127.0.0.1:0", NoHTTP3: true, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }},
	})
	c := n.connect("", "token", "")
	for kind, name := range map[protocol.Kind]string{
		protocol.KindHTTP: "http", protocol.KindTLS: "tls", protocol.KindTCP: fmt.Sprint("tcp/", tcp), protocol.KindUDP: fmt.Sprint("udp/", udp),
	} {
		b := c.must(c.shareOf(&protocol.Bind{Kind: kind, Name: string(kind), Share: &protocol.Share{Deny: here(), TTL: time.Hour.Milliseconds()}}))
		if !slices.Equal(b.Enforced, []string{"deny_cidr", "ttl"}) {
			t.Errorf("%s: confirmed: %v", kind, b.Enforced)
		}
		r, err := names.Lookup(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if r.Policy.Admits(here()[0].Addr()) || !r.Policy.Admits(netip.MustParseAddr("192.0.2.1")) || time.Until(r.Ends) > time.Hour || time.Until(r.Ends) < time.Minute {
			t.Errorf("%s: the route is %+v", kind, r)
		}
	}
}

// What can't be carried out is refused: nothing is less protected than its owner thinks.
func TestShareIsRefused(t *testing.T) {
	n := start(t, server.Config{TCPPorts: server.Ports{First: 1, Last: 2}})
	c := n.connect("", "token", "")
	for name, b := range map[string]*protocol.Bind{
		"private":              {Name: "a", Private: true, Share: &protocol.Share{NoIndex: true}},
		"a password of a port": {Name: "b", Kind: protocol.KindTCP, Share: &protocol.Share{BasicAuth: []protocol.User{{Name: "u", Salt: make([]byte, 16), Hash: make([]byte, 32)}}}},
		"no hash":              {Name: "c", Share: &protocol.Share{BasicAuth: []protocol.User{{Name: "u"}}}},
		"framing":              {Name: "d", Share: &protocol.Share{Request: &protocol.Edits{Set: []protocol.Field{{Name: "Transfer-Encoding", Value: "x"}}}}},
		"a line end":           {Name: "e", Share: &protocol.Share{Response: &protocol.Edits{Set: []protocol.Field{{Name: "X-A", Value: "a\r\nb"}}}}},
		"ours":                 {Name: "f", Share: &protocol.Share{Response: &protocol.Edits{Set: []protocol.Field{{Name: "Tunnel-Error", Value: "x"}}}}},
		"too long":             {Name: "g", Share: &protocol.Share{TTL: 1 << 62}},
	} {
		if got := c.shareOf(b); got.Error == nil || got.Error.Code != protocol.ShareUnsupported || got.Enforced != nil {
			t.Errorf("%s: %+v", name, got)
		}
		if res, _ := n.get(b.Name+".localhost", "/"); res.StatusCode != 404 {
			t.Errorf("%s: the name is bound: %d", name, res.StatusCode)
		}
	}
}

// The newest claim of a name counts: with it what is asked for comes and goes.
func TestShareOfTheNextConnection(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Park: time.Minute})
	first := n.connect("", "token", "")
	first.serve("first")
	first.must(first.share("demo", &protocol.Share{Deny: here()}))
	if res, _ := n.get("demo.localhost", "/"); res.StatusCode != 403 {
		t.Errorf("first: %d", res.StatusCode)
	}
	first.mux.Close()
	second := n.connect("", "token", "")
	second.serve("second")
	second.must(second.share("demo", nil))
	if res, body := n.get("demo.localhost", "/"); res.StatusCode != 200 || body != "second" {
		t.Errorf("second: %d %s", res.StatusCode, body)
	}
	second.mux.Close()
	third := n.connect("", "token", "")
	third.must(third.share("demo", &protocol.Share{Deny: here()}))
	if res, _ := n.get("demo.localhost", "/"); res.StatusCode != 403 {
		t.Errorf("third: %d", res.StatusCode)
	}
}

// ended waits for the bye that says that the time of b is over. It may come before the
// answer.
func (c *client) ended(b *protocol.Bind) {
	c.t.Helper()
	c.send(&protocol.Message{Bind: b})
	m := c.read()
	if m.Bound != nil {
		m = c.read()
	}
	if m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.Ended {
		c.t.Fatalf("got %+v, want bye with ended", m)
	}
}

// The server ends an endpoint by itself: visitors are told, the client is, and the name is
// anybody's.
func TestTimeToLive(t *testing.T) {
	n := start(t, server.Config{Hold: time.Hour})
	c := n.connect("", "token", "")
	c.serve("app")
	c.ended(&protocol.Bind{Name: "demo", Share: &protocol.Share{TTL: 1}})
	res, body := n.get("demo.localhost", "/")
	if res.StatusCode != 410 || res.Header.Get(protocol.HeaderError) != "ended" {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
	other := n.connect("", "another", "")
	other.serve("other")
	other.must(other.bind("demo"))
	if res, body := n.get("demo.localhost", "/"); res.StatusCode != 200 || body != "other" {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
}

// One name's end leaves the session its others.
func TestTimeToLiveOfOneName(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "token", "")
	c.serve("app ")
	c.must(c.bind("stays"))
	c.must(c.share("demo", &protocol.Share{TTL: 1}))
	poll.Until(t, "the end of demo", func() bool {
		res, _ := n.get("demo.localhost", "/")
		return res.StatusCode == 410
	})
	if res, body := n.get("stays.localhost", "/"); res.StatusCode != 200 {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
	// It may have another time, once the session knows of the end, too.
	poll.Until(t, "another time", func() bool { return c.share("demo", nil).Error == nil })
	if res, _ := n.get("demo.localhost", "/"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// What holds for a name holds for the domains beside it.
func TestShareOfADomain(t *testing.T) {
	n := start(t, server.Config{Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "the-token-of-it domain=app.example.org\n")})
	c := n.connect("", "the-token-of-it", "")
	c.must(c.shareOf(&protocol.Bind{Name: "demo", Domains: []string{"app.example.org"}, Share: &protocol.Share{Deny: here()}}))
	if res, _ := n.get("app.example.org", "/"); res.StatusCode != 403 {
		t.Errorf("status %d", res.StatusCode)
	}
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
	c.ended(&protocol.Bind{Name: "demo", Domains: []string{"app.example.org"}, Share: &protocol.Share{TTL: 1}})
	for _, host := range []string{"demo.localhost", "app.example.org"} {
		if res, _ := n.get(host, "/"); res.StatusCode != 410 {
			t.Errorf("%s: status %d", host, res.StatusCode)
		}
	}
}

// A port is closed at its end.
func TestTimeToLiveOfAPort(t *testing.T) {
	port := rig.FreePorts(t, 1)
	n := start(t, server.Config{TCPPorts: server.Ports{First: port, Last: port}, Hold: time.Hour})
	c := n.connect("", "token", "")
	c.ended(&protocol.Bind{Name: "demo", Kind: protocol.KindTCP, Share: &protocol.Share{TTL: 1}})
	closed(t, port)
}
