package edge_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// S6: floods over HTTP/2 cost a bounded memory and a bounded number of requests,
// and others are served.
func TestFloods(t *testing.T) {
	t.Run("clear", func(t *testing.T) { testFloods(t, false) })
	t.Run("TLS", func(t *testing.T) { testFloods(t, true) })
}

func testFloods(t *testing.T, overTLS bool) {
	const conns = 4
	for _, kind := range rig.Floods() {
		t.Run(string(kind), func(t *testing.T) {
			long := 500 * time.Millisecond
			if kind == rig.FloodContinuation {
				long = 10 * time.Second // which ends sooner: all are cut
			}
			h := secure(t, server.Config{TLS: &server.TLS{AllowPlain: []string{"*"}, NoHTTP3: true}})
			addr := h.plain
			var running, most atomic.Int64
			publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for n := running.Add(1); ; {
					if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
						break
					}
				}
				defer running.Add(-1)
				io.Copy(io.Discard, r.Body)
			}))
			publish(t, addr, "other", nil, seen("other"))
			before := held()
			flooded := make(chan rig.FloodReport, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), long)
				defer cancel()
				flooded <- rig.FloodConns(ctx, func() (net.Conn, error) {
					if overTLS {
						return tls.Dial("tcp", h.tls, h.greeting("demo.example.com", "h2"))
					}
					return net.Dial("tcp", addr)
				}, "demo.example.com", kind, conns, 1<<40)
			}()
			var report rig.FloodReport
			peak, good := before, 0
			for over := false; !over; good++ {
				select {
				case report = <-flooded:
					over = true
				default:
				}
				if a := get(t, addr, "GET / HTTP/1.1", "Host: other.example.com", "Connection: close"); answered(a) != "other" {
					t.Fatalf("another visitor got %s", answered(a))
				}
				peak = max(peak, held())
			}
			grown := int64(peak-before) >> 20
			if grown > 64 {
				t.Errorf("%d MB more are held", grown)
			}
			// What net/http lets one connection have at once is 250.
			if n := most.Load(); n > conns*250 {
				t.Errorf("%d requests ran at once", n)
			}
			if kind == rig.FloodContinuation && report.Cut < conns {
				t.Errorf("%d of %d connections were cut", report.Cut, conns)
			}
			t.Logf("%d frames, %d of %d cut, +%d MB, %d requests at once, %d good ones beside them", report.Frames, report.Cut, conns, grown, most.Load(), good)
		})
	}
}

// held is the memory in use, of the heap and of stacks.
func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
