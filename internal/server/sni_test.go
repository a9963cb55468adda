package server_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// claimKind claims name as of kind, and returns what came of it.
func (c *client) claimKind(kind protocol.Kind, name string) *protocol.Bound {
	c.t.Helper()
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 1, Kind: kind, Name: name}})
	return c.read().Bound
}

// A name is one, whatever its kind (S5), and there is TLS to pass on only where the
// server listens for it.
func TestClaimTLS(t *testing.T) {
	plain := start(t, server.Config{})
	one := plain.connect("", "machine-one", "")
	if b := one.claimKind(protocol.KindTLS, "demo"); !errors.Is(b.Error, &protocol.Error{Code: protocol.KindUnsupported}) || b.Error.Hint == "" {
		t.Errorf("without TLS: %+v", b)
	}
	n := start(t, server.Config{Domain: "example.com", TLS: &server.TLS{
		Listen: "127.0.0.1:0", NoHTTP3: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") },
	}})
	var clients []*client
	for _, token := range []string{"machine-one", "machine-two"} {
		clients = append(clients, n.connect("", token, ""))
	}
	b := clients[0].claimKind(protocol.KindTLS, "demo")
	if b.Error != nil || !strings.HasPrefix(b.URL, "tls://demo.example.com:") {
		t.Errorf("got %+v", b)
	}
	if b := clients[0].claimKind(protocol.KindHTTP, "web"); b.Error != nil {
		t.Errorf("got %+v", b)
	}
	for name, kind := range map[string]protocol.Kind{"demo": protocol.KindHTTP, "web": protocol.KindTLS} {
		if b := clients[1].claimKind(kind, name); !errors.Is(b.Error, &protocol.Error{Code: protocol.NameTaken}) {
			t.Errorf("%s as %s: %+v", name, kind, b)
		}
	}
}
