package edge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// S7, S9: whoever is slow without end is cut, and others are served meanwhile; a slow
// body is not cut, and reaches the app as it comes.
func TestStalledVisitors(t *testing.T) {
	t.Parallel() // it waits for the server's own limit of time
	addr := serve(t, server.Config{HeaderTimeout: 2 * time.Second, IdleTimeout: 2 * time.Second})
	bodies := make(chan byte, 1000)
	publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := make([]byte, 1)
		if _, err := io.ReadFull(r.Body, one); err == nil {
			bodies <- one[0]
		}
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "served")
	}))
	const each = 50
	reports := make(map[rig.Stall]rig.StallReport)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var cut, kept sync.WaitGroup
	for _, kind := range rig.Stalls() {
		group := &cut
		if kind == rig.StallBody {
			group = &kept
		}
		group.Go(func() {
			r := rig.StallVisitors(ctx, addr, "demo.example.com", "", kind, each, 20*time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			reports[kind] = r
		})
	}
	for range each {
		if b := <-bodies; b != 'x' {
			t.Fatalf("the body begins with %q", b)
		}
	}
	over := make(chan struct{})
	go func() { cut.Wait(); close(over) }()
	good, late := 0, time.After(2*patience)
	for waiting := true; waiting; good++ {
		select {
		case <-over:
			waiting = false
		case <-late:
			t.Error("not all were cut")
			waiting = false
		case <-time.After(20 * time.Millisecond):
		}
		v := visit(t, addr)
		v.send("GET / HTTP/1.1", "Host: demo.example.com")
		if a := v.receive("GET"); a.body != "served" {
			t.Fatalf("a good request: got %s", answered(a))
		}
		v.Close()
	}
	cancel()
	kept.Wait()
	cut.Wait()
	for _, kind := range rig.Stalls() {
		r, want := reports[kind], rig.StallReport{Opened: each, Cut: each}
		if kind == rig.StallBody {
			want = rig.StallReport{Opened: each, Kept: each}
		}
		t.Logf("%s: the last was cut after %v", kind, r.Longest)
		if want.Longest = r.Longest; r != want {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	t.Logf("%d good requests beside them", good)
}
