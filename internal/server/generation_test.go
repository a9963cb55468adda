package server_test

import (
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

func (c *client) bindGeneration(n uint64) *protocol.Bound {
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 1, Name: "pr-7", Generation: n}})
	return c.read().Bound
}

// TestGenerations: a newer run has the name while the older one lives, which is told, and
// refused when it comes again.
func TestGenerations(t *testing.T) {
	n := start(t, server.Config{})
	first := n.connect("", "some-token", "")
	first.serve("first:")
	first.must(first.bindGeneration(41))
	if _, body := n.get("pr-7.localhost", "/"); body != "first:" {
		t.Errorf("visitors see %q", body)
	}
	second := n.connect("", "some-token", "")
	second.serve("second:")
	second.must(second.bindGeneration(42))
	if _, body := n.get("pr-7.localhost", "/"); body != "second:" {
		t.Errorf("after the takeover visitors see %q", body)
	}
	if m := first.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionFenced {
		t.Errorf("the first is told %+v", m)
	}
	again := n.connect("", "some-token", "")
	if b := again.bindGeneration(41); b.Error == nil || b.Error.Code != protocol.NameTaken || b.Error.Message != "a newer run has the name pr-7" || b.Error.Hint != "nothing to do, its --generation is higher" {
		t.Errorf("the first again: %+v", b)
	}
	if b := n.connect("", "another-token", "").bindGeneration(43); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Errorf("another token: %+v", b)
	}
	if _, body := n.get("pr-7.localhost", "/"); body != "second:" {
		t.Errorf("at the end visitors see %q", body)
	}
}
