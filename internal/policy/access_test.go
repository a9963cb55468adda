package policy

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

func TestAdmits(t *testing.T) {
	for _, c := range []struct{ allow, deny, from, want string }{
		{"", "", "192.0.2.1", "yes"}, {"", "", "", "yes"},
		{"192.0.2.0/24", "", "192.0.2.1", "yes"}, {"192.0.2.0/24", "", "192.0.3.1", "no"}, {"192.0.2.0/24", "", "2001:db8::1", "no"},
		{"192.0.2.0/24 2001:db8::/32", "", "2001:db8::1", "yes"},
		{"", "192.0.2.0/24", "192.0.2.1", "no"}, {"", "192.0.2.0/24", "192.0.3.1", "yes"},
		{"192.0.2.0/24", "192.0.2.7/32", "192.0.2.7", "no"}, {"192.0.2.7/32", "192.0.2.0/24", "192.0.2.7", "no"},
		{"192.0.2.0/24", "", "::ffff:192.0.2.1", "yes"}, {"", "192.0.2.0/24", "::ffff:192.0.2.1", "no"},
		{"fe80::/10", "", "fe80::1%eth0", "yes"}, {"", "fe80::/10", "fe80::1%eth0", "no"},
		// Who is not known is not let in by not being on a list.
		{"192.0.2.0/24", "", "", "no"}, {"", "192.0.2.0/24", "", "no"}, {"0.0.0.0/0", "", "", "no"},
	} {
		var from netip.Addr
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		p := &Policy{Share: &protocol.Share{Allow: nets(c.allow), Deny: nets(c.deny)}}
		if got := p.Admits(from); got != (c.want == "yes") {
			t.Errorf("allow %q, deny %q: %q is admitted: %v", c.allow, c.deny, c.from, got)
		}
	}
	for _, p := range []*Policy{nil, {}} {
		if !p.Admits(netip.Addr{}) {
			t.Error("a policy without lists refuses")
		}
	}
}

func nets(list string) (all []netip.Prefix) {
	for one := range strings.FieldsSeq(list) {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func TestLogin(t *testing.T) {
	user, err := protocol.NewUser("alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Share: &protocol.Share{BasicAuth: []protocol.User{user}}}
	for _, c := range [][2]string{{"alice", "Secret"}, {"alice", ""}, {"Alice", "secret"}, {"", "secret"}, {"", ""}, {"bob", "secret"}} {
		if p.Login(c[0], c[1]) || p.Known(c[0], c[1]) {
			t.Errorf("%q is let in", c)
		}
	}
	if p.Known("alice", "secret") {
		t.Error("known before the first login")
	}
	if !p.Login("alice", "secret") || !p.Known("alice", "secret") {
		t.Error("alice is not let in, or not known then")
	}
	if p.Known("alice", "secre") || p.Known("alice:secret", "") {
		t.Error("what is known is taken for something else")
	}
	if dump := fmt.Sprintf("%+v", p); strings.Contains(dump, "secret") {
		t.Errorf("the password is kept: %s", dump)
	}
}

// A link that was looked at before ends in time all the same, and what is remembered has
// a bound.
func TestLinkIsRemembered(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(nil)
	p := &Policy{Share: &protocol.Share{Link: public}}
	now := time.Unix(1_800_000_000, 0)
	token := protocol.SignLink(key, now.Add(time.Minute))
	for range 2 {
		if _, err := p.Link(token, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Link(token, now.Add(time.Minute)); !errors.Is(err, protocol.ErrLinkExpired) {
		t.Errorf("got %v", err)
	}
	for i := range 2 * maxEntered {
		p.entered.add(p.entered.id("link", fmt.Sprint(i)), now)
	}
	if n := len(p.entered.good); n > maxEntered {
		t.Errorf("%d are remembered", n)
	}
	for i := range 100 {
		p.Link(fmt.Sprint("wrong ", i), now)
	}
	if n := len(p.entered.good); n > maxEntered {
		t.Errorf("%d are remembered", n)
	}
}
