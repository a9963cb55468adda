package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// severalView has n endpoints, e0 and on, of which those are online whose number is even.
func severalView(n int) *view {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("e", i))
	}
	v := &view{}
	v.arrange(names, names, "http://127.0.0.1:4040")
	for i, name := range names {
		if i%2 == 0 {
			v.change(readyAs(name, "https://tunnel.example"), noon())
		}
	}
	return v
}

func readyAs(name, server string) change {
	return change{event: tunnel.Ready, endpoint: name, url: "https://" + name + ".tunnel.example", target: "http://localhost:3000", server: server, served: servedRequests}
}

func wantLines(t *testing.T, got []string, want string) {
	t.Helper()
	var lines []string
	for _, line := range got {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Each endpoint has its state, its count, and where it leads, or why it does not; each
// server how many are there, and how far it is.
func TestTable(t *testing.T) {
	v := severalView(3)
	v.change(change{event: trying, endpoint: "e1", server: "https://other.example"}, noon())
	v.change(change{event: failed, endpoint: "e1", code: "name_taken", cause: "e1 is taken; trying again in 2s"}, noon())
	ready := readyAs("e2", "https://tunnel.example")
	ready.urls, ready.fallback = []string{"https://app.example.org"}, tunnel.WebSocket
	ready.shared = sharing{url: "https://e2.tunnel.example/?k", until: noon(), ends: noon()}
	v.change(ready, noon())
	v.change(change{event: measured, endpoint: "e0", latency: 30 * time.Millisecond}, noon())
	v.change(change{event: measured, endpoint: "e2", latency: 20 * time.Millisecond}, noon())
	for range 11 {
		v.request(request{"e2", noon(), forward.Exchange{Method: "GET", Path: "/path", Status: 200, Duration: 12 * time.Millisecond}})
	}
	v.change(change{event: tunnel.Disconnected, endpoint: "e0", cause: "reset"}, noon())
	wantLines(t, v.frame(100, 24), `Status       1 of 3 online
e0           disconnected   0  https://e0.tunnel.example -> http://localhost:3000 (reset)
e1           failed         0  e1 is taken; trying again in 2s (name_taken)
e2           online        11  https://e2.tunnel.example -> http://localhost:3000 (through websocket
             )
             https://app.example.org -> http://localhost:3000
             Share link  https://e2.tunnel.example/?k
             until 2026-01-02 12:00:00
             Ends  2026-01-02 12:00:00
Inspector    http://127.0.0.1:4040
Requests     11; p50 12ms, p90 12ms, p99 12ms
Server       https://tunnel.example, 1 of 2 online, 20ms
Server       https://other.example, 0 of 1 online
Stop         Ctrl-C

12:00:00  e1  failed: e1 is taken; trying again in 2s (name_taken)
12:00:00  e2  ready
12:00:00  e0  disconnected: reset

12:00:00  e2  GET     /path  200  12ms
12:00:00  e2  GET     /path  200  12ms
12:00:00  e2  GET     /path  200  12ms
12:00:00  e2  GET     /path  200  12ms
12:00:00  e2  GET     /path  200  12ms`)
	wantLines(t, v.frame(40, 12), `Status 1 of 3 online
e0 disconnected  0 https://e0.tunnel.ex…
e1 failed        0 e1 is taken; trying …
e2 online       11 https://e2.tunnel.ex…
Inspector http://127.0.0.1:4040
Requests 11; p50 12ms, p90 12ms, p99 12m
s
Server https://tunnel.example, 1 of 2 on
line, 20ms
Server https://other.example, 0 of 1 onl
ine
Stop Ctrl-C`)
	wantLines(t, v.frame(40, 5), `Status 1 of 3 online
e0 disconnected  0 https://e0.tunnel.ex…
… 2 more, 1 of them online
Inspector http://127.0.0.1:4040
Requests 11; p50 12ms, p90 12ms, p99 12m`)
}

// A name that is longer than its column, and a URL that is longer than its row.
func TestTableNarrow(t *testing.T) {
	v := severalView(1)
	v.arrange([]string{"e0", "an-endpoint-of-some-length"}, []string{"an-endpoint-of-some-length"}, "")
	v.request(request{"e0", noon(), forward.Exchange{Method: "GET", Path: "/a/path/that/is/long/enough", Status: 200}})
	wantLines(t, v.frame(40, 30), `Status 1 of 2 online
e0         online     1
https://e0.tunnel.example -> http://loca
lhost:3000
an-endpoi… connecting 0
Requests 1; p50 0s, p90 0s, p99 0s
Server https://tunnel.example
Stop Ctrl-C

e0         GET /a/path/that/is…  200  0s`)
	wantLines(t, v.frame(80, 30)[1:4], `e0                    online      1  https://e0.tunnel.example -> http://localho
             st:3000
an-endpoint-of-some…  connecting  0`)
}

// With more endpoints than rows, those that need attention are seen.
func TestTableOfMany(t *testing.T) {
	v := severalView(20)
	text := strings.Join(v.frame(100, 24), "\n")
	wantText(t, text, "e1           connecting  0", "e19          connecting  0", "e0           online      0", "\n… 5 more, 5 of them online\n", "Stop         Ctrl-C")
	if text := strings.Join(v.last(), "\n"); strings.Count(text, "\ne") != 20 {
		t.Errorf("of 20 endpoints there stays\n%s", text)
	}
}

// A reload keeps what is the same, begins anew what is different, and forgets what is gone.
// Of the end of what is gone there are notes alone.
func TestTableReload(t *testing.T) {
	v := severalView(3)
	v.change(readyAs("e1", "https://tunnel.example"), noon())
	for _, name := range []string{"e0", "e1", "e2"} {
		v.request(request{name, noon(), forward.Exchange{Method: "GET", Path: "/of-" + name, Status: 200}})
	}
	v.refuse(problems{{err: errors.New("no\x1b")}, {err: errors.New("never")}})
	wantText(t, strings.Join(v.frame(100, 30), "\n"), "\nConfig       not used: no\\x1b (and 1 more mistake)\n")

	v.arrange([]string{"new", "e1", "e0"}, []string{"new", "e1"}, "")
	v.change(change{event: tunnel.Draining, endpoint: "e1", former: true, cause: errChanged.Error()}, noon())
	v.change(change{event: tunnel.Closed, endpoint: "e2", former: true, cause: errRemoved.Error()}, noon())
	v.change(change{event: measured, endpoint: "e1", former: true, latency: time.Hour}, noon())
	wantLines(t, v.frame(100, 30), `Status       1 of 3 online
new          connecting  0
e1           connecting  1
e0           online      1  https://e0.tunnel.example -> http://localhost:3000
Requests     3; p50 0s, p90 0s, p99 0s
Server       https://tunnel.example
Stop         Ctrl-C

12:00:00  e1   draining: it was changed in the configuration
12:00:00  e2   closed: it was taken out of the configuration

12:00:00  e0   GET     /of-e0  200  0s
12:00:00  e1   GET     /of-e1  200  0s
12:00:00  e2   GET     /of-e2  200  0s`)
}

// What is counted is called what it is.
func TestTableServed(t *testing.T) {
	v := severalView(2)
	for _, tt := range []struct{ of, want string }{{servedRequests, servedRequests}, {servedConnections, servedBoth}} {
		ready := readyAs("e1", "https://tunnel.example")
		ready.served = tt.of
		v.change(ready, noon())
		wantText(t, strings.Join(v.frame(80, 24), "\n"), "\n"+tt.want+" ")
	}
}

func TestTableColor(t *testing.T) {
	v := severalView(2)
	v.color = true
	for _, cols := range []int{40, 100} {
		wantText(t, strings.Join(v.frame(cols, 40), "\n"), " \x1b[31m1 of 2 online\x1b[0m\n", " \x1b[32monline\x1b[0m ", " \x1b[31mconnecting\x1b[0m")
	}
}

// What was there and is refused now has no URL, but a reason.
func TestTableRefused(t *testing.T) {
	v := severalView(1)
	v.change(change{event: failed, endpoint: "e0", code: "token_revoked", cause: "it was taken away"}, noon())
	wantLines(t, v.frame(100, 24)[:2], `Status       0 of 1 online
e0           failed  0  it was taken away (token_revoked)`)
}

// A server is as far as the nearest of its endpoints has measured.
func TestTableLatency(t *testing.T) {
	v := severalView(3)
	for _, trips := range [][2]time.Duration{{20, 30}, {30, 20}} {
		v.change(change{event: measured, endpoint: "e0", latency: trips[0] * time.Millisecond}, noon())
		v.change(change{event: measured, endpoint: "e2", latency: trips[1] * time.Millisecond}, noon())
		wantText(t, strings.Join(v.frame(100, 24), "\n"), "\nLatency      20ms\n")
	}
}
