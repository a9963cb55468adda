package edge

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

// S14: who comes through a trusted proxy is who that proxy says, and nobody else
// can say who he is.
func TestVisitor(t *testing.T) {
	h := &HTTP{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}}
	for _, test := range []struct {
		remote, want string
		forwarded    []string
	}{
		{remote: "192.0.2.1:1234", want: "192.0.2.1"},
		{remote: "192.0.2.1:1234", forwarded: []string{"203.0.113.9"}, want: "192.0.2.1"}, // not trusted
		{remote: "[::ffff:10.1.1.1]:1", forwarded: []string{"203.0.113.9"}, want: "203.0.113.9"},
		{remote: "10.1.1.1:1", forwarded: []string{"198.51.100.1, 203.0.113.9"}, want: "203.0.113.9"}, // the first is made up
		{remote: "10.1.1.1:1", forwarded: []string{"192.0.2.5, 198.51.100.1, 203.0.113.9"}, want: "203.0.113.9"},
		{remote: "10.1.1.1:1", forwarded: []string{"198.51.100.1", "203.0.113.9"}, want: "203.0.113.9"},
		{remote: "10.1.1.1:1", forwarded: []string{"203.0.113.9", "10.2.2.2"}, want: "203.0.113.9"}, // two proxies
		{remote: "[2001:db8:1::5]:1", forwarded: []string{"2001:db8:2::7"}, want: "2001:db8:2::7"},
		{remote: "10.1.1.1:1", forwarded: []string{"203.0.113.9:5555"}, want: "203.0.113.9"},
		{remote: "10.1.1.1:1", forwarded: []string{"[2001:db8:2::7]:5555"}, want: "2001:db8:2::7"},
		{remote: "10.1.1.1:1", forwarded: []string{"[2001:db8:2::7]"}, want: "2001:db8:2::7"},
		{remote: "10.1.1.1:1", forwarded: []string{"10.3.3.3"}, want: "10.3.3.3"},
		{remote: "10.1.1.1:1", want: "10.1.1.1"},
		{remote: "10.1.1.1:1", forwarded: []string{"198.51.100.1, unknown"}, want: "10.1.1.1"},
		{remote: "10.1.1.1:1", forwarded: []string{"198.51.100.1, 203.0.113.9,"}, want: "10.1.1.1"},
		{remote: "pipe", forwarded: []string{"203.0.113.9"}, want: "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{"X-Forwarded-For": test.forwarded}}
		if got := h.Visitor(r).String(); got != test.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", test.remote, test.forwarded, got, test.want)
		}
	}
}

// The client is told the connection's own address with its port, or the one that a
// trusted proxy names, without; and never what a visitor says.
func TestNameVisitor(t *testing.T) {
	h := &HTTP{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, test := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:1234", "", "[192.0.2.1:1234]"},
		{"192.0.2.1:1234", "203.0.113.9", "[192.0.2.1:1234]"},
		{"[2001:db8::1]:1234", "", "[[2001:db8::1]:1234]"},
		{"[::ffff:192.0.2.1]:1234", "", "[192.0.2.1:1234]"},
		{"[fe80::1%eth0]:1234", "", "[[fe80::1]:1234]"},
		{"10.1.1.1:1234", "198.51.100.1, 203.0.113.9", "[203.0.113.9:0]"},
		{"10.1.1.1:1234", "203.0.113.9:5555", "[203.0.113.9:0]"},
		{"10.1.1.1:1234", "", "[10.1.1.1:1234]"},
		{"pipe", "", "[]"},
	} {
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{}, URL: new(url.URL)}
		if test.forwarded != "" {
			r.Header.Set("X-Forwarded-For", test.forwarded)
		}
		header := http.Header{}
		h.nameVisitor(header, r, h.visit(r))
		if got := fmt.Sprint(header[protocol.HeaderVisitor]); got != test.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", test.remote, test.forwarded, got, test.want)
		}
	}
}
