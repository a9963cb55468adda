package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// forwarding is what leads where, once ready: one row for each URL.
func (c change) forwarding() []string {
	var rows []string
	for _, url := range append([]string{c.url}, c.urls...) {
		from, to := url, c.target
		if c.listen != "" {
			from, to = c.listen, url
		}
		rows = append(rows, printable(from)+" -> "+printable(to))
	}
	return rows
}

// text is a change that is not ready, on a line.
func (c change) text() string {
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
	return printable(line)
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

// outcome is what became of a request.
func outcome(e forward.Exchange) string {
	status := "cut off"
	if e.Status != 0 {
		status = strconv.Itoa(e.Status)
	}
	if e.Code != "" {
		status += " " + string(e.Code)
	}
	return status
}

// colored makes what went well green, what the visitor did wrong yellow, and the
// rest red (ECMA-48, SGR).
func colored(text string, status int) string {
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
