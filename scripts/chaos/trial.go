package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	// backWithin is how long the tunnels may take to answer after most faults have ended.
	backWithin = 5 * time.Second
	// givenUp is when the run ends, as they do not.
	givenUp = time.Minute
)

// A trial is a run in a lab.
type trial struct {
	lab  *lab
	out  io.Writer
	load *load

	probes   int
	faults   []happened
	slowest  string // the probe that was answered last
	ran      map[string]*rig.Ran
	problems []string  // beside the verdicts
	began    time.Time // of the load; before it the processes come up
	elapsed  time.Duration
	starved  bool // the machine had no memory left for connections
}

// happened is a fault that was made.
type happened struct {
	fault
	began, ended, back time.Time // back: all tunnels answered
}

func (t *trial) problem(format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf(format, args...))
	fmt.Fprintf(t.out, "PROBLEM "+format+"\n", args...)
}

// run is the load with its faults, and then quiet. An error is a run that could not go on.
func (t *trial) run() error {
	l, ctx := t.lab, t.lab.site.Context
	// Those for the probes are there before the rest is counted.
	t.load = &load{lab: l, labels: make(map[string]int)}
	if err := t.answers(rig.Patience); err != nil {
		return err
	}
	quiet := t.measure()

	probes := t.load
	t.load = l.startLoad(ctx)
	for _, o := range probes.results {
		t.load.keep(-1, o)
	}
	began, starvedBefore := time.Now(), starved()
	t.began = began
	var err error
	more := 100 * int(l.length/time.Second+1) // than there is time for
	for _, f := range schedule(l.seed, l.length >= longRun, more) {
		if !strings.Contains(f.kind, l.only) {
			continue
		}
		l.site.Sleep(min(f.after, time.Until(began.Add(l.length))))
		if ctx.Err() != nil || time.Since(began) >= l.length {
			break
		}
		if err = t.one(f); err != nil {
			break
		}
	}
	t.elapsed = time.Since(began)
	t.load.finish()
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("the run was not finished: %w", context.Cause(ctx))
	}
	t.starved = starved() > starvedBefore
	if err == nil && l.length >= longRun {
		t.leaks(quiet)
	}
	if crash := l.crashed(); crash != nil {
		t.problem("%v", crash)
	}
	ran, readErr := rig.ReadJournal(l.file("journal"))
	t.ran = ran
	return errors.Join(err, readErr)
}

// one makes a fault and waits until all is well again.
func (t *trial) one(f fault) error {
	h := happened{fault: f, began: time.Now()}
	fmt.Fprintf(t.out, "%s %s %s\n", h.began.Format("15:04:05.000"), f.kind, f.what)
	if err := f.do(t.lab); err != nil {
		return fmt.Errorf("%s: %w", f.kind, err)
	}
	h.ended = time.Now()
	within, limit := cmp.Or(f.within, backWithin), givenUp
	if t.lab.dump {
		limit = within
	}
	err := t.answers(limit)
	if err != nil && t.lab.dump {
		t.count()
	}
	h.back = time.Now()
	t.faults = append(t.faults, h)
	if err != nil {
		return fmt.Errorf("after %s: %w", f.kind, err)
	}
	if d := h.back.Sub(h.ended); d > within {
		t.problem("after %s %s the tunnels were back after %v, the last of them %s", f.kind, f.what, d.Round(time.Millisecond), t.slowest)
	}
	for _, p := range t.lab.clients {
		if err := p.learn(); err != nil {
			t.problem("%v", err)
		}
	}
	return t.lab.crashed()
}

// probe is a way to a tunnel that has to answer after each fault.
type probe struct {
	name string
	way  way
	kind rig.Kind
}

func probes() []probe {
	return []probe{
		{"a", fresh, rig.Length}, {"b", fresh, rig.Length}, {grpcName, fresh, rig.Unary},
		{"a", freshSecure, rig.Length}, {"b", secondSecure, rig.Length}, {"a", freshThird, rig.Length},
		{turnedName, fresh, rig.Length}, {turnedName, fresh, rig.WebSocket}, {originName, fresh, rig.Length}, {originName, freshSecure, rig.Chunked},
		{portName, port, rig.Raw}, {sealedName, through, rig.Raw}, {privateName, private, rig.Raw},
		{udpName, once, rig.Datagrams}, {udpName, again, rig.Datagrams},
	}
}

// answers waits until each tunnel answers a request of a new visitor, and for datagrams one of an old
// visitor, too.
func (t *trial) answers(limit time.Duration) error {
	var all sync.WaitGroup
	errs := make([]error, len(probes()))
	var last atomic.Value
	for i, p := range probes() {
		t.probes++
		n := t.probes
		all.Go(func() {
			v := t.lab.visitor(p.name, p.way)
			if p.way == again {
				v = t.lab.regular
			} else {
				defer v.Close()
			}
			try, why := 0, error(nil)
			errs[i] = t.lab.site.Until(limit, 20*time.Millisecond, func() error {
				try++
				err := t.probe(v, rig.Ask{ID: fmt.Sprintf("probe-%s-%d-%d", p.name, n, try), Kind: p.kind, Size: 100}, time.Duration(min(1+try/2, 3))*time.Second)
				why = cmp.Or(err, why)
				return err
			})
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s by %s: %w", p.name, p.way, errs[i])
			}
			last.Store(fmt.Sprintf("%s by %s in %d tries, before it %v", p.name, p.way, try, why))
		})
	}
	all.Wait()
	t.slowest = last.Load().(string)
	return errors.Join(errs...)
}

// probe asks once. One that waits for long is given up, and another may be faster.
func (t *trial) probe(v *rig.Visitor, a rig.Ask, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.lab.site.Context, limit)
	defer cancel()
	o := v.Do(ctx, a)
	t.load.keep(-1, o)
	if o.Verdict != rig.Full {
		return errors.New(o.String())
	}
	return nil
}

// leaks compares the processes with what they were before the load, when nothing is kept any more for
// the next request.
func (t *trial) leaks(before []figures) {
	const keptFor = 70 * time.Second // streams and connections are kept for a minute
	t.lab.site.Sleep(keptFor)
	t.compare(before)
}

// compare ends the processes, and finds those that hold more than before.
func (t *trial) compare(before []figures) {
	for i, now := range t.count() {
		p, was := t.lab.all()[i], before[i]
		if now.descriptors > was.descriptors+few || now.goroutines > was.goroutines+few {
			t.problem("%s has %.0f descriptors and %d goroutines, %.0f and %d before the load",
				p.Name, now.descriptors, now.goroutines, was.descriptors, was.goroutines)
		}
	}
}

// few more than before are no leak: streams and connections that are kept for the next request.
const few = 24

// figures are what a process holds.
type figures struct {
	descriptors float64
	goroutines  int
}

// measure measures each process, which ends it, and starts it again.
func (t *trial) measure() []figures {
	all := t.count()
	if err := t.lab.start(slices.Concat([]*process{t.lab.server}, t.lab.apps, t.lab.clients)...); err != nil {
		t.problem("%v", err)
	}
	if err := t.answers(rig.Patience); err != nil {
		t.problem("%v", err)
	}
	return all
}

// count ends the processes by SIGQUIT, whose dump tells their goroutines. They get it at once: one that
// sees another go would have goroutines for that.
func (t *trial) count() []figures {
	all := t.lab.all()
	counts := make([]figures, len(all))
	for i, p := range all {
		counts[i] = figures{descriptors: p.Descriptors(), goroutines: -strings.Count(p.Log(), "\ngoroutine ")}
		p.End()
	}
	for _, p := range all {
		_ = p.Signal(syscall.SIGQUIT) // it has ended where that fails
	}
	for i, p := range all {
		<-p.Done()
		counts[i].goroutines += strings.Count(p.Log(), "\ngoroutine ")
	}
	return counts
}
