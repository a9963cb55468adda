package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	maxRequests = 200     // that are kept to be shown
	maxPath     = 1 << 10 // of a request's path, in bytes
	maxNotes    = 100     // that are kept for the end
	maxNote     = 4 << 10 // of one, in bytes
	shownNotes  = 5

	labels = 13      // the width of the labels' column
	narrow = 60      // columns, below which there is none
	wide   = 1 << 20 // columns, of which there are enough: a terminal is to wrap what it has no room for
)

// view is what a screen shows.
type view struct {
	color     bool
	inspect   string
	refused   string // what is wrong with the new configuration; "": nothing
	endpoints []*shown
	longest   int // of their names, also of those that are gone
	tally     tally
	notes     []note    // changes, and lines of the log; the newest last
	requests  []request // the newest last
}

// note is a change, or a line of the log.
type note struct {
	at       time.Time
	endpoint string // of start
	text     string
}

// change notes what happened to the connection of an endpoint.
func (v *view) change(c change, now time.Time) {
	if c.event == opened {
		return // arrange says where it is
	}
	e := v.find(c.endpoint)
	if e == nil || c.former {
		e = &shown{} // of what is gone there are notes alone
	} else if c.event == tunnel.Ready && c.endpoint == "" {
		v.inspect = c.inspect
	}
	if e.change(c) {
		v.note(note{now, c.endpoint, c.text()})
	}
}

// find is nil where there is no such endpoint.
func (v *view) find(name string) *shown {
	if i := slices.IndexFunc(v.endpoints, func(e *shown) bool { return e.name == name }); i >= 0 {
		return v.endpoints[i]
	}
	return nil
}

// arrange has the endpoints be names, in that order; those of begun begin anew.
func (v *view) arrange(names, begun []string, inspect string) {
	var all []*shown
	for _, name := range names {
		e := v.find(name)
		if e == nil {
			e = &shown{}
		}
		if slices.Contains(begun, name) {
			*e = shown{name: name, count: e.count, state: waiting}
		}
		all = append(all, e)
		v.longest = max(v.longest, utf8.RuneCountInString(printable(name)))
	}
	v.endpoints, v.inspect, v.refused = all, inspect, ""
}

func (v *view) refuse(wrong problems) {
	v.refused = printable(wrong[0].Error())
	if more := len(wrong) - 1; more > 0 {
		v.refused += " (and " + plural(int64(more), "more mistake") + ")"
	}
}

func (v *view) note(one note) {
	if len(one.text) > maxNote {
		one.text = strings.ToValidUTF8(one.text[:maxNote], "")
	}
	v.notes = append(v.notes, one)
	v.notes = v.notes[max(len(v.notes)-maxNotes, 0):]
}

func (v *view) request(r request) {
	v.tally.add(r.Exchange)
	if e := v.find(r.endpoint); e != nil {
		e.count++
	}
	if len(r.Path) > maxPath {
		r.Path = strings.Clone(r.Path[:maxPath])
	}
	if len(v.requests) == 2*maxRequests {
		v.requests = slices.Delete(v.requests, 0, maxRequests)
	}
	v.requests = append(v.requests, r)
}

// frame is what is seen in a window of that size: one string a row.
func (v *view) frame(cols, rows int) []string {
	status, about := v.statusRow(cols), append(v.about(cols), field("Stop", "Ctrl-C", cols)...)
	lines := slices.Concat(status, v.table(cols, rows, len(status)+len(about)), about)
	lines = lines[:min(len(lines), rows)]
	names := v.names(cols)
	if n := min(len(v.notes), shownNotes, (rows-len(lines))/2-1); n > 0 {
		lines = append(lines, "")
		for _, one := range v.notes[len(v.notes)-n:] {
			lines = append(lines, cut(one.line(cols, names), cols))
		}
	}
	if n := min(len(v.requests), rows-len(lines)-1); n > 0 {
		lines = append(lines, "")
		for _, r := range v.requests[len(v.requests)-n:] {
			lines = append(lines, r.line(cols, names, v.color))
		}
	}
	return lines
}

// last is what is left when the screen has gone.
func (v *view) last() []string {
	lines := slices.Concat(v.statusRow(wide), v.table(wide, wide, 0), v.about(wide))
	if len(v.notes) > 0 {
		lines = append(lines, "")
	}
	for _, one := range v.notes {
		lines = append(lines, one.line(wide, v.names(wide)))
	}
	return lines
}

func (v *view) statusRow(cols int) []string {
	status := v.status()
	lines := field("Status", status, cols)
	if v.color && len(lines) == 1 {
		lines[0] = strings.TrimSuffix(lines[0], status) + colored(status, goodness(status))
	}
	return lines
}

// status is that of all endpoints.
func (v *view) status() string {
	up := 0
	for _, e := range v.endpoints {
		if e.state == online {
			up++
		}
	}
	switch {
	case up == len(v.endpoints):
		return online
	case v.endpoints[0].name == "":
		return v.endpoints[0].state + v.endpoints[0].why
	}
	return fmt.Sprintf("%d of %d online", up, len(v.endpoints))
}

// about is what is seen beside status and endpoints.
func (v *view) about(cols int) (lines []string) {
	if v.refused != "" {
		lines = append(lines, field("Config", "not used: "+v.refused, cols)...)
	}
	if v.inspect != "" {
		lines = append(lines, field("Inspector", printable(v.inspect), cols)...)
	}
	lines = append(lines, field(v.served(), v.counts(), cols)...)
	return append(lines, v.servers(cols)...)
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

// line is the note with its time, where there is room for that, behind names columns for its
// endpoint.
func (n note) line(cols, names int) string {
	before := n.at.Format(time.TimeOnly) + "  "
	if cols < narrow {
		before = ""
	}
	if n.endpoint != "" {
		before += named(n.endpoint, cols, names)
	}
	return before + n.text
}

// line is a request's, behind names columns for its endpoint. Where there is little room the
// path gives way first, as the rest says what became of it.
func (r request) line(cols, names int, color bool) string {
	before := fmt.Sprintf("%s  %s%-7s ", r.at.Format(time.TimeOnly), named(r.endpoint, cols, names), printable(r.Method))
	if cols < narrow {
		before = named(r.endpoint, cols, names) + printable(r.Method) + " "
	}
	status, took := outcome(r.Exchange), short(r.Duration)
	room := cols - utf8.RuneCountInString(before+status+took) - 4
	if room < 1 {
		return cut(before+status+" "+took, cols)
	}
	path := cut(printable(r.Path), room)
	if color {
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
	return wrap(line, indent, value, cols)
}

// wrap has value follow line, and on more rows indent.
func wrap(line, indent, value string, cols int) (lines []string) {
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
