package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// idle holds tunnels that do nothing for longer than a ping's interval and the time after which a silent
// peer is given up.
func (t *trial) idle() error {
	n, hold := pick(t, 1_000, 10_000), pick(t, 20*time.Second, time.Minute)
	if err := t.serve(quiet); err != nil {
		return err
	}
	before, descriptors := t.server.RSS(), t.server.Descriptors()
	f, err := t.launch(n)
	if err != nil {
		return err
	}
	t.Sleep(hold)
	m, err := f.muster()
	if err != nil {
		return err
	}
	done := fmt.Sprintf("%d idle tunnels for %v", n, hold)
	t.check(m.Up == n && m.Lost == 0, done+": tunnels lost", fmt.Sprint(m.Lost+n-m.Up), "0")
	t.atMost(done+": peak of the server's memory", "%.0f MB", t.server.PeakRSS()/mb, float64(n)*0.06)
	rss := (t.server.RSS() - before) / float64(n) / 1e3
	files := (t.server.Descriptors() - descriptors) / float64(n)
	broken := 0
	c := visitors()
	for i := 0; i < n; i += max(n/100, 1) {
		if t.get(c, fleetName(i), "/", rig.Patience) != nil {
			broken++
		}
	}
	c.CloseIdleConnections()
	t.check(broken == 0, done+": of 100 tunnels then asked, silent ones", fmt.Sprint(broken), "0")
	stacks, err := t.stacks()
	if err != nil {
		return err
	}
	t.check(files <= 1.01, "descriptors of the server for each", fmt.Sprintf("%.2f", files), "<= 1.01")
	t.check(float64(stacks) <= 2.5*float64(n), "goroutines for each, and its memory",
		fmt.Sprintf("%.2f, %.1f kB", float64(stacks)/float64(n), rss), "<= 2.5")
	return nil
}

// concurrency makes all requests at the same time, on a connection each.
func (t *trial) concurrency() error {
	const limit = 10 * time.Second
	n := pick(t, 1_000, 10_000)
	if err := t.serve(quiet); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "many"); err != nil {
		return err
	}
	var mu sync.Mutex
	var first error
	failed := 0
	var all sync.WaitGroup
	c := visitors()
	defer c.CloseIdleConnections()
	start := time.Now()
	for range n {
		all.Go(func() {
			if err := t.get(c, "many", "/after/2s", 2*limit); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, first = failed+1, err
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	done := fmt.Sprintf("%d requests that take 2 s each, at the same time", n)
	figure := fmt.Sprint(failed)
	if first != nil {
		figure += ": " + first.Error()
	}
	t.check(failed == 0, done+": failed", figure, "0")
	t.check(took <= limit, done+": the last answer", seconds(took), "<= "+seconds(limit))
	return nil
}

// herd kills the server and starts it again after a moment in which all clients notice.
func (t *trial) herd() error {
	const limit = time.Minute
	n := pick(t, 1_000, 10_000)
	if err := t.serve(quiet); err != nil {
		return err
	}
	f, err := t.launch(n)
	if err != nil {
		return err
	}
	t.server.Kill()
	err = t.Until(rig.Patience, 10*time.Millisecond, func() error {
		m, err := f.muster()
		if err == nil && m.Up > 0 {
			err = fmt.Errorf("%d tunnels have not noticed", m.Up)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.Sleep(2 * time.Second) // so that they are at different steps of their backing off
	start := time.Now()
	if err := t.serve(quiet); err != nil {
		return err
	}
	err = t.Until(2*limit, 20*time.Millisecond, f.allUp)
	took := time.Since(start)
	if err != nil {
		return err
	}
	done := fmt.Sprintf("kill -9 of the server, and its start, under %d clients", n)
	t.check(took <= limit, done+": the last one back", seconds(took), "<= "+seconds(limit))
	c := visitors()
	defer c.CloseIdleConnections()
	broken := 0
	for i := 0; i < n; i += max(n/100, 1) {
		if t.get(c, fleetName(i), "/", rig.Patience) != nil {
			broken++
		}
	}
	m, err := f.muster()
	t.check(err == nil && broken == 0 && m.Gone == 0, done+": clients that gave up, tunnels of 100 that do not answer",
		fmt.Sprintf("%d, %d", m.Gone, broken), "0, 0")
	return nil
}
