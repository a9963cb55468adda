// Package poll is for tests that wait for what nobody tells them of. It stands apart from rig, whose
// clients and servers a test of a low layer has no need to link.
package poll

import (
	"testing"
	"time"
)

// Patience is how long [Until] waits: for long on a slow machine, as it is spent only where a test fails.
const Patience = 30 * time.Second

// Until asks again and again until ok, with longer and longer pauses of up to 20 ms, and fails the
// test, which then ends, where that does not come within [Patience].
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	pause := time.Millisecond
	for deadline := time.Now().Add(Patience); !ok(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", Patience, what)
		}
		time.Sleep(pause)
	}
}
