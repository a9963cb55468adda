package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/pkg/mux"
)

// busy is a session whose pings are not answered in time.
type busy struct {
	mux.Session
	idle time.Duration
}

func (b busy) Ping(ctx context.Context) (time.Duration, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (b busy) Idle() time.Duration { return b.idle }

// TestAlive: on a slow link the answer to a ping stands behind other bytes, and
// those are life enough to keep the name.
func TestAlive(t *testing.T) {
	for idle, want := range map[time.Duration]bool{time.Second: true, 10 * time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			s := &session{mux: busy{idle: idle}}
			if s.alive(ctx) != want {
				t.Errorf("silent for %v: alive %v", idle, !want)
			}
		})
	}
}
