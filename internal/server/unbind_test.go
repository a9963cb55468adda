package server_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Unbind gives back what was claimed by the name, whatever the registry knows it as,
// and nothing that another claim of the name has left behind.
func TestUnbind(t *testing.T) {
	n := two(t, server.Config{TCPPorts: ports(t, 1)})
	c := n.connector("token-of-ann")
	c.echo("ann")
	port := c.must(c.bindPort("demo", 0)).Port
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
	closed(t, port)
	c.must(c.bindPrivate(protocol.KindTCP, "demo"))
	if _, res, _ := c.ask(connectTo("demo")); res.StatusCode != http.StatusOK {
		t.Errorf("private: %s", res.Status)
	}
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
	c.must(c.bind("demo")) // the answer comes when the name is free
	if _, res, _ := c.ask(connectTo("demo")); res.Header.Get(protocol.HeaderError) != string(protocol.NameUnknown) {
		t.Errorf("the private endpoint that was given back: %s", res.Status)
	}
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
	c.must(c.bind("other"))
	if res, _ := n.get("demo.localhost", "/"); res.Header.Get(protocol.HeaderError) != string(protocol.NameUnknown) {
		t.Errorf("the public name that was given back: %s", res.Status)
	}
}

// S10: who claims ever new names, and gives them back, or is refused them, is
// remembered no longer than it has them.
func TestUnbindForgets(t *testing.T) {
	who := tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann domain=*.example.net\ntoken-of-bob\n")
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", TCPPorts: ports(t, 1), Auth: who})
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, s)
	other := n.connect("", "token-of-bob", "")
	other.must(other.bind("taken"))
	c := n.connect("", "token-of-ann", "")
	for i := range 50 {
		name := fmt.Sprint("name-", i)
		c.must(c.bindPort(name, 0))
		c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: name}})
		c.must(c.bindPrivate(protocol.KindTCP, name))
		c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: name}})
		domain := name + ".example.net"
		c.must(c.claim(name, domain))
		c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: name}})
		c.refused(c.claim("taken", "x-"+domain), protocol.NameTaken)
	}
	if n := s.Remembered(); n > 4 {
		t.Errorf("%d claims are remembered", n)
	}
}
