package edge

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/registry"
)

func TestRemote(t *testing.T) {
	h := &HTTP{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}}
	for _, c := range []struct {
		addr, want string // want: X-Forwarded-For, "" for none
		trusted    bool
	}{
		{"10.0.0.1:5", "10.0.0.1", true},
		{"[::ffff:10.0.0.1]:5", "10.0.0.1", true},
		{"[fe80::1%eth0]:5", "fe80::1", true},
		{"192.0.2.1:5", "192.0.2.1", false},
		{"[2001:db8::1]:5", "2001:db8::1", false},
		{"@", "", false}, // a Unix socket
		{"", "", false},
	} {
		v := h.visit(&http.Request{RemoteAddr: c.addr, URL: new(url.URL)})
		if v.trusted != c.trusted {
			t.Errorf("%q: trusted is %v", c.addr, v.trusted)
		}
		header := http.Header{}
		setForwarded(header, v)
		if got := header.Get("X-Forwarded-For"); got != c.want {
			t.Errorf("%q: X-Forwarded-For is %q, want %q", c.addr, got, c.want)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"demo.example.com", "[::1]:80", "DEMO.example.com.:1", "\u212a.example.com", "example.com", "1.2.3.4", "app.example.org", "App.example.org.:1", "tcp/20001", "a_b.example.net", "app.example.org.example.com", "\u212a.example.org"} {
		f.Add(s)
	}
	names := &registry.Memory{}
	for _, name := range []string{"app.example.org", "tcp/20001", "a_b.example.net", "127.0.0.1", "example.net"} {
		if _, err := names.Bind(f.Context(), &registry.Route{Name: name}); err != nil {
			f.Fatal(err)
		}
	}
	h := &HTTP{Domain: "example.com", Registry: names}
	f.Fuzz(func(t *testing.T, host string) {
		name, own, ok := h.resolve(t.Context(), host)
		if own && (!ok || name != "") || !ok && name != "" {
			t.Fatalf("%q: got %q, %v, %v", host, name, own, ok)
		}
		if !ok || own {
			return
		}
		if domain := strings.Contains(name, "."); domain && name != "app.example.org" && name != "example.net" {
			t.Errorf("%q leads to %q, which is no domain that was claimed", host, name)
		} else if !domain {
			name += ".example.com"
		}
		// A name's own spelling leads to it too, and nowhere else.
		if again, own, ok := h.resolve(t.Context(), name); strings.TrimSuffix(name, ".example.com") != again || own || !ok {
			t.Errorf("%q is %q, whose host is %q, %v, %v", host, name, again, own, ok)
		}
		for _, c := range []byte(host) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("%q leads to %q", host, name) // and goes to the app in Host
			}
		}
	})
}
