package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// screen is for a person: a column of labels and one of values, then a line for
// each change and request.
//
// A terminal can be held (Ctrl-S), and no request may wait for that: a goroutine
// of its own writes the lines, and what does not fit is left out and counted.
type screen struct {
	lines  chan string
	server string
	color  bool
	now    func() time.Time

	left    atomic.Int64 // lines left out
	ending  chan struct{}
	written chan struct{}
}

const (
	maxLines = 1024 // that wait to be written
	// reserve is how many of them are kept for changes of the connection.
	reserve = 64
	// lastLines is how long close waits for a terminal that is held.
	lastLines = time.Second
)

func newScreen(w io.Writer, server string) *screen {
	s := &screen{
		lines: make(chan string, maxLines), server: server, color: wantsColor(), now: time.Now,
		ending: make(chan struct{}), written: make(chan struct{}),
	}
	go s.write(w)
	return s
}

// wantsColor is no-color.org's convention. Older Windows consoles show escape
// sequences as they are.
func wantsColor() bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && runtime.GOOS != "windows"
}

// write ends with close, when it has written what was there by then.
func (s *screen) write(w io.Writer) {
	defer close(s.written)
	for {
		select {
		case line := <-s.lines:
			s.writeLine(w, line)
			continue
		default:
		}
		select {
		case line := <-s.lines:
			s.writeLine(w, line)
		case <-s.ending:
			return
		}
	}
}

func (s *screen) writeLine(w io.Writer, line string) {
	if n := s.left.Swap(0); n > 0 {
		line = fmt.Sprintf("%s  %s left out\n", s.clock(), plural(n, "line")) + line
	}
	io.WriteString(w, line) // a terminal that has gone away needs nothing
}

func (s *screen) close() {
	close(s.ending)
	select {
	case <-s.written:
	case <-time.After(lastLines):
	}
}

func (s *screen) change(c change) {
	if c.event == tunnel.Ready {
		forwarding := ""
		for _, url := range append([]string{c.url}, c.urls...) {
			from, to := url, c.target
			if c.listen != "" {
				from, to = c.listen, url
			}
			forwarding += "Forwarding   " + printable(from) + " -> " + printable(to) + "\n"
		}
		inspecting := ""
		if c.inspect != "" {
			inspecting = "Inspector    " + c.inspect + "\n"
		}
		s.print("Status       online\n" +
			"Server       " + printable(s.server) + through(c) + "\n" +
			forwarding + inspecting +
			"Stop         Ctrl-C\n\n")
		return
	}
	line := string(c.event)
	switch {
	case c.event == tunnel.Draining && c.byUser:
		line += fmt.Sprintf(", %s in flight; press Ctrl-C again to stop at once", plural(c.inFlight, "request"))
	case c.cause != "":
		line += ": " + c.cause
		if c.code != "" {
			line += " (" + string(c.code) + ")"
		}
	}
	s.print(s.clock() + "  " + printable(line) + "\n")
}

// through says what is used in place of raw.
func through(c change) string {
	switch {
	case c.fallback == "":
		return ""
	case c.spoken != "":
		return " (through " + string(c.fallback) + ", " + c.spoken + ")"
	}
	return " (through " + string(c.fallback) + ")"
}

func (s *screen) request(e forward.Exchange) {
	status := "cut off"
	if e.Status != 0 {
		status = fmt.Sprintf("%d", e.Status)
	}
	if e.Code != "" {
		status += " " + string(e.Code)
	}
	if len(s.lines) >= maxLines-reserve {
		s.left.Add(1)
		return
	}
	s.print(fmt.Sprintf("%s  %-7s %s  %s  %s\n",
		s.clock(), printable(e.Method), printable(e.Path), s.colored(status, e.Status), short(e.Duration)))
}

func (s *screen) clock() string { return s.now().Format(time.TimeOnly) }

func (s *screen) print(text string) {
	select {
	case s.lines <- text:
	default:
		s.left.Add(1)
	}
}

// colored makes what went well green, what the visitor did wrong yellow, and the
// rest red (ECMA-48, SGR).
func (s *screen) colored(text string, status int) string {
	if !s.color {
		return text
	}
	color := "31"
	switch {
	case status >= 100 && status < 400:
		color = "32"
	case status >= 400 && status < 500:
		color = "33"
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func plural(n int64, one string) string {
	if n != 1 {
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}

// short leaves out digits that nobody reads.
func short(d time.Duration) string {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
