package main

import (
	"context"
	"fmt"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	floodVisitors = 4
	floodPause    = 200 * time.Millisecond // when the server has cut them all
	floodRounds   = 3
)

// http2Floods has visitors flood the edge over HTTP/2, beside others whose requests must not suffer.
func (t *trial) http2Floods() error {
	if err := t.serve(quiet); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "mine"); err != nil {
		return err
	}
	t.send(floodLoad(t)) // what the server needs for that is no growth
	rss := t.server.PeakRSS()
	for _, kind := range rig.Floods() {
		if err := t.http2Flood(kind, rss); err != nil {
			return err
		}
	}
	return nil
}

// floodLoad is what others send beside a flood.
func floodLoad(t *trial) paced {
	return paced{name: "mine", requests: pick(t, 900, 1_800), over: pick(t, 1500*time.Millisecond, 3*time.Second)}
}

// http2Flood compares the p99 with and without a flood, in rounds. The best counts: other work of the
// machine, of which a millisecond is much here, can only make it worse. The memory is compared with rss,
// which the server had before the first flood.
func (t *trial) http2Flood(kind rig.Flood, rss float64) error {
	const growth = 64
	load := floodLoad(t)
	var frames int64
	var best float64
	var figure, failed string
	for round := range floodRounds {
		before := t.send(load)
		// What the attackers' machines do is not the server's work, and gives way to it.
		flood, err := t.Start(rig.Command{Path: "nice", Args: []string{"-n", "19", t.self, "role", "flood", t.addr, "mine.localhost", string(kind)}})
		if err != nil {
			return err
		}
		during := t.send(load)
		sent, err := floodSent(flood)
		if err != nil {
			return fmt.Errorf("flood %s: %w", kind, err)
		}
		frames += sent
		if len(before.errors)+len(during.errors) > 0 {
			failed = fmt.Sprintf("; before %s, then %s", before.failed(), during.failed())
		}
		ratio := float64(during.p99()) / float64(before.p99())
		if round == 0 || ratio < best {
			best, figure = ratio, fmt.Sprintf("%.2f (%.1f ms, before %.1f)", ratio, ms(during.p99()), ms(before.p99()))
		}
		if best <= 2 && round > 0 {
			break
		}
	}
	done := fmt.Sprintf("visitors flood %s, %d frames: ", kind, frames)
	t.atMost(done+"growth of the server's memory", "%.1f MiB", (t.server.PeakRSS()-rss)/mib, growth)
	t.check(failed == "" && best <= 2, done+"p99 of others", figure+failed, "<= 2.00, 0 failed")
	return nil
}

// floodSent ends a flood, and gives the frames that it has sent. One that was none is an error: nothing
// would have been tried.
func floodSent(p *rig.Proc) (frames int64, err error) {
	const least = 100
	p.End()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("it had ended: %s", p.LastWords())
	}
	<-p.Done()
	if frames, err = strconv.ParseInt(p.LastWords(), 10, 64); err != nil {
		return 0, err
	}
	if frames < least {
		return 0, fmt.Errorf("%d frames, want %d at least", frames, least)
	}
	return frames, nil
}

// flood is a role: visitors that flood the server at addr, as fast as it takes it, until SIGTERM. It then
// prints how many frames they have sent.
func flood(addr, host string, kind rig.Flood) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var frames int64
	for ctx.Err() == nil {
		frames += rig.FloodVisitors(ctx, addr, host, kind, floodVisitors, 1<<40).Frames
		select {
		case <-ctx.Done():
		case <-time.After(floodPause):
		}
	}
	fmt.Println(frames)
	return nil
}
