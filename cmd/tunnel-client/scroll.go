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

// scroll is for a person at a terminal that a screen is not for: a column of labels
// and one of values, then a line for each change and request.
//
// A terminal can be held (Ctrl-S), and no request may wait for that: a goroutine
// of its own writes the lines, and what does not fit is left out and counted.
type scroll struct {
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

func newScroll(w io.Writer, server string) *scroll {
	s := &scroll{
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
func (s *scroll) write(w io.Writer) {
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

func (s *scroll) writeLine(w io.Writer, line string) {
	if n := s.left.Swap(0); n > 0 {
		line = fmt.Sprintf("%s  %s left out\n", s.clock(), plural(n, "line")) + line
	}
	io.WriteString(w, line) // a terminal that has gone away needs nothing
}

func (s *scroll) close() {
	close(s.ending)
	select {
	case <-s.written:
	case <-time.After(lastLines):
	}
}

func (s *scroll) change(c change) {
	if c.event == tunnel.Ready {
		forwarding := ""
		for _, row := range c.forwarding() {
			forwarding += "Forwarding   " + row + "\n"
		}
		for _, row := range c.shared.rows() {
			forwarding += fmt.Sprintf("%-*s%s\n", labels, row[0], row[1])
		}
		if c.inspect != "" {
			forwarding += "Inspector    " + printable(c.inspect) + "\n"
		}
		s.print("Status       online\n" +
			"Server       " + printable(s.server) + through(c) + "\n" +
			forwarding +
			"Stop         Ctrl-C\n\n")
		return
	}
	s.print(s.clock() + "  " + c.text() + "\n")
}

func (s *scroll) request(e forward.Exchange) {
	if len(s.lines) >= maxLines-reserve {
		s.left.Add(1)
		return
	}
	s.print(fmt.Sprintf("%s  %-7s %s  %s  %s\n",
		s.clock(), printable(e.Method), printable(e.Path), s.status(e), short(e.Duration)))
}

func (s *scroll) clock() string { return s.now().Format(time.TimeOnly) }

func (s *scroll) print(text string) {
	select {
	case s.lines <- text:
	default:
		s.left.Add(1)
	}
}

func (s *scroll) status(e forward.Exchange) string {
	if !s.color {
		return outcome(e)
	}
	return colored(outcome(e), e.Status)
}
