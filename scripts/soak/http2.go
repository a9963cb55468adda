package main

import (
	"context"
	"fmt"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A flood comes in bursts, so that it is the server that is tried, and not what the attacker leaves of
// the processor: of 20,000 frames a second in all.
const (
	floodVisitors = 4
	floodFrames   = 1_000 // of each, in a burst
	floodEvery    = 200 * time.Millisecond
)

// http2Floods has visitors flood the edge over HTTP/2, beside others whose requests must not suffer.
func (t *trial) http2Floods() error {
	const growth = 64
	if err := t.serve(quiet); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "mine"); err != nil {
		return err
	}
	load := paced{name: "mine", requests: pick(t, 900, 3_000), over: pick(t, 1500*time.Millisecond, 5*time.Second)}
	before := t.send(load)
	for _, kind := range rig.Floods() {
		rss := t.server.PeakRSS()
		sent := make(chan int64, 1)
		go func() { sent <- t.bursts(kind, load.over) }()
		during := t.send(load)
		frames := <-sent
		is, was := during.p99(), before.p99()
		done := fmt.Sprintf("visitors flood %s, %d frames: ", kind, frames)
		t.atMost(done+"growth of the server's memory", "%.1f MiB", (t.server.PeakRSS()-rss)/mib, growth)
		t.check(len(during.errors) == 0 && is <= 2*was, done+"p99 of others",
			fmt.Sprintf("%.2f (%.1f ms, before %.1f; %s)", float64(is)/float64(was), ms(is), ms(was), during.failed()), "<= 2.00, 0 failed")
	}
	return nil
}

// bursts floods for so long, and gives the frames sent.
func (t *trial) bursts(kind rig.Flood, long time.Duration) (frames int64) {
	ctx, cancel := context.WithTimeout(t.Context, long)
	defer cancel()
	tick := time.NewTicker(floodEvery)
	defer tick.Stop()
	for {
		frames += rig.FloodVisitors(ctx, t.addr, "mine.localhost", kind, floodVisitors, floodFrames).Frames
		select {
		case <-tick.C:
		case <-ctx.Done():
			return frames
		}
	}
}
