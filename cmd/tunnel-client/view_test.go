package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

func readyView() *view {
	v := &view{endpoints: []*shown{{}}}
	v.change(change{event: tunnel.Ready, url: "https://demo.tunnel.example", target: "http://localhost:3000", server: "https://tunnel.example",
		served: servedRequests, inspect: "http://127.0.0.1:4040"}, noon())
	v.change(change{event: measured, latency: 23 * time.Millisecond}, noon())
	return v
}

func TestView(t *testing.T) {
	v := readyView()
	v.request(request{at: noon(), Exchange: forward.Exchange{Method: "GET", Path: "/", Status: 200, Duration: 12 * time.Millisecond}})
	v.change(change{event: tunnel.Disconnected, url: "https://demo.tunnel.example", cause: "reset\n"}, noon())
	const want = `Status       disconnected: reset\x0a
Forwarding   https://demo.tunnel.example -> http://localhost:3000
Inspector    http://127.0.0.1:4040
Requests     1; p50 12ms, p90 12ms, p99 12ms
Server       https://tunnel.example
Stop         Ctrl-C

12:00:00  disconnected: reset\x0a

12:00:00  GET     /  200  12ms`
	if got := strings.Join(v.frame(80, 24), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever its size, nothing is beyond the window, and a visitor's bytes are no commands.
func TestViewFits(t *testing.T) {
	for name, v := range map[string]*view{"one": readyView(), "several": severalView(30)} {
		for i := range 3 * maxRequests {
			e := forward.Exchange{Method: "GE\x1bT", Path: fmt.Sprintf("/\x1b]0;title\x07日本\r\n%d/", i) + strings.Repeat("x", 2*maxPath), Status: 200}
			v.request(request{v.endpoints[0].name, noon(), e})
			v.note(note{noon(), v.endpoints[0].name, strings.Repeat("ü", maxNote)})
		}
		for _, cols := range []int{1, 2, 7, 8, 9, 20, 30, 59, 60, 61, 80, 200} {
			for _, rows := range []int{1, 2, 3, 7, 8, 9, 10, 11, 12, 24, 40, 100, 1000} {
				lines := v.frame(cols, rows)
				if len(lines) > rows || len(lines) == 0 {
					t.Fatalf("%s: %d lines in %d rows", name, len(lines), rows)
				}
				for _, line := range lines {
					if n := utf8.RuneCountInString(line); n > cols || strings.ContainsAny(line, "\x1b\x07\r\n") {
						t.Fatalf("%s: %d characters in %d columns: %q", name, n, cols, line)
					}
				}
			}
		}
		if n := len(v.requests); n > 2*maxRequests {
			t.Errorf("%s: %d requests are kept", name, n)
		}
		if n := len(v.notes); n > maxNotes {
			t.Errorf("%s: %d notes are kept", name, n)
		}
	}
}

func TestPercentiles(t *testing.T) {
	var y tally
	if got := y.percentiles(50); got != nil {
		t.Errorf("of nothing they are %v", got)
	}
	for range 5 { // which the next thousand push out
		y.add(forward.Exchange{Duration: time.Hour})
	}
	for i := range lastTimes {
		y.add(forward.Exchange{Status: 200 + i%2*302, Duration: time.Duration(lastTimes-i) * time.Millisecond})
	}
	for i, want := range []time.Duration{500, 900, 990, 1000} {
		if got := y.percentiles(50, 90, 99, 100)[i]; got != want*time.Millisecond {
			t.Errorf("percentile %d is %v, want %v", i, got, want*time.Millisecond)
		}
	}
	if y.count != 1005 || y.failed != 505 {
		t.Errorf("%d requests, %d failed", y.count, y.failed)
	}
}
