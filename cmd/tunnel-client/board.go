package main

import (
	"fmt"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// board is for several endpoints: each line begins with the name of one.
type board struct{ *scroll }

func (b *board) change(c change) {
	if c.event == opened {
		b.print("Inspector    " + printable(c.inspect) + "\n")
		return
	}
	if c.event == tunnel.Ready {
		for _, url := range append([]string{c.url}, c.urls...) {
			b.line(c.endpoint, printable(url)+" -> "+printable(c.target)+through(c))
		}
		for _, row := range c.shared.rows() {
			b.line(c.endpoint, row[0]+"  "+row[1])
		}
		return
	}
	b.line(c.endpoint, c.text())
}

// passed shows a request of an endpoint.
func (b *board) passed(endpoint string, e forward.Exchange) {
	if len(b.lines) >= maxLines-reserve {
		b.left.Add(1)
		return
	}
	b.line(endpoint, fmt.Sprintf("%-7s %s  %s  %s", printable(e.Method), printable(e.Path), b.status(e), short(e.Duration)))
}

func (b *board) line(endpoint, text string) {
	b.print(fmt.Sprintf("%s  %-12s %s\n", b.clock(), printable(endpoint), text))
}
