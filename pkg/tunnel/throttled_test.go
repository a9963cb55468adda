package tunnel

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// S14: a client whose address is throttled comes back when the server said, not
// before, and is not lost.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		var from, refused atomic.Int64
		f.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if from.Load() > 0 && time.Since(f.start) < time.Duration(from.Load())+50*time.Second {
				refused.Add(1)
				w.Header().Set(protocol.HeaderError, string(protocol.LoginThrottled))
				w.Header().Set("Retry-After", "30")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
			return false
		}
		c, told := f.client()
		l := mustListen(t, c, told)
		defer l.Close()
		from.Store(int64(time.Since(f.start)) + 1)
		f.newest().Close()
		expect(t, told, Disconnected)
		expect(t, told, Reconnected)
		if n := refused.Load(); n != 2 {
			t.Errorf("%d attempts in 50 s, want 2", n)
		}
	})
}

// R35: a clock that is set, by however much, costs no connection, on whichever
// side it is.
func TestClockSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, step := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, end := begin()
				defer end()
				c, told := f.client()
				var set atomic.Int64
				c.now = func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
				l := mustListen(t, c, told)
				defer l.Close()
				for range 3 {
					time.Sleep(time.Minute)
					set.Add(int64(step))
					time.Sleep(time.Minute)
					set.Add(-int64(step))
				}
				time.Sleep(time.Minute)
				if len(told) > 0 {
					t.Fatalf("event %+v", <-told)
				}
			})
		})
	}
}
