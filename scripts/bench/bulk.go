package main

import "time"

// The metrics of bulk.
const (
	downRate = "down MB/s"
	downCPU  = "down CPU s/GiB"
	upRate   = "up MB/s"
	upCPU    = "up CPU s/GiB"
)

func bulkRow() row {
	return row{
		name:    "bulk",
		about:   "one download and one upload of 1 GiB (quick: 256 MiB), with a Content-Length",
		metrics: []metric{{downRate, 0, oneProxy}, {downCPU, 2, oneProxy}, {upRate, 0, oneProxy}, {upCPU, 2, oneProxy}},
		measure: func(r *run, row row) {
			r.each(row, pick(r, 2, 5), plain, func(s *site, v variant) error { return r.bulk(row, s, v) })
		},
	}
}

// bulk measures both directions on one tunnel.
func (r *run) bulk(row row, s *site, v variant) error {
	t, err := s.open(v, nil)
	if err != nil {
		return err
	}
	size := pick[int64](r, 256<<20, 1<<30)
	err = r.bulkCase(cell{row.name, "", v.name, ""}, t, size, func() (mover, error) {
		b := &transfer{addr: t.visit, host: t.host, bytes: size, limit: time.Minute}
		return b, b.dial()
	})
	if err != nil {
		return err
	}
	return t.check()
}

// A mover moves one large body on a connection of its own.
type mover interface {
	down() error
	up() error
	close()
}

// bulkCase moves size bytes in both directions through t, each on what dial gives, and stores the
// figures under line.
func (r *run) bulkCase(line cell, t *tunnel, size int64, dial func() (mover, error)) error {
	directions := []struct {
		rate, cpu string
		move      func(mover) error
	}{
		{downRate, downCPU, mover.down},
		{upRate, upCPU, mover.up},
	}
	for _, d := range directions {
		b, err := dial()
		if err != nil {
			return &caseError{line.kase, err}
		}
		cpu, start := t.cpu(), time.Now()
		err = d.move(b)
		elapsed, used := time.Since(start), t.cpu()-cpu
		b.close()
		if err != nil {
			return &caseError{line.kase, err}
		}
		r.store.add(line.row, line.kase, line.variant, d.rate, float64(size)/1e6/elapsed.Seconds())
		r.store.add(line.row, line.kase, line.variant, d.cpu, used.Seconds()*(1<<30)/float64(size))
	}
	return nil
}
