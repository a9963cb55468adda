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
			r.each(row, pick(r, 2, 5), all, func(s *site, v variant) error { return r.small(row, s, v) })
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
		kase := connections(conns)
		var marks []time.Duration
		l := &load{
			addr: t.visit, host: t.host, conns: conns,
			warm:    pick(r, 100*time.Millisecond, 300*time.Millisecond),
			measure: pick(r, 300*time.Millisecond, 1200*time.Millisecond),
			mark:    func() { marks = append(marks, t.cpu()) },
		}
		got, err := l.run()
		if err != nil {
			return &caseError{kase, err}
		}
		n := float64(got.latency.total)
		add := func(metric string, value float64) { r.store.add(row.name, kase, v.name, metric, value) }
		add(perSecond, n/got.elapsed.Seconds())
		add(p50, micro(got.latency.quantile(0.50)))
		add(p99, micro(got.latency.quantile(0.99)))
		add(cpuRequest, micro(marks[1]-marks[0])/n)
	}
	return t.check()
}

// connections is the name of small's case with n connections.
func connections(n int) string { return fmt.Sprintf("c=%d", n) }

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
