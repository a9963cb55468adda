package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A level is what the server holds when it is at rest.
type level struct {
	heap        int     // MiB in use after a collection
	rss         float64 // bytes
	descriptors float64
}

// churn breaks sessions off while a fleet stays, so that two per cent of what the server holds is a
// number of things. Goroutines can be counted at the end of a process only: the count to compare with is
// another server's, that had the first few sessions and no more.
func (t *trial) churn() error {
	count, warm, all := pick(t, 500, 5_000), pick(t, 1_000, 5_000), pick(t, 10_000, 100_000)
	f, first, err := t.churned(count, warm)
	if err != nil {
		return err
	}
	stacksFirst, err := t.stacks()
	if err != nil {
		return err
	}
	f.Kill()
	if f, first, err = t.churned(count, warm); err != nil {
		return err
	}
	if err := t.breakSessions(warm, all); err != nil {
		return err
	}
	last, err := t.rest()
	if err != nil {
		return err
	}
	m, err := f.muster()
	if err != nil {
		return err
	}
	stacks, err := t.stacks()
	if err != nil {
		return err
	}
	done := fmt.Sprintf("%d sessions broken off beside %d tunnels: ", all, count)
	within := func(what string, got, before, slack float64) {
		limit := before + max(before*0.02, slack)
		t.check(got <= limit, done+what, fmt.Sprintf("%.0f, after %d %.0f", got, warm, before), fmt.Sprintf("<= %.0f", limit))
	}
	within("goroutines", float64(stacks), float64(stacksFirst), 0)
	within("descriptors", last.descriptors, first.descriptors, 0)
	within("MiB of heap in use after a collection", float64(last.heap), float64(first.heap), 1) // the trace's unit
	within("MB of resident memory", last.rss/mb, first.rss/mb, 0.1*first.rss/mb)
	t.check(m.Lost == 0 && m.Up == count, done+"of the tunnels beside, lost", fmt.Sprint(m.Lost), "0")
	return nil
}

// churned starts a server and a fleet, breaks the first sessions off, and gives the level after that.
func (t *trial) churned(count, warm int) (*ships, level, error) {
	if err := t.serve(quiet, "--hold=1s", "--max-sessions=20000"); err != nil {
		return nil, level{}, err
	}
	f, err := t.launch(count)
	if err != nil {
		return nil, level{}, err
	}
	if err := t.breakSessions(0, warm); err != nil {
		return nil, level{}, err
	}
	l, err := t.rest()
	return f, l, err
}

// rest waits until holds and handshakes are over, and makes the server collect garbage: requests make
// enough of it.
func (t *trial) rest() (level, error) {
	t.Sleep(pick(t, 2*time.Second, 12*time.Second))
	collected := collections(t.server.Log())
	ctx, enough := context.WithTimeout(t.Context, time.Minute)
	defer enough()
	go func() {
		_ = t.Until(time.Minute, 50*time.Millisecond, func() error {
			if collections(t.server.Log()) < collected+3 {
				return errors.New("the server has not collected garbage")
			}
			return nil
		})
		enough()
	}()
	t.flood(ctx, fleetName(0), time.Minute)
	t.Sleep(time.Second)
	l := level{heap: liveHeap(t.server.Log(), 2), rss: t.server.RSS(), descriptors: t.server.Descriptors()}
	if collections(t.server.Log()) < collected+3 {
		return l, errors.New("the server has not collected garbage")
	}
	return l, nil
}

// breakSessions breaks off the sessions numbered from, to to-1, several at the same time.
func (t *trial) breakSessions(from, to int) error {
	const workers = 32
	var mu sync.Mutex
	var first error
	var all sync.WaitGroup
	for k := range workers {
		all.Go(func() {
			for i := from + k; i < to && t.Context.Err() == nil; i += workers {
				if err := t.breakOne(i); err != nil {
					mu.Lock()
					first = fmt.Errorf("session %d: %w", i, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	all.Wait()
	return first
}

// breakOne opens connection i and breaks it off at the stage of its turn.
func (t *trial) breakOne(i int) error {
	w, err := t.dial(i)
	if err != nil {
		return err
	}
	defer w.reset()
	stage := i % 10
	switch stage {
	case 0: // nothing was sent
		return nil
	case 1: // half a request
		_, err = io.WriteString(w, upgradeRequest(t.addr, protocol.Upgrade)[:40])
		return err
	case 2: // before the answer is read
		_, err = io.WriteString(w, upgradeRequest(t.addr, protocol.Upgrade))
		return err
	}
	if err := w.upgrade(t.addr); err != nil || stage == 3 {
		return err
	}
	if stage == 4 { // half a hello
		_, err := w.Write(frame(nil, frameData, flagSYN, control, 500))
		return err
	}
	if err := w.login(); err != nil || stage == 5 {
		return err
	}
	if err := w.claim("broken-" + strconv.Itoa(i)); err != nil || stage < 8 {
		return err
	}
	if stage == 8 { // in order
		if err := w.say(&protocol.Message{Bye: &protocol.Bye{}}); err != nil {
			return err
		}
		if _, err := w.hear(); err != nil {
			return err
		}
		return w.Close()
	}
	return w.CloseWrite() // and a reset after it
}
