package tunnel_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// A proxy that does not confirm who may visit serves nobody.
func TestPTTHProxyThatDoesNotEnforce(t *testing.T) {
	p := newProxy(t, "h2")
	c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH}
	_, err := c.Attach(t.Context(), tunnel.Options{Origin: "https://app.test", Share: &protocol.Share{NoIndex: true}, Retry: true}, hello)
	if !errors.Is(err, &protocol.Error{Code: protocol.ShareUnsupported}) {
		t.Errorf("it ended with %v", err)
	}
}

// Our server carries it out, also on the connection of HTTP/1.1 that stands by.
func TestPTTHShare(t *testing.T) {
	n := start(t, server.Config{})
	c := &tunnel.Client{Server: n.url(), Token: "token", Transport: tunnel.PTTH}
	share := &protocol.Share{NoIndex: true, TTL: time.Hour.Milliseconds()}
	b, err := c.Attach(t.Context(), tunnel.Options{Name: "demo", Share: share}, http.HandlerFunc(everything))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	poll.Until(t, "an upgrade gets through", func() bool { return upgraded(t, n, "demo") })
	res, _, err := do(n.request(t, "GET", "demo", "/x", nil))
	if err != nil || res.Header.Get("X-Robots-Tag") == "" {
		t.Errorf("%v, %v", res, err)
	}
}

// When its time is over it ends, and does not come back.
func TestPTTHTimeToLive(t *testing.T) {
	n := start(t, server.Config{})
	c := &tunnel.Client{Server: n.url(), Transport: tunnel.PTTH}
	err := c.Serve(t.Context(), tunnel.Options{Name: "demo", Share: &protocol.Share{TTL: 300}, Retry: true}, hello)
	if !errors.Is(err, &protocol.Error{Code: protocol.Ended}) {
		t.Errorf("it ended with %v", err)
	}
	if status, _ := n.get(t, "demo", "/"); status != http.StatusGone {
		t.Errorf("status %d", status)
	}
}

// Who comes back asks for what is left of the time, not for all of it again.
func TestPTTHTimeToLiveGoesOn(t *testing.T) {
	p := newProxy(t, "h2")
	p.enforces = true
	told := newEvents()
	c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH, Events: told.tell}
	all := time.Hour.Milliseconds()
	b, err := c.Attach(t.Context(), tunnel.Options{Origin: "https://app.test", Share: &protocol.Share{TTL: all}, Retry: true}, hello)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	told.next(t, tunnel.Ready)
	p.conn(t, "h2", 1).raw.Close()
	told.next(t, tunnel.Disconnected)
	told.next(t, tunnel.Reconnected)
	var asked []int64
	for _, req := range p.requests() {
		share, err := protocol.ParsePolicy(req.Header)
		if err != nil || share == nil {
			t.Fatalf("%v, %v", share, err)
		}
		asked = append(asked, share.TTL)
	}
	if first, last := asked[0], asked[len(asked)-1]; first != all || last >= all || last <= 0 {
		t.Errorf("asked for %d ms", asked)
	}
}
