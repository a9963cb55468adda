package main

import (
	"math/bits"
	"time"
)

const (
	subBits = 7 // 128 steps for each doubling: a step is 0.8 % wide at most
	subs    = 1 << subBits
)

// A histogram counts latencies, in steps that grow with them. The zero value is empty.
type histogram struct {
	counts [(64 - subBits) * subs]uint32
	total  int
}

// add counts d; what is negative counts as 0.
func (h *histogram) add(d time.Duration) {
	h.counts[step(uint64(max(d, 0)))]++
	h.total++
}

// step numbers the steps: exact up to subs, then subs of them for each power of two.
func step(v uint64) int {
	if v < subs {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// middle is the value in the middle of a step.
func middle(i int) time.Duration {
	shift := i>>subBits - 1
	if shift <= 0 {
		return time.Duration(i)
	}
	low := uint64(i-shift<<subBits) << shift
	return time.Duration(low + 1<<shift/2)
}

// merge adds what o has counted.
func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// quantile is the latency that the share q of all, 0 to 1, does not exceed; 0 where there is none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.total))
	seen := 0
	for i, n := range h.counts {
		seen += int(n)
		if n > 0 && seen >= max(rank, 1) {
			return middle(i)
		}
	}
	return 0
}
