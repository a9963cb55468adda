package main

import (
	"fmt"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// board is a screen of several endpoints: each line begins with the name of one.
type board struct{ *screen }

func (b *board) change(c change) {
	if c.event == tunnel.Ready {
		for _, url := range append([]string{c.url}, c.urls...) {
			b.line(c.endpoint, printable(url)+" -> "+printable(c.target)+through(c))
		}
		return
	}
	text := string(c.event)
	if c.cause != "" {
		text += ": " + c.cause
	}
	if c.code != "" {
		text += " (" + string(c.code) + ")"
	}
	b.line(c.endpoint, printable(text))
}

// passed shows a request of an endpoint.
func (b *board) passed(endpoint string, e forward.Exchange) {
	if len(b.lines) >= maxLines-reserve {
		b.left.Add(1)
		return
	}
	status := "cut off"
	if e.Status != 0 {
		status = fmt.Sprint(e.Status)
	}
	if e.Code != "" {
		status += " " + string(e.Code)
	}
	b.line(endpoint, fmt.Sprintf("%-7s %s  %s  %s", printable(e.Method), printable(e.Path), b.colored(status, e.Status), short(e.Duration)))
}

func (b *board) line(endpoint, text string) {
	b.print(fmt.Sprintf("%s  %-12s %s\n", b.clock(), printable(endpoint), text))
}
