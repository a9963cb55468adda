package server_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// TestIdleSession: a session that has its name and nothing to do costs the server
// two goroutines: one reads the connection, one the control messages.
func TestIdleSession(t *testing.T) {
	const sessions, each = 40, 2
	n := start(t, server.Config{Hold: time.Hour})
	warm := n.connect("", "", "")
	warm.must(warm.bind("warm"))
	before := runtime.NumGoroutine()
	for i := range sessions {
		c := n.connect("", "", "")
		c.must(c.bind(fmt.Sprintf("idle-%d", i)))
	}
	const client = 1                                     // reads the connection; the test itself reads the messages
	most := before + sessions*(each+client) + sessions/4 // those that are just ending
	poll.Until(t, "a session has two goroutines", func() bool { return runtime.NumGoroutine() <= most })
}
