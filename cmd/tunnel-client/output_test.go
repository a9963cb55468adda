package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// noonScroll is a scroll without color whose clock stands still.
func noonScroll() (*scroll, *strings.Builder) {
	b := new(strings.Builder)
	s := newScroll(b)
	s.color = false
	s.now = func() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }
	return s, b
}

// A terminal that is held (Ctrl-S) holds no request up.
func TestScrollHeld(t *testing.T) {
	r, w := io.Pipe()
	s := newScroll(w)
	for range 2 * maxLines {
		s.request(request{Exchange: forward.Exchange{Method: "GET", Path: "/", Status: 200}})
	}
	s.change(change{event: tunnel.Disconnected})
	done := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		done <- string(b)
	}()
	s.close()
	w.Close()
	wantText(t, <-done, "lines left out\n", "disconnected\n")
}

func TestScroll(t *testing.T) {
	s, b := noonScroll()
	ctx, cancel := context.WithCancelCause(t.Context())
	show := func(e tunnel.Event, inFlight int64) {
		c := newChange(ctx, e, "http://localhost:3000")
		c.inFlight, c.server = inFlight, "https://tunnel.example"
		s.change(c)
	}
	show(tunnel.Event{Type: tunnel.Ready, Name: "demo", URL: "https://demo.tunnel.example"}, 0)
	s.request(request{Exchange: forward.Exchange{Method: "GET", Path: "/", Status: 200, Duration: 12345 * time.Microsecond}})
	s.request(request{Exchange: forward.Exchange{Method: "POST", Path: "/x", Status: 502, Duration: 2 * time.Second, Code: protocol.AppRefused}})
	s.request(request{Exchange: forward.Exchange{Method: "GET", Path: "/y", Duration: time.Millisecond}})
	show(tunnel.Event{Type: tunnel.Disconnected, Err: errors.New("connection\nreset")}, 0)
	show(tunnel.Event{Type: tunnel.Reconnected}, 0)
	cancel(signalError{syscall.SIGINT})
	show(tunnel.Event{Type: tunnel.Draining}, 1)
	show(tunnel.Event{Type: tunnel.Closed, Err: &protocol.Error{Code: protocol.TokenRevoked, Message: "it was taken away"}}, 0)
	const want = `Status       online
Server       https://tunnel.example
Forwarding   https://demo.tunnel.example -> http://localhost:3000
Stop         Ctrl-C

12:00:00  GET     /  200  12.3ms
12:00:00  POST    /x  502 app_refused  2s
12:00:00  GET     /y  cut off  1ms
12:00:00  disconnected: connection\x0areset
12:00:00  reconnected
12:00:00  draining, 1 request in flight; press Ctrl-C again to stop at once
12:00:00  closed: it was taken away (token_revoked)
`
	s.close()
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A visitor chooses the path, and must not command the user's terminal.
func TestScrollEscapes(t *testing.T) {
	s, b := noonScroll()
	s.request(request{Exchange: forward.Exchange{Method: "GE\x1bT", Path: "/\x1b]0;title\x07\r\n/a\u009b2J\xff\u202e", Status: 200}})
	want := `12:00:00  GE\x1bT /\x1b]0;title\x07\x0d\x0a/a\u009b2J\xff\u202e  200  0s` + "\n"
	s.close()
	if got := b.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Of several endpoints each line begins with the name of one, and on a narrow terminal a path
// gives way.
func TestScrollOfSeveral(t *testing.T) {
	s, b := noonScroll()
	s.change(change{event: opened, inspect: "http://127.0.0.1:4040"})
	s.change(change{event: tunnel.Ready, endpoint: "web", url: "https://web.tunnel.example", urls: []string{"https://app.example.org"},
		target: "http://localhost:3000", fallback: tunnel.WebSocket, shared: sharing{ends: noon()}})
	s.request(request{endpoint: "web", Exchange: forward.Exchange{Method: "GET", Path: "/", Status: 200}})
	s.change(change{event: failed, endpoint: "an-endpoint-of-some-length", cause: "no"})
	s.close()
	const want = `Inspector    http://127.0.0.1:4040
12:00:00  web          https://web.tunnel.example -> http://localhost:3000 (through websocket)
12:00:00  web          https://app.example.org -> http://localhost:3000 (through websocket)
12:00:00  web          Ends  2026-01-02 12:00:00
12:00:00  web          GET     /  200  0s
12:00:00  an-endpoint-of-some-length  failed: no
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestColor(t *testing.T) {
	s, b := noonScroll()
	s.color = true
	for _, status := range []int{101, 302, 404, 500, 0} {
		s.request(request{Exchange: forward.Exchange{Method: "GET", Path: "/", Status: status}})
	}
	s.close()
	wantText(t, b.String(), "\x1b[32m101\x1b[0m", "\x1b[32m302\x1b[0m", "\x1b[33m404\x1b[0m", "\x1b[31m500\x1b[0m", "\x1b[31mcut off\x1b[0m")
	t.Setenv("TERM", "xterm")
	for value, want := range map[string]bool{"": true, "1": false} {
		t.Setenv("NO_COLOR", value)
		if wantsColor() != want {
			t.Errorf("NO_COLOR=%q: %v", value, !want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"/plain?a=b c": "/plain?a=b c", "/ümläut/日本": "/ümläut/日本", "\uFFFD": "\uFFFD", "\xfe": `\xfe`, "\t": `\x09`, "\x7f": `\x7f`,
	} {
		if got := printable(given); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}
