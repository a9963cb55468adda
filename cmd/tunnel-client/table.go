package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	maxName       = 20 // columns for the names of endpoints
	maxNarrowName = 10 // where there are few

	online  = "online"
	waiting = "connecting"

	servedRequests    = "Requests"
	servedConnections = "Connections"
	servedBoth        = "Served"
)

// shown is an endpoint of a view.
type shown struct {
	name    string // "": it is the only one, of a command of its own
	state   string
	why     string // what is to be said of state; "": nothing
	rows    []string
	through string
	shared  sharing
	server  string
	served  string
	latency time.Duration // to the server; 0: not known
	count   int64
}

// change reports whether c is worth a note.
func (e *shown) change(c change) bool {
	began := e.state == "" || e.state == waiting
	switch c.event {
	case trying:
		e.server, e.latency = c.server, 0
		return false
	case measured:
		e.latency = c.latency
		return false
	case tunnel.Ready:
		e.rows, e.shared, e.server, e.served = c.forwarding(), c.shared, c.server, c.served
		e.state, e.why, e.through = online, "", through(c)
		return !began
	case tunnel.Reconnected:
		e.state, e.why, e.through = online, "", through(c)
		return true
	}
	if c.event == tunnel.Disconnected || c.event == failed {
		e.latency = 0
	}
	e.state = string(c.event)
	e.why = strings.TrimPrefix(c.text(), e.state)
	return true
}

// leads is what is told of a named endpoint beside its state: which URL leads where, and of
// one that was never there, or failed, why.
func (e *shown) leads() []string {
	why := strings.TrimLeft(e.why, ":, ")
	if len(e.rows) == 0 || e.state == string(failed) {
		return []string{why}
	}
	rows := slices.Clone(e.rows)
	rows[0] += e.through
	if why != "" {
		rows[0] += " (" + why + ")"
	}
	for _, row := range e.shared.rows() {
		rows = append(rows, strings.TrimLeft(row[0]+"  "+row[1], " "))
	}
	return rows
}

// fields are what is seen of an endpoint without a name.
func (e *shown) fields(cols int) (lines []string) {
	for _, row := range e.rows {
		lines = append(lines, field("Forwarding", row, cols)...)
	}
	for _, row := range e.shared.rows() {
		lines = append(lines, field(row[0], row[1], cols)...)
	}
	return lines
}

// names is how wide a column of the endpoints' names is; 0: they have none.
func (v *view) names(cols int) int {
	if cols < narrow {
		return min(v.longest, maxNarrowName)
	}
	return min(v.longest, maxName)
}

// named is a name, and what is between it and what follows.
func named(name string, cols, names int) string {
	if names == 0 {
		return ""
	}
	gap := "  "
	if cols < narrow {
		gap = " "
	}
	return column(printable(name), names) + gap
}

// column makes s take n columns.
func column(s string, n int) string { return fmt.Sprintf("%-*s", n, cut(s, n)) }

// table is what is seen of the endpoints in a window where others rows are for the rest of
// what stands above. As long as a third of the window is left, that is all of it. Else it is a
// row for each, for which there is half of the window at least.
func (v *view) table(cols, rows, others int) []string {
	if v.endpoints[0].name == "" {
		return v.endpoints[0].fields(cols)
	}
	var all []string
	for _, e := range v.endpoints {
		all = append(all, v.whole(e, cols)...)
	}
	if others+len(all)+rows/3 <= rows {
		return all
	}
	return v.short(cols, max(rows-others-3, rows/2))
}

// whole is all of an endpoint.
func (v *view) whole(e *shown, cols int) (lines []string) {
	line, indent := v.begin(e, cols), strings.Repeat(" ", labels)
	rows := e.leads()
	if cols < narrow { // URLs have rows of their own, to be broken as late as can be
		rows, line, indent = append([]string{strings.TrimRight(line, " ")}, rows...), "", ""
		rows = slices.DeleteFunc(rows, func(row string) bool { return row == "" })
	}
	for _, row := range rows {
		lines = append(lines, wrap(line, indent, row, cols)...)
		line = indent
	}
	lines[0] = v.paint(e, lines[0], cols)
	return lines
}

// short is a row for each endpoint. Where there is no room for all, those that are not online
// come first, and the last row says how many are not seen.
func (v *view) short(cols, room int) (lines []string) {
	all, more := v.endpoints, 0
	if len(all) > room {
		all = slices.Clone(all)
		slices.SortStableFunc(all, func(a, b *shown) int { return rank(a) - rank(b) })
		more = len(all) - max(room-1, 0)
	}
	for _, e := range all[:len(all)-more] {
		lines = append(lines, v.paint(e, cut(v.begin(e, cols)+e.leads()[0], cols), cols))
	}
	if more > 0 && room > 0 {
		up := 0
		for _, e := range all[len(all)-more:] {
			up += rank(e)
		}
		lines = append(lines, cut(fmt.Sprintf("… %d more, %d of them online", more, up), cols))
	}
	return lines
}

// rank is 1 for what needs no attention.
func rank(e *shown) int {
	if e.state == online {
		return 1
	}
	return 0
}

// begin is name, state and count of an endpoint, in columns that are as wide as need be.
func (v *view) begin(e *shown, cols int) string {
	state, count := 0, 0
	for _, one := range v.endpoints {
		state, count = max(state, len(one.state)), max(count, len(fmt.Sprint(one.count)))
	}
	gap := "  "
	if cols < narrow {
		gap = " "
	}
	return v.nameOf(e, cols) + fmt.Sprintf("%-*s%s%*d%s", state, e.state, gap, count, e.count, gap)
}

// nameOf is the name of an endpoint, as wide as the labels where there are such.
func (v *view) nameOf(e *shown, cols int) string {
	names := v.names(cols)
	if cols >= narrow {
		names = max(names, labels-2)
	}
	return named(e.name, cols, names)
}

// paint gives the state of an endpoint its color.
func (v *view) paint(e *shown, line string, cols int) string {
	name := v.nameOf(e, cols)
	rest, ok := strings.CutPrefix(line, name+e.state)
	if !ok || !v.color {
		return line
	}
	return name + colored(e.state, goodness(e.state)) + rest
}

// goodness is the status of a request that is colored as state is to be.
func goodness(state string) int {
	if state == online {
		return 200
	}
	return 500
}

// served is the label of the counts.
func (v *view) served() string {
	label := ""
	for _, e := range v.endpoints {
		switch {
		case label == "":
			label = e.served
		case e.served != "" && e.served != label:
			return servedBoth
		}
	}
	if label == "" {
		return servedRequests
	}
	return label
}

// servers are the rows of the servers. How far one is, is the least of what was measured.
func (v *view) servers(cols int) (lines []string) {
	var urls []string
	for _, e := range v.endpoints {
		if e.server != "" && !slices.Contains(urls, e.server) {
			urls = append(urls, e.server)
		}
	}
	for _, url := range urls {
		all, up, latency := 0, 0, time.Duration(0)
		for _, e := range v.endpoints {
			if e.server != url {
				continue
			}
			all, up = all+1, up+rank(e)
			if e.latency > 0 && (latency == 0 || e.latency < latency) {
				latency = e.latency
			}
		}
		row := printable(url)
		switch {
		case len(urls) > 1:
			row += fmt.Sprintf(", %d of %d online", up, all)
			if latency > 0 {
				row += ", " + short(latency)
			}
		case v.endpoints[0].name == "":
			row += v.endpoints[0].through
		}
		lines = append(lines, field("Server", row, cols)...)
		if len(urls) == 1 && latency > 0 {
			lines = append(lines, field("Latency", short(latency), cols)...)
		}
	}
	return lines
}
