package edge

import (
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Right passwords that wait behind the same one are not looked at again, and no route's
// visitors wait for those of another.
func TestSharePasswordIsHashedOnce(t *testing.T) {
	user, err := protocol.NewUser("alice", "sesame")
	if err != nil {
		t.Fatal(err)
	}
	guarded := func() *policy.Policy { return &policy.Policy{Share: &protocol.Share{BasicAuth: []protocol.User{user}}} }
	p, other := guarded(), guarded()
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("alice", "sesame")
	h := new(HTTP)
	done := p.Alone()
	if ok, _ := h.byPassword(r, "demo", other, netip.Addr{}); !ok {
		t.Error("another route's visitor is not let in")
	}
	var visitors sync.WaitGroup
	for range 5 {
		visitors.Go(func() {
			if ok, _ := h.byPassword(r, "demo", p, netip.Addr{}); !ok {
				t.Error("not let in")
			}
		})
	}
	p.Login("alice", "sesame")
	for range cap(hashes) { // who needs a hash would wait for ever
		hashes <- struct{}{}
	}
	done()
	visitors.Wait()
	for range cap(hashes) {
		<-hashes
	}
}
