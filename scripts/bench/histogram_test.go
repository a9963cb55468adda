package main

import (
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	var a, b histogram
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(time.Duration(i) * time.Microsecond)
	}
	a.merge(&b)
	for q, want := range map[float64]time.Duration{
		0: time.Microsecond, 0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: 1000 * time.Microsecond,
	} {
		got := a.quantile(q)
		if off := float64(got-want) / float64(want); off < -0.01 || off > 0.01 {
			t.Errorf("quantile(%v) = %v, want %v within 1 %%", q, got, want)
		}
	}
	if a.total != 1000 {
		t.Errorf("total = %d, want 1000", a.total)
	}
}

func TestHistogramLimits(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v, want 0", got)
	}
	h.add(-1)
	if got := h.quantile(1); got != 0 {
		t.Errorf("a negative latency counts as %v, want 0", got)
	}
	h.add(1<<63 - 1)
	if got := h.quantile(1); got < 1<<62 {
		t.Errorf("the largest latency counts as %v", got)
	}
}

func TestStepsAreNarrow(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v += 1 + v/997 {
		i := step(v)
		if i < last {
			t.Fatalf("step(%d) = %d, after %d", v, i, last)
		}
		last = i
		if off := float64(middle(i)) - float64(v); off > 0.008*float64(v) || off < -0.008*float64(v) {
			t.Fatalf("%d counts as %d", v, middle(i))
		}
	}
}
