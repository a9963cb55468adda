package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/revtun/tunnel/pkg/tunnel"
)

// scroll is for a person at a terminal that a screen is not for: a column of labels
// and one of values, then a line for each change and request. Of endpoints with names each
// line begins with that.
//
// A terminal can be held (Ctrl-S), and no request may wait for that: a goroutine
// of its own writes the lines, and what does not fit is left out and counted.
type scroll struct {
	lines chan string
	tty   *os.File // nil: lines may be of any length
	color bool
	now   func() time.Time

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

func newScroll(w io.Writer) *scroll {
	s := &scroll{
		lines: make(chan string, maxLines), color: wantsColor(), now: time.Now,
		ending: make(chan struct{}), written: make(chan struct{}),
	}
	s.tty, _ = w.(*os.File)
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
	switch {
	case c.event == opened:
		s.print("Inspector    " + printable(c.inspect) + "\n")
	case c.event != tunnel.Ready:
		s.line(c.endpoint, c.text())
	case c.endpoint != "":
		for _, row := range c.forwarding() {
			s.line(c.endpoint, row+through(c))
		}
		for _, row := range c.shared.rows() {
			s.line(c.endpoint, row[0]+"  "+row[1])
		}
	default:
		s.ready(c)
	}
}

// ready is of a command of its own.
func (s *scroll) ready(c change) {
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
		"Server       " + printable(c.server) + through(c) + "\n" +
		forwarding +
		"Stop         Ctrl-C\n\n")
}

func (s *scroll) request(r request) {
	if len(s.lines) >= maxLines-reserve {
		s.left.Add(1)
		return
	}
	r.at = s.now()
	cols := s.cols()
	s.print(r.line(cols, nameColumn(r.endpoint, cols), s.color) + "\n")
}

func (s *scroll) line(endpoint, text string) {
	s.print(note{s.now(), endpoint, text}.line(wide, nameColumn(endpoint, wide)) + "\n")
}

// nameColumn is how wide the column for the name of endpoint is.
func nameColumn(endpoint string, cols int) int {
	n := utf8.RuneCountInString(printable(endpoint))
	switch {
	case n == 0:
		return 0
	case cols < narrow:
		return min(n, maxNarrowName)
	}
	return max(n, labels-2)
}

// cols is the width of the terminal.
func (s *scroll) cols() int {
	if s.tty != nil {
		if cols, _, err := term.GetSize(int(s.tty.Fd())); err == nil && cols > 0 {
			return cols
		}
	}
	return wide
}

func (s *scroll) clock() string { return s.now().Format(time.TimeOnly) }

func (s *scroll) print(text string) {
	select {
	case s.lines <- text:
	default:
		s.left.Add(1)
	}
}
