package server

import (
	"log/slog"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Refusals of one code leave 10 lines a minute, the first of which says how many
// had none; those of other codes are logged beside. A throttled login has none.
func TestRefusedCount(t *testing.T) {
	var r refused
	now := time.Now()
	lines := 0
	for range 3 {
		for n := range 1000 {
			level, unlogged := r.count(protocol.Unauthorized, now)
			if want := n < maxRefusedLines; (level == slog.LevelInfo) != want {
				t.Fatalf("refusal %d of a minute is logged at %v", n, level)
			}
			if want := 990; lines > 0 && n == 0 && unlogged != want || (lines == 0 || n > 0) && unlogged != 0 {
				t.Fatalf("refusal %d of a minute: %d had no line", n, unlogged)
			}
			if level == slog.LevelInfo {
				lines++
			}
			now = now.Add(time.Minute / 1000)
		}
		if level, _ := r.count(protocol.Draining, now); level != slog.LevelInfo {
			t.Error("one of another code is not logged")
		}
		if level, _ := r.count(protocol.LoginThrottled, now); level != slog.LevelDebug {
			t.Error("one that was throttled is logged")
		}
	}
	if lines != 30 {
		t.Errorf("%d lines in three minutes", lines)
	}
}
