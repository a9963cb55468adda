package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// capsuleTo asks for datagrams of the private endpoint name.
func capsuleTo(name string) string {
	return "GET /.well-known/masque/udp/" + name + "/0/ HTTP/1.1\r\nHost: mine\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n"
}

// echoUDP answers each request for datagrams with 101, what was asked, and what comes;
// how each stream ended is sent to the channel.
func (c *client) echoUDP(who string) <-chan error {
	ends := make(chan error, 1000)
	go func() {
		for {
			s, err := c.mux.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				r := bufio.NewReader(s)
				req, err := http.ReadRequest(r)
				if err != nil || req.Header.Get("Upgrade") != protocol.UpgradeUDP {
					return
				}
				fmt.Fprintf(s, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n%s:%s %s\n", who, req.RequestURI, req.Header.Get("Forwarded"))
				_, err = io.Copy(s, r)
				ends <- err
			}()
		}
	}()
	return ends
}

// The bytes of a stream are the other client's, in both directions, and an abort is one.
func TestConnectUDP(t *testing.T) {
	n := two(t, server.Config{})
	app := n.connect("", "token-of-ann", "")
	if b := app.must(app.bindPrivate(protocol.KindUDP, "dns")); b.URL != "private:dns" || b.Port != 0 {
		t.Errorf("bound %+v", b)
	}
	ends := app.echoUDP("ann")
	c := n.connector("token-of-ann")
	s, res, r := c.ask(capsuleTo("dns") + "early\n")
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "connect-udp" || res.Header.Get("Capsule-Protocol") != "?1" {
		t.Fatalf("%s %v", res.Status, res.Header)
	}
	if got := line(t, r); !strings.HasPrefix(got, `ann:/.well-known/masque/udp/dns/0/ for="127.0.0.1:`) || strings.HasSuffix(got, `:0"`) {
		t.Errorf("the app was asked %q", got)
	}
	if got := line(t, r); got != "early" {
		t.Errorf("what came with the request arrived as %q", got)
	}
	io.WriteString(s, "late\n")
	if got := line(t, r); got != "late" {
		t.Errorf("then %q", got)
	}
	s.Reset()
	select {
	case err := <-ends:
		if err == nil {
			t.Error("the abort came as an end")
		}
	case <-time.After(udpTime):
		t.Error("the other client's stream does not end")
	}
}

// S11, S13, S16, S18: by datagrams, too, nothing is reached but the own private endpoints,
// and another's is told from nothing.
func TestConnectUDPReachesNothingElse(t *testing.T) {
	names := &registry.Memory{}
	for _, name := range []string{"label", "udp/20000", "private-udp/label"} {
		if _, err := names.Bind(t.Context(), &registry.Route{Name: name, Owner: ownerOf(t, "token-of-ann"), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
			t.Errorf("the route %s was dialled", name)
			return nil, net.ErrClosed
		}}); err != nil {
			t.Fatal(err)
		}
	}
	n := two(t, server.Config{Registry: names})
	bob := n.connect("", "token-of-bob", "")
	bob.must(bob.bindPrivate(protocol.KindUDP, "dns"))
	bob.must(bob.bindPrivate(protocol.KindTCP, "db"))
	bob.echoUDP("bob")
	ann := n.connect("", "token-of-ann", "")
	ann.must(ann.bindPrivate(protocol.KindUDP, "mine"))
	ann.echoUDP("ann")
	c := n.connector("token-of-ann")
	owner := ownerOf(t, "token-of-bob")
	for _, name := range []string{
		"dns", "db", "unknown", "label", "udp/20000", "private-udp/label", "private-udp/" + owner + "/dns", owner + "/dns", "../" + owner + "/dns",
		"%2e%2e%2F" + owner + "%2Fdns", "127.0.0.1", "localhost", "MINE", "mine.", "mine/0", "", strings.Repeat("a", 64),
	} {
		_, res, _ := c.ask(capsuleTo(name))
		if code := res.Header.Get(protocol.HeaderError); res.StatusCode != http.StatusNotFound || code != string(protocol.NameUnknown) {
			t.Errorf("%q: %s, code %q", name, res.Status, code)
		}
	}
	same := func(request string) string {
		_, res, r := c.ask(request)
		var all strings.Builder
		res.Write(&all)
		rest, _ := io.ReadAll(r)
		return all.String() + string(rest)
	}
	for _, ask := range []func(string) string{capsuleTo, connectTo} {
		nothing := same(ask("nothing"))
		for _, name := range []string{"dns", "db"} { // of the asked kind, and of the other
			if got := same(ask(name)); got != nothing {
				t.Errorf("another's endpoint %s is told from one that is not there:\n%q\n%q", name, got, nothing)
			}
		}
	}
	if b := ann.bindPrivate(protocol.KindUDP, "dns"); b.Error != nil {
		t.Errorf("another's endpoint is told from one that is not there when it is claimed: %v", b.Error)
	}
	for _, request := range []string{
		strings.Replace(capsuleTo("mine"), "GET", "POST", 1), strings.Replace(capsuleTo("mine"), "connect-udp", "websocket", 1),
		strings.Replace(capsuleTo("mine"), "/0/ ", "/53/ ", 1), strings.Replace(capsuleTo("mine"), "GET ", "GET http://mine", 1),
		"GET /.well-known/masque/udp/mine/0/ HTTP/1.1\r\nHost: mine\r\n\r\n", "GET mine HTTP/1.1\r\nHost: mine\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n",
	} {
		if _, res, _ := c.ask(request); res.StatusCode < 400 {
			t.Errorf("%.60q: %s", request, res.Status)
		}
	}
	if _, res, r := c.ask(capsuleTo("mine")); res.StatusCode != http.StatusSwitchingProtocols || !strings.HasPrefix(line(t, r), "ann:") {
		t.Errorf("after all that the own endpoint answers %s", res.Status)
	}
}

// Who asks for the wrong kind is told so, of what is there and of what is just away; the
// same name may be of both.
func TestConnectWrongKind(t *testing.T) {
	n := two(t, server.Config{Hold: time.Hour, Park: time.Hour})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindUDP, "dns"))
	app.must(app.bindPrivate(protocol.KindTCP, "db"))
	app.must(app.bindPrivate("", "web"))
	c := n.connector("token-of-ann")
	wrong := func(when string) {
		t.Helper()
		for _, request := range []string{connectTo("dns"), capsuleTo("db"), capsuleTo("web")} {
			if _, res, _ := c.ask(request); res.StatusCode != http.StatusBadRequest || res.Header.Get(protocol.HeaderError) != string(protocol.WrongKind) {
				t.Errorf("%s, %.50q: %s %v", when, request, res.Status, res.Header)
			}
		}
	}
	wrong("there")
	both := n.connect("", "token-of-ann", "")
	both.must(both.bindPrivate(protocol.KindTCP, "dns"))
	both.echo("tcp")
	if _, res, r := c.ask(connectTo("dns")); res.StatusCode != http.StatusOK || !strings.HasPrefix(line(t, r), "tcp:dns ") {
		t.Errorf("of a name of both kinds: %s", res.Status)
	}
	if b := both.bindPrivate(protocol.KindUDP, "dns"); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Errorf("the name of another client of the same token is given as %+v", b)
	}
	both.must(both.bindPrivate(protocol.KindTCP, "other"))
	both.send(&protocol.Message{Bye: &protocol.Bye{}})
	poll.Until(t, "the names are free", func() bool { // its names are free then
		_, res, _ := c.ask(connectTo("dns"))
		return res.Header.Get(protocol.HeaderError) == string(protocol.WrongKind)
	})
	app.mux.Close()
	poll.Until(t, "the client is away", func() bool { // datagrams do not wait for who is away
		_, res, _ := c.ask(capsuleTo("dns"))
		return res.Header.Get(protocol.HeaderError) == string(protocol.ClientOffline)
	})
	wrong("away")
}

// The cap counts both kinds.
func TestConnectUDPCap(t *testing.T) {
	n := two(t, server.Config{})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindUDP, "dns"))
	app.echoUDP("ann")
	c := n.connector("token-of-ann")
	for i := range server.MaxConnects {
		if _, res, _ := c.ask(capsuleTo("dns")); res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("stream %d: %s", i+1, res.Status)
		}
	}
	for _, request := range []string{capsuleTo("dns"), connectTo("dns")} {
		if _, res, _ := c.ask(request); res.Header.Get(protocol.HeaderError) != string(protocol.Overloaded) {
			t.Errorf("one more: %s %v", res.Status, res.Header)
		}
	}
}

// Datagrams have no end that a server which drains would wait for.
func TestConnectUDPWhileDraining(t *testing.T) {
	n := two(t, server.Config{Grace: time.Hour})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindUDP, "dns"))
	app.echoUDP("ann")
	c := n.connector("token-of-ann")
	_, _, r := c.ask(capsuleTo("dns"))
	line(t, r)
	n.stop()
	select {
	case err := <-n.done:
		n.done <- err
	case <-time.After(udpTime):
		t.Fatal("the server does not end")
	}
}
