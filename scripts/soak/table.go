package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// printTable prints the checks for a terminal.
func printTable(w io.Writer, checks []check) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "row\tpromise\twhat was done\tfigure\tlimit\tverdict")
	for _, c := range checks {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\n", c.row, c.promise, c.done, c.figure, c.limit, c.verdict)
	}
	tab.Flush()
}

// printMarkdown prints them as the rows of docs/reliability.md.
func printMarkdown(w io.Writer, checks []check) {
	fmt.Fprint(w, "| promise | test | figure | command |\n|---|---|---|---|\n")
	for _, c := range checks {
		figure := c.figure
		switch c.verdict {
		case fail:
			figure = "**" + figure + "**"
		case skipped:
			figure = "skipped: " + figure
		}
		fmt.Fprintf(w, "| %s | %s | %s (%s) | `scripts/soak.sh --only %s` |\n", c.promise, c.done, figure, c.limit, c.row)
	}
}

// count counts the checks that passed and those that did not. What was skipped is neither.
func count(checks []check) (passed, failed int) {
	for _, c := range checks {
		switch c.verdict {
		case pass:
			passed++
		case fail:
			failed++
		}
	}
	return passed, failed
}
