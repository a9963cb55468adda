package mux

import (
	"sync/atomic"
	"time"
)

const (
	// maxWindow is how much a stream may have been granted and not read. It carries
	// 200 MB/s at 80 ms.
	maxWindow = 16 << 20
	// maxWindows is how much all streams of a session may have beyond
	// initialWindow each.
	maxWindows = 24 << 20
	// longTrip is the round trip from which on a window is granted in small steps.
	// Below it, what a step costs counts for more.
	longTrip = 2 * time.Millisecond
	// slack is how long either end may wait for its turn on a busy machine. A window
	// lasts as long at least, up to maxSlack.
	slack    = 5 * time.Millisecond
	maxSlack = 2 << 20
	// maxSlacks is how much all windows of a session may have grown for that, so that
	// readers which stall after they kept up hold little.
	maxSlacks = 3 << 20
	// pauseTime is how long a window takes to be read at least where the sender or the
	// reader has paused.
	pauseTime = 20 * time.Millisecond
)

// growth is what is used of a session's maxWindows.
type growth struct {
	budget *Budget // of the process: while much of it is used, nothing grows
	used   atomic.Int64
}

// claim takes n bytes more, or gives back -n. It reports whether it did.
func (g *growth) claim(n int64) bool {
	if g.used.Add(n) > maxWindows && n > 0 {
		g.used.Add(-n)
		return false
	}
	return true
}

// window is how much the peer may send on a stream. It follows the path: what
// the reader takes within the shortest round trip, and a little more. So one
// stream fills a long path, and the queue that makes others wait stays short;
// and a reader that takes nothing is granted nothing.
type window struct {
	growth *growth
	trip   *atomic.Int64 // the shortest round trip in nanoseconds
	size   int           // of the window
	credit int           // what the peer may still send

	since    time.Time // when the measuring of what is read began
	taken    int       // was read since then
	flow     int       // what was read within a round trip, when last measured
	before   int       // size at that time
	starting bool      // it is not known yet what the path holds
}

func (w *window) init(s *session) {
	w.growth, w.trip = &s.growth, &s.life.shortest
	w.size, w.credit, w.before, w.starting = initialWindow, initialWindow, initialWindow, true
}

// expects reports whether the peer may send n bytes.
func (w *window) expects(n uint32) bool { return int64(n) <= int64(w.credit) }

// arrived takes n bytes off. They were expected.
func (w *window) arrived(n int) { w.credit -= n }

// read notes that n bytes were read and unread bytes wait. It returns how many
// more the peer is to be granted.
func (w *window) read(n, unread int) (grant uint32) {
	if n == 0 {
		return 0
	}
	w.taken += n
	trip := time.Duration(w.trip.Load())
	if w.starting && trip > 0 && !w.since.IsZero() {
		w.resize(w.size + n) // so it doubles with each round trip
	}
	step := w.size / 2
	if trip > longTrip {
		step = w.size / 16 // what is granted late is missing on the way
	}
	if w.size-w.credit-unread < step {
		return 0
	}
	w.measure(time.Now())
	if n := w.size - w.credit - unread; n > 0 {
		w.credit += n
		return uint32(n)
	}
	return 0
}

// measure sets the size to what the path holds, each time that a round trip has
// passed: what was read within the shortest one, and a fifth more, which shows
// when the path could carry more.
func (w *window) measure(now time.Time) {
	trip := time.Duration(w.trip.Load())
	if w.since.IsZero() || trip == 0 {
		w.since, w.taken = now, 0
		return
	}
	passed := now.Sub(w.since)
	if passed < trip {
		return
	}
	rate := float64(w.taken) / float64(passed)
	flow, last, before := int(rate*float64(trip)), w.flow, w.before
	w.since, w.taken, w.flow, w.before = now, 0, flow, w.size
	size := max(flow*6/5, w.slack(rate))
	paused := passed > max(4*trip, pauseTime)
	switch {
	case paused:
		w.starting = true
		size = max(size, w.size/2)
	case w.starting && flow > last*5/4:
		return
	case flow > before*7/8: // the window was the limit, not the path
		size = max(flow*2, w.size)
	}
	w.starting = paused
	w.resize(size)
}

// slack is the size that lasts for slack at rate, in bytes a nanosecond.
func (w *window) slack(rate float64) int {
	left := maxSlacks - int(w.growth.used.Load())
	return min(int(rate*float64(slack)), maxSlack, w.size+max(left, 0))
}

func (w *window) resize(size int) {
	size = min(max(size, initialWindow), maxWindow)
	if w.growth.budget.tight() {
		size = initialWindow
	}
	if w.growth.claim(int64(size - w.size)) {
		w.size = size
	}
}

// close gives back what the window had beyond its first size. Nothing is granted
// after it.
func (w *window) close() {
	w.growth.claim(int64(initialWindow - w.size))
	w.size = initialWindow
}
