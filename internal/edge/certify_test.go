package edge_test

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// bound binds name.
func bound(t *testing.T, names registry.Registry, name string, kind protocol.Kind) registry.Release {
	t.Helper()
	dial := func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, net.ErrClosed }
	release, err := names.Bind(t.Context(), &registry.Route{Name: name, Owner: "a", Kind: kind, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// A certificate is ordered for whom a visitor can ask for, and somebody has: never for
// a name that nobody has, for what is a name to the registry alone, nor for one whose
// TLS ends at the client.
func TestMayCertify(t *testing.T) {
	public, _ := url.Parse("https://public.example.com")
	names := new(registry.Memory)
	h := &edge.HTTP{Registry: names, Domain: "tunnel.test", Public: public}
	for _, name := range []string{"demo", "localhost", "app.example.org"} {
		bound(t, names, name, protocol.KindHTTP)
	}
	bound(t, names, "held", protocol.KindHTTP)(time.Hour)
	bound(t, names, "held.example.org", protocol.KindHTTP)(time.Hour)
	bound(t, names, "sealed", protocol.KindTLS)
	bound(t, names, "sealed.example.org", protocol.KindTLS)
	bound(t, names, "away", protocol.KindTLS)(time.Hour)
	bound(t, names, "tcp/20001", protocol.KindTCP)
	bound(t, names, "private/a/demo", protocol.KindTCP)
	if _, err := names.Bind(t.Context(), &registry.Route{Name: "ended", Owner: "a", Kind: protocol.KindHTTP, Ends: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"tunnel.test": true, "public.example.com": true, "Demo.tunnel.test.": true, "held.tunnel.test": true, "localhost.tunnel.test": true,
		"app.example.org": true, "APP.example.org": true, "held.example.org": true,
		"": false, "localhost": false, "127.0.0.1": false, "[::1]": false, "::1": false, "other.tunnel.test": false, "a.demo.tunnel.test": false,
		"x.app.example.org": false, "example.org": false, "demo": false, "held": false, "tcp/20001": false, "private/a/demo": false,
		"app.example.org\x00": false, "*.tunnel.test": false, "tcp/20001.tunnel.test": false,
		"sealed": false, "sealed.tunnel.test": false, "sealed.example.org": false, "away.tunnel.test": false, "ended.tunnel.test": false,
	} {
		if err := h.MayCertify(t.Context(), host); (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// Over HTTP/3, too, nobody is shown another certificate in the place of the client's
// that ends TLS itself: what is meant for it may be said to the server then.
func TestNoCertificateOverHTTP3(t *testing.T) {
	names := new(registry.Memory)
	h := secure(t, server.Config{Registry: names})
	bound(t, names, "web", protocol.KindHTTP)
	bound(t, names, "sealed", protocol.KindTLS)
	bound(t, names, "away", protocol.KindTLS)(time.Hour)
	for name, want := range map[string]bool{"web": true, "nobody": true, "sealed": false, "away": false} {
		dialing, cancel := context.WithTimeout(t.Context(), patience)
		c, err := h.quic("")(dialing, "", h.greeting(name+".example.com", "h3"), nil)
		if timeout := dialing.Err(); (err == nil) != want || timeout != nil {
			t.Errorf("%s: %v, %v", name, err, timeout)
		}
		if err == nil {
			c.CloseWithError(0, "")
		}
		cancel()
	}
}
