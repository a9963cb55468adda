package main

import (
	"strconv"
	"strings"
	"syscall"
)

// dumpSignal makes a Go program print the stack of each goroutine and exit.
const dumpSignal = syscall.SIGQUIT

// goroutines counts those in a dump, without the runtime's own, which have no number or 0.
func goroutines(dump string) int {
	n := 0
	for line := range strings.Lines(dump) {
		rest, ok := strings.CutPrefix(line, "goroutine ")
		if ok && !strings.HasPrefix(rest, "0 ") && strings.HasSuffix(strings.TrimSpace(line), ":") {
			n++
		}
	}
	return n
}

// collections counts the collections in a trace, see liveHeap.
func collections(trace string) int { return strings.Count(trace, "\ngc ") }

// liveHeap is the least that any of the last n collections in a trace left in use, in megabytes of 2^20
// bytes, the trace's unit; -1 where there were fewer. A line of GODEBUG=gctrace=1 is
// "gc # @#s #%: … ms cpu, #->#-># MB, # MB goal, …" (package runtime), the third number being what is live.
func liveHeap(trace string, n int) int {
	var live []int
	for line := range strings.Lines(trace) {
		if !strings.HasPrefix(line, "gc ") {
			continue
		}
		before, _, ok := strings.Cut(line, " MB, ")
		if !ok {
			continue
		}
		mb, err := strconv.Atoi(before[strings.LastIndexByte(before, '>')+1:])
		if err == nil {
			live = append(live, mb)
		}
	}
	if len(live) < n {
		return -1
	}
	least := live[len(live)-n]
	for _, mb := range live[len(live)-n:] {
		least = min(least, mb)
	}
	return least
}
