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
	v := &view{server: "https://tunnel.example", served: "Requests", latency: 23 * time.Millisecond}
	v.change(change{event: tunnel.Ready, url: "https://demo.tunnel.example", target: "http://localhost:3000", inspect: "http://127.0.0.1:4040"}, noon())
	return v
}

func TestView(t *testing.T) {
	v := readyView()
	v.request(forward.Exchange{Method: "GET", Path: "/", Status: 200, Duration: 12 * time.Millisecond}, noon())
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

// With several endpoints each has its rows, and who is away is told apart.
func TestViewOfSeveral(t *testing.T) {
	v := readyView()
	v.change(change{event: tunnel.Ready, url: "tcp://tunnel.example:7000", target: "tcp://localhost:22", urls: []string{"tcp://other.example:7000"}}, noon())
	v.change(change{event: tunnel.Disconnected, url: "tcp://tunnel.example:7000"}, noon())
	text := strings.Join(v.frame(120, 24), "\n")
	wantText(t, text, "Status       1 of 2 online\n", "Forwarding   https://demo.tunnel.example -> http://localhost:3000\n",
		"tcp://tunnel.example:7000 -> tcp://localhost:22 (offline)\n", "tcp://other.example:7000 -> tcp://localhost:22 (offline)\n")
}

// Whatever its size, nothing is beyond the window, and a visitor's bytes are no commands.
func TestViewFits(t *testing.T) {
	v := readyView()
	for i := range 3 * maxRequests {
		v.request(forward.Exchange{Method: "GE\x1bT", Path: fmt.Sprintf("/\x1b]0;title\x07日本\r\n%d/", i) + strings.Repeat("x", 2*maxPath), Status: 200}, noon())
		v.note(strings.Repeat("ü", maxNote), noon())
	}
	for _, cols := range []int{1, 2, 7, 8, 9, 20, 30, 59, 60, 61, 80, 200} {
		for _, rows := range []int{1, 2, 3, 7, 8, 9, 10, 11, 12, 24, 40} {
			lines := v.frame(cols, rows)
			if len(lines) > rows || len(lines) == 0 {
				t.Fatalf("%d lines in %d rows", len(lines), rows)
			}
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > cols || strings.ContainsAny(line, "\x1b\x07\r\n") {
					t.Fatalf("%d characters in %d columns: %q", n, cols, line)
				}
			}
		}
	}
	if n := len(v.requests); n > 2*maxRequests {
		t.Errorf("%d requests are kept", n)
	}
	if n := len(v.notes); n > maxNotes {
		t.Errorf("%d notes are kept", n)
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
