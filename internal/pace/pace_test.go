package pace

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPacer(t *testing.T) {
	percent := 100
	var collections, live uint64
	p := pacer{
		set:  func(n int) int { before := percent; percent = n; return before },
		read: func() (uint64, uint64) { return collections, live },
	}
	p.step()
	for i, step := range []struct {
		more, live uint64
		want       int
	}{
		{0, 1 << 20, 100},
		{often - 1, 1 << 20, 100},
		{often, 2 << 20, 100}, // it grows
		{often, 2 << 20, busyPercent},
		{seldom + 1, 1 << 20, busyPercent}, // busy still, only that it collects less now
		{seldom, 1 << 20, 100},
		{often, maxLive + 1, 100}, // four times that is too much
		{often, maxLive, busyPercent},
		{often, maxLive + 1, 100},
	} {
		collections += step.more
		live = step.live
		p.step()
		if percent != step.want {
			t.Errorf("step %d: %d %%, want %d", i, percent, step.want)
		}
	}
}

func TestFollowLeavesNothing(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	Follow()()
	if got := debug.SetGCPercent(123); got != 123 {
		t.Errorf("GOGC is %d after the end, want 123", got)
	}
	runtime.GC()
	if _, live := read(); live == 0 {
		t.Error("the runtime does not tell what is in use")
	}
}

func TestFollowObeysGOGC(t *testing.T) {
	t.Setenv("GOGC", "50")
	stop := Follow()
	stop()
	stop() // would panic where there is something to stop
	if os.Getenv("GOGC") != "50" {
		t.Error("GOGC was changed")
	}
}
