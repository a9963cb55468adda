package main

import (
	"fmt"
	"io"
	"slices"
)

// A target is a promise on the median of one cell, or on its ratio to another one's.
type target struct {
	what   string
	of     cell
	to     cell // zero: the value itself counts
	atMost bool // else at least
	limit  float64
}

// printTargets writes each target with what this run got.
func printTargets(w io.Writer, s *store) {
	fmt.Fprint(w, "\n## targets\n\n")
	lines := [][]string{{"what", "target", "this run", ""}}
	for _, t := range targets() {
		lines = append(lines, t.line(s))
	}
	writeTable(w, lines)
}

func (t target) line(s *store) []string {
	sign := ">="
	if t.atMost {
		sign = "<="
	}
	line := []string{t.what, fmt.Sprintf("%s %.4g", sign, t.limit)}
	got, ok := s.median(t.of)
	if t.to != (cell{}) {
		base, there := s.median(t.to)
		ok = ok && there && base > 0
		got /= base
	}
	switch {
	case s.failure(t.of) != "":
		return append(line, "-", "FAILED")
	case !ok:
		return append(line, "-", "not measured")
	case t.atMost && got <= t.limit, !t.atMost && got >= t.limit:
		return append(line, fmt.Sprintf("%.3g", got), "met")
	}
	return append(line, fmt.Sprintf("%.3g", got), "NOT MET")
}

// targets are those that hold for the product. To hold one more, add it.
func targets() []target {
	return slices.Concat(smallTargets(), bulkTargets(), pathTargets(), memoryTargets(), []target{
		{what: "start of the client to the first answer, ms", of: cell{"start", "", ours, firstAnswer}, atMost: true, limit: 20},
		{what: "back after the server's restart, ms", of: cell{"recover", serverKilled, ours, back}, atMost: true, limit: 500},
	})
}

func smallTargets() []target {
	at := func(conns int, variant, metric string) cell {
		return cell{"small", connections(conns), variant, metric}
	}
	return []target{
		{"CPU/request, c=64, no inspector, to one proxy hop", at(64, oursPlain, cpuRequest), at(64, oneProxy, cpuRequest), true, 0.9},
		{"the same with the inspector on", at(64, ours, cpuRequest), at(64, oneProxy, cpuRequest), true, 1.4},
		{"requests/s, c=64, to one proxy hop", at(64, ours, perSecond), at(64, oneProxy, perSecond), false, 1},
		{"requests/s, c=256, to c=64 (5 % for noise)", at(256, ours, perSecond), at(64, ours, perSecond), false, 0.95},
		{"p50, c=1, to one proxy hop", at(1, ours, p50), at(1, oneProxy, p50), true, 1.35},
		{"CPU/request, c=64, TCP, to two relay hops", at(64, oursTCP, cpuRequest), at(64, twoRelays, cpuRequest), true, 0.85},
	}
}

func bulkTargets() []target {
	at := func(variant, metric string) cell { return cell{"bulk", "", variant, metric} }
	return []target{
		{"download, to one proxy hop", at(ours, downRate), at(oneProxy, downRate), false, 0.6},
		{"upload, to one proxy hop", at(ours, upRate), at(oneProxy, upRate), false, 0.6},
		{"download, websocket, to one proxy hop", at(oursWebSocket, downRate), at(oneProxy, downRate), false, 0.35},
		{"upload, websocket, to one proxy hop", at(oursWebSocket, upRate), at(oneProxy, upRate), false, 0.35},
	}
}

func pathTargets() []target {
	at := func(variant, metric string) cell { return cell{"path", "", variant, metric} }
	return []target{
		{"one stream down, 80 ms, to plain TCP", at(ours, oneDown), at(direct, oneDown), false, 0.9},
		{"one stream up, 80 ms, to plain TCP", at(ours, oneUp), at(direct, oneUp), false, 0.9},
		{"small beside bulk, 80 ms, p50, to plain TCP", at(ours, besideP50), at(direct, besideP50), true, 1.25},
		{"its download, to plain TCP", at(ours, besideDown), at(direct, besideDown), false, 0.9},
	}
}

func memoryTargets() []target {
	none := cell{}
	return []target{
		{"idle tunnel of 1,000, server kB", cell{"idle", tunnelCount(1000), ours, idleRSS}, none, true, 25},
		{"idle tunnel of 10,000, server kB", cell{"idle", tunnelCount(10000), ours, idleRSS}, none, true, 25},
		{"1,000 hanging requests, server MB", cell{"hang", "", ours, serverMB}, none, true, 40},
		{"1,000 hanging requests, client MB", cell{"hang", "", ours, clientMB}, none, true, 40},
		{"10 stalled readers of 1 GiB, server's growth in MB", cell{"stalled", "", ours, serverGrowth}, none, true, 10},
		{"the same, both sides together, no inspector", cell{"stalled", "", oursPlain, bothGrowth}, none, true, 10},
	}
}
