// Package pace lets a busy process collect garbage less often. Go collects when
// the heap has doubled, from 4 MB on: a proxy, which keeps little and allocates
// much, does so dozens of times a second, for a tenth of its CPU time. Idle, and
// with much in use, it stays as frugal as Go is by default.
//
// A process that has a limit of memory asks [Memory] how near it is, to refuse
// work before the system ends it. The limit comes first: near it Go collects as
// often as it must, whatever [Follow] allows.
package pace

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	interval = time.Second
	often    = 10 // collections in an interval, from which on the heap may grow more
	seldom   = 1  // and down to which it may not any more

	// busyPercent is GOGC meanwhile: collections begin at 16 MB.
	busyPercent = 400
	// maxLive is how much may be in use, in bytes, where the heap may grow by
	// busyPercent of it.
	maxLive = 32 << 20
)

// Follow follows what the process does, until stop is called. It does nothing
// where GOGC is set: whoever set it knows better.
func Follow() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		p := pacer{set: debug.SetGCPercent, read: read}
		p.step()
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.step()
			case <-done:
				p.relax()
				return
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// read returns how many collections there have been, but for those that were
// asked for, and how many bytes the last one found in use.
func read() (collections, live uint64) {
	samples := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// pacer decides once in an interval.
type pacer struct {
	set  func(percent int) (before int)
	read func() (collections, live uint64)

	last   uint64 // collections so far
	live   uint64 // what was in use
	busy   bool
	normal int // the percentage before busy
}

func (p *pacer) step() {
	collections, live := p.read()
	n, grows := collections-p.last, live > p.live*5/4
	p.last, p.live = collections, live
	switch {
	case live > maxLive, p.busy && n <= seldom:
		p.relax()
	case !p.busy && n >= often && !grows: // what grows, such as tunnels that come, is no garbage
		p.busy, p.normal = true, p.set(busyPercent)
	}
}

func (p *pacer) relax() {
	if p.busy {
		p.busy = false
		p.set(p.normal)
	}
}
