package main

import (
	"fmt"
	"time"
)

// The metrics of small.
const (
	perSecond  = "requests/s"
	p50        = "p50 µs"
	p99        = "p99 µs"
	cpuRequest = "CPU µs/request"
)

func smallRow() row {
	return row{
		name:    "small",
		about:   "13-byte answers on kept connections, at 1, 16, 64 and 256 connections",
		metrics: []metric{{perSecond, 0, oneProxy}, {p50, 0, oneProxy}, {p99, 0, oneProxy}, {cpuRequest, 1, oneProxy}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 2, 5), plain, func(s *site, v variant) error { return r.small(row, s, v) })
		},
	}
}

// small measures all levels on one tunnel.
func (r *run) small(row row, s *site, v variant) error {
	t, err := s.open(v, nil)
	if err != nil {
		return err
	}
	for _, conns := range []int{1, 16, 64, 256} {
		l := &load{addr: t.visit, host: t.host, conns: conns, measure: pick(r, 300*time.Millisecond, 1200*time.Millisecond)}
		if err := r.smallCase(cell{row.name, connections(conns), v.name, ""}, t, l); err != nil {
			return err
		}
	}
	return t.check()
}

// smallCase makes the load on t and stores its figures under line.
func (r *run) smallCase(line cell, t *tunnel, l *load) error {
	var marks []time.Duration
	l.warm = pick(r, 100*time.Millisecond, 300*time.Millisecond)
	l.mark = func() { marks = append(marks, t.cpu()) }
	got, err := l.run()
	if err != nil {
		return &caseError{line.kase, err}
	}
	r.store.figures(line, got, marks[1]-marks[0])
	return nil
}

// figures stores what a load of small exchanges got and the CPU time that it cost.
func (s *store) figures(line cell, got *loadResult, cpu time.Duration) {
	n := float64(got.latency.total)
	add := func(metric string, value float64) { s.add(line.row, line.kase, line.variant, metric, value) }
	add(perSecond, n/got.elapsed.Seconds())
	add(p50, micro(got.latency.quantile(0.50)))
	add(p99, micro(got.latency.quantile(0.99)))
	add(cpuRequest, micro(cpu)/n)
}

// connections is the name of small's case with n connections.
func connections(n int) string { return fmt.Sprintf("c=%d", n) }

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
