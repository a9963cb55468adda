package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// A row is one kind of load.
type row struct {
	name, about string
	metrics     []metric
	measure     func(r *run, row row)
}

// A metric is a column.
type metric struct {
	name   string // with the unit
	digits int    // after the point
	yard   string // variant whose median is 1.00; "" for none
}

// rows are all rows, in the order in which they run.
func rows() []row {
	return slices.Concat([]row{smallRow(), bulkRow()}, secureRows(), []row{
		tcpRow(), udpRow(), pathRow(), hangRow(), stalledRow(), startRow(), recoverRow(), idleRow(),
	})
}

// A run is one call of the program.
type run struct {
	*lab
	*options
	store    *store
	variants []variant
	absent   []variant
}

// pick is quick's value in a quick run and full's otherwise.
func pick[T any](r *run, quick, full T) T {
	if r.quick {
		return quick
	}
	return full
}

// each calls measure once for each variant that fits, round after round, with a site of its own that
// is closed afterwards. A variant that failed is not tried again.
func (r *run) each(row row, rounds int, fits func(variant) bool, measure func(*site, variant) error) {
	if r.rounds > 0 {
		rounds = r.rounds
	}
	failed := map[string]bool{}
	start := time.Now()
	for round := range rounds {
		for _, v := range r.variants {
			if failed[v.name] || !fits(v) || r.ctx.Err() != nil {
				continue
			}
			fmt.Fprintf(os.Stderr, "bench: %4.0f s  %s, round %d of %d: %s\n",
				time.Since(start).Seconds(), row.name, round+1, rounds, v.name)
			s := r.newSite()
			stop := context.AfterFunc(r.ctx, s.Clear) // ends what the measurement waits for
			err := measure(s, v)
			stop()
			s.Clear()
			if err != nil && r.ctx.Err() == nil {
				failed[v.name] = true
				var c *caseError
				if !errors.As(err, &c) {
					c = &caseError{"", err}
				}
				r.store.fail(row.name, c.kase, v.name, c.err)
			}
		}
	}
}

// A caseError says in which of a row's cases a variant failed.
type caseError struct {
	kase string
	err  error
}

func (e *caseError) Error() string { return e.kase + ": " + e.err.Error() }

func (e *caseError) Unwrap() error { return e.err }

// plain fits every variant that carries HTTP as it is.
func plain(v variant) bool { return v.plan != nil }

// tunnels fits those that have a server and a client: ours and the peers.
func tunnels(v variant) bool { return plain(v) && !v.hop }

// one of the named variants, or a tunnel.
func orTunnel(names ...string) func(variant) bool {
	return func(v variant) bool { return tunnels(v) || slices.Contains(names, v.name) }
}
