package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	maxRequests = 200     // that are kept to be shown
	maxPath     = 1 << 10 // of a request's path, in bytes
	maxNotes    = 100     // that are kept for the end
	maxNote     = 4 << 10 // of one, in bytes
	shownNotes  = 5

	labels = 13 // the width of the labels' column
	narrow = 60 // columns, below which there is none
	online = "online"
)

// view is what a screen shows.
type view struct {
	server    string
	served    string // what the local app is asked: Requests, or Connections
	color     bool
	through   string
	inspect   string
	endpoints []*shown
	latency   time.Duration // to the server; 0: not known
	tally     tally
	notes     []note    // changes, and lines of the log; the newest last
	requests  []request // the newest last
}

// shown is an endpoint.
type shown struct {
	url    string
	rows   []string
	shared sharing
	status string
}

// note is a change, or a line of the log.
type note struct {
	at   time.Time
	text string
}

// request is one that is over.
type request struct {
	at time.Time
	forward.Exchange
}

// change notes what happened to the connection of an endpoint.
func (v *view) change(c change, now time.Time) {
	at := slices.IndexFunc(v.endpoints, func(e *shown) bool { return e.url == c.url })
	if at < 0 {
		at = len(v.endpoints)
		v.endpoints = append(v.endpoints, &shown{url: c.url})
	}
	e := v.endpoints[at]
	if c.event == tunnel.Ready || c.event == tunnel.Reconnected {
		e.status, v.through = online, through(c)
	} else {
		e.status = c.text()
	}
	switch c.event {
	case tunnel.Ready:
		e.rows, e.shared, v.inspect = c.forwarding(), c.shared, c.inspect
		return
	case tunnel.Disconnected:
		v.latency = 0
	}
	v.note(c.text(), now)
}

func (v *view) note(text string, now time.Time) {
	if len(text) > maxNote {
		text = strings.ToValidUTF8(text[:maxNote], "")
	}
	v.notes = append(v.notes, note{now, text})
	v.notes = v.notes[max(len(v.notes)-maxNotes, 0):]
}

func (v *view) request(e forward.Exchange, now time.Time) {
	v.tally.add(e)
	if len(e.Path) > maxPath {
		e.Path = strings.Clone(e.Path[:maxPath])
	}
	if len(v.requests) == 2*maxRequests {
		v.requests = slices.Delete(v.requests, 0, maxRequests)
	}
	v.requests = append(v.requests, request{now, e})
}

// frame is what is seen in a window of that size: one string a row.
func (v *view) frame(cols, rows int) []string {
	lines := append(v.header(cols), field("Stop", "Ctrl-C", cols)...)
	lines = lines[:min(len(lines), rows)]
	if n := min(len(v.notes), shownNotes, (rows-len(lines))/2-1); n > 0 {
		lines = append(lines, "")
		for _, one := range v.notes[len(v.notes)-n:] {
			lines = append(lines, cut(one.line(cols), cols))
		}
	}
	if n := min(len(v.requests), rows-len(lines)-1); n > 0 {
		lines = append(lines, "")
		for _, r := range v.requests[len(v.requests)-n:] {
			lines = append(lines, v.row(r, cols))
		}
	}
	return lines
}

// last is what is left when the screen has gone.
func (v *view) last() []string {
	const wide = 1 << 20 // the terminal is to wrap what it has no room for
	lines := v.header(wide)
	if len(v.notes) > 0 {
		lines = append(lines, "")
	}
	for _, one := range v.notes {
		lines = append(lines, one.line(wide))
	}
	return lines
}

// line is the note with its time, where there is room for that.
func (n note) line(cols int) string {
	if cols < narrow {
		return n.text
	}
	return n.at.Format(time.TimeOnly) + "  " + n.text
}

func (v *view) header(cols int) []string {
	status := v.status()
	lines := field("Status", status, cols)
	if v.color && len(lines) == 1 {
		good := 500
		if status == online {
			good = 200
		}
		lines[0] = strings.TrimSuffix(lines[0], status) + colored(status, good)
	}
	for _, e := range v.endpoints {
		for _, row := range e.rows {
			if len(v.endpoints) > 1 && e.status != online {
				row += " (offline)"
			}
			lines = append(lines, field("Forwarding", row, cols)...)
		}
		for _, row := range e.shared.rows() {
			lines = append(lines, field(row[0], row[1], cols)...)
		}
	}
	if v.inspect != "" {
		lines = append(lines, field("Inspector", printable(v.inspect), cols)...)
	}
	lines = append(lines, field(v.served, v.counts(), cols)...)
	lines = append(lines, field("Server", printable(v.server)+v.through, cols)...)
	if v.latency > 0 {
		lines = append(lines, field("Latency", short(v.latency), cols)...)
	}
	return lines
}

func (v *view) status() string {
	up := 0
	for _, e := range v.endpoints {
		if e.status == online {
			up++
		}
	}
	switch {
	case len(v.endpoints) == 1:
		return v.endpoints[0].status
	case up < len(v.endpoints):
		return fmt.Sprintf("%d of %d online", up, len(v.endpoints))
	}
	return online
}

func (v *view) counts() string {
	text := fmt.Sprint(v.tally.count)
	if v.tally.failed > 0 {
		text += fmt.Sprintf(", %d failed", v.tally.failed)
	}
	if p := v.tally.percentiles(50, 90, 99); p != nil {
		text += fmt.Sprintf("; p50 %s, p90 %s, p99 %s", short(p[0]), short(p[1]), short(p[2]))
	}
	return text
}

// row is a request's. Where there is little room the path gives way first, as the rest
// says what became of it.
func (v *view) row(r request, cols int) string {
	before := fmt.Sprintf("%s  %-7s ", r.at.Format(time.TimeOnly), printable(r.Method))
	if cols < narrow {
		before = printable(r.Method) + " "
	}
	status, took := outcome(r.Exchange), short(r.Duration)
	room := cols - utf8.RuneCountInString(before+status+took) - 4
	if room < 1 {
		return cut(before+status+" "+took, cols)
	}
	path := cut(printable(r.Path), room)
	if v.color {
		status = colored(status, r.Status)
	}
	return before + path + "  " + status + "  " + took
}

// field is a label and its value, on as many rows as that takes.
func field(label, value string, cols int) []string {
	line, indent := fmt.Sprintf("%-*s", labels, label), strings.Repeat(" ", labels)
	if cols < narrow {
		line, indent = cut(label+" ", cols-1), ""
	}
	var lines []string
	for rest := []rune(value); ; line = indent {
		room := max(cols-utf8.RuneCountInString(line), 1)
		if len(rest) <= room {
			return append(lines, line+string(rest))
		}
		lines = append(lines, line+string(rest[:room]))
		rest = rest[room:]
	}
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string([]rune(s)[:n-1]) + "…"
}
