package main

import (
	"math"
	"slices"
	"time"

	"github.com/revtun/tunnel/internal/forward"
)

// lastTimes is of how many requests percentiles are.
const lastTimes = 1000

// tally counts requests. The zero value has seen none.
type tally struct {
	count, failed int64
	times         []time.Duration // of the last ones, in no order
	next          int             // the oldest, where there are lastTimes
}

func (t *tally) add(e forward.Exchange) {
	t.count++
	if e.Status == 0 || e.Status >= 500 {
		t.failed++
	}
	if len(t.times) < lastTimes {
		t.times = append(t.times, e.Duration)
		return
	}
	t.times[t.next] = e.Duration
	t.next = (t.next + 1) % lastTimes
}

// percentiles returns, for each of ps, the least time that so many of a hundred requests
// did not exceed; nil where there were none.
func (t *tally) percentiles(ps ...float64) []time.Duration {
	if len(t.times) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(t.times))
	all := make([]time.Duration, len(ps))
	for i, p := range ps {
		all[i] = sorted[max(int(math.Ceil(p/100*float64(len(sorted))))-1, 0)]
	}
	return all
}
