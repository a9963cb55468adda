package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// print writes a row's results: a line for each variant, grouped by case; in each column the median,
// its ratio to the yardstick, and the smallest and largest sample.
func (s *store) print(w io.Writer, row row) {
	fmt.Fprintf(w, "\n## %s\n\n%s. Each cell: median%s (smallest–largest).\n\n",
		row.name, capital(row.about), yardstick(row))
	cases := s.cases[row.name]
	if len(cases) == 0 {
		fmt.Fprintln(w, "Nothing was measured.")
		return
	}
	for len(cases) > 0 {
		shown, n := row, 1
		shown.metrics = s.columns(row, cases[0])
		for n < len(cases) && slices.Equal(s.columns(row, cases[n]), shown.metrics) {
			n++
		}
		s.printCases(w, shown, cases[:n])
		cases = cases[n:]
		if len(cases) > 0 {
			fmt.Fprintln(w)
		}
	}
	s.printFailures(w, row)
}

// columns are the metrics of row that a case has; all where it failed with every variant.
func (s *store) columns(row row, kase string) []metric {
	columns := slices.DeleteFunc(slices.Clone(row.metrics), func(m metric) bool {
		return !slices.ContainsFunc(variantNames(), func(variant string) bool {
			return len(s.samples[cell{row.name, kase, variant, m.name}]) > 0
		})
	})
	if len(columns) == 0 {
		return row.metrics
	}
	return columns
}

// printCases writes one table.
func (s *store) printCases(w io.Writer, row row, cases []string) {
	lines := [][]string{{"case", "variant"}}
	for _, m := range row.metrics {
		lines[0] = append(lines[0], m.name)
	}
	for _, kase := range cases {
		for _, name := range variantNames() {
			if line := s.line(row, kase, name); line != nil {
				lines = append(lines, line)
			}
		}
	}
	if !slices.ContainsFunc(lines[1:], func(l []string) bool { return l[0] != "" }) {
		for i := range lines {
			lines[i] = lines[i][1:]
		}
	}
	writeTable(w, lines)
}

// yardstick says what the ratios of a row are to, "" where it has none.
func yardstick(row row) string {
	for _, m := range row.metrics {
		if m.yard != "" {
			return " ×ratio to " + m.yard
		}
	}
	return ""
}

// line is the cells of one variant, nil where it was not measured.
func (s *store) line(row row, kase, variant string) []string {
	line := []string{kase, variant}
	there := false
	for _, m := range row.metrics {
		c := cell{row.name, kase, variant, m.name}
		text := "-"
		switch {
		case s.failure(c) != "":
			text, there = "failed", true
		case len(s.samples[c]) > 0:
			text, there = s.text(c, m), true
		}
		line = append(line, text)
	}
	if !there {
		return nil
	}
	return line
}

// text is one cell.
func (s *store) text(c cell, m metric) string {
	samples := s.samples[c]
	text := number(median(samples), m.digits)
	yard := c
	yard.variant = m.yard
	if base, ok := s.median(yard); ok && base > 0 {
		text += fmt.Sprintf(" ×%.2f", median(samples)/base)
	}
	if len(samples) > 1 {
		text += fmt.Sprintf(" (%s–%s)", number(slices.Min(samples), m.digits), number(slices.Max(samples), m.digits))
	}
	return text
}

func (s *store) printFailures(w io.Writer, row row) {
	for _, kase := range s.cases[row.name] {
		for _, name := range variantNames() {
			if why := s.failed[cell{row.name, kase, name, ""}]; why != "" {
				fmt.Fprintf(w, "\nFailed: %s: %s\n", strings.TrimSpace(name+" "+kase), why)
			}
		}
	}
}

// writeTable writes lines, the first being the head, as a Markdown table whose columns are aligned.
func writeTable(w io.Writer, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for n, line := range lines {
		for i, text := range line {
			fmt.Fprintf(w, "| %s%s ", text, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)))
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for _, width := range widths {
			fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
		}
		fmt.Fprintln(w, "|")
	}
}

// number writes v with digits after the point and commas between thousands.
func number(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, fraction, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		return whole + "." + fraction
	}
	return whole
}

func capital(text string) string {
	return strings.ToUpper(text[:1]) + text[1:]
}
