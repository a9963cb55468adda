package mux

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pingTimeout is how long an answer to a ping may take.
	pingTimeout = time.Minute
	// measureEvery is how often a ping is sent though the peer is not silent.
	measureEvery = time.Minute
	// forgetTrip is how long the shortest round trip counts, and up to twice that. A path changes, and
	// pings that wait behind bulk are slow.
	forgetTrip = 5 * time.Minute
)

// life sends pings, measures round trips and gives a silent peer up. A timer
// does it rather than a goroutine: there are many sessions, and most are idle.
type life struct {
	session   *session
	interval  time.Duration // between pings; 0: none
	deadAfter time.Duration
	start     time.Time
	last      atomic.Int64 // when something arrived, in nanoseconds since start
	shortest  atomic.Int64 // round trip in nanoseconds; 0: not known yet

	mu     sync.Mutex // guards the following
	timer  *time.Timer
	pinged time.Duration    // when the last ping was sent, since start
	id     uint32           // of the ping that was sent last
	own    uint32           // of the last one that nobody waits for
	asked  map[uint32]asked // nil: none, as it is most of the time
	trips  [2]time.Duration // the shortest of this period and of the one before
	period time.Duration    // when the next one begins, since start
	over   bool
}

// asked is a ping without an answer yet.
type asked struct {
	at     time.Time
	answer chan<- time.Duration // nil: nobody waits for it
}

func (l *life) begin(c Config) {
	l.start = time.Now()
	l.deadAfter = c.DeadAfter
	l.period = forgetTrip
	l.ask(nil)
	if c.KeepAlive <= 0 {
		return
	}
	// At random, lest many sessions ping in step.
	l.interval = c.KeepAlive - rand.N(c.KeepAlive/5+1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.timer = time.AfterFunc(min(l.interval, l.deadAfter), l.tick)
}

// seen is called when something arrived. It returns how long nothing had.
func (l *life) seen() time.Duration {
	now := int64(time.Since(l.start))
	return time.Duration(now - l.last.Swap(now))
}

// idle is how long nothing has arrived.
func (l *life) idle() time.Duration {
	return time.Since(l.start) - time.Duration(l.last.Load())
}

func (l *life) tick() {
	idle := l.idle()
	if idle >= l.deadAfter {
		l.session.end(fmt.Errorf("%w for %v", ErrSilent, l.deadAfter))
		return
	}
	now := time.Since(l.start)
	l.mu.Lock()
	// The peer's ping is as good as ours, but for measuring.
	next := min(max(l.pinged, now-idle)+l.interval, l.pinged+measureEvery)
	due := now >= next
	if due {
		l.pinged, next = now, now+l.interval
	}
	if !l.over {
		l.timer.Reset(min(next-now, l.deadAfter-idle))
	}
	l.mu.Unlock()
	if due {
		l.ask(nil)
	}
}

// ask sends a ping.
func (l *life) ask(answer chan<- time.Duration) (id uint32) {
	l.mu.Lock()
	l.id++
	id = l.id
	if answer == nil {
		delete(l.asked, l.own) // or those that are never answered would pile up
		l.own = id
	}
	if l.asked == nil {
		l.asked = make(map[uint32]asked)
	}
	l.asked[id] = asked{time.Now(), answer}
	l.mu.Unlock()
	l.session.out.put(header{kind: typePing, flags: flagSYN, length: id})
	return id
}

// answered takes the answer to a ping.
func (l *life) answered(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.asked[id]
	if !ok {
		return
	}
	if delete(l.asked, id); len(l.asked) == 0 {
		l.asked = nil
	}
	trip := time.Since(p.at)
	l.measured(trip)
	if p.answer != nil {
		p.answer <- trip
	}
}

// measured keeps the shortest of the last round trips.
func (l *life) measured(trip time.Duration) {
	if now := time.Since(l.start); now >= l.period {
		l.period = now + forgetTrip
		l.trips[0], l.trips[1] = 0, l.trips[0]
	}
	shorter := func(a, b time.Duration) time.Duration {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	l.trips[0] = shorter(l.trips[0], trip)
	l.shortest.Store(int64(shorter(l.trips[0], l.trips[1])))
}

func (l *life) ping(ctx context.Context) (time.Duration, error) {
	if err := l.session.Err(); err != nil {
		return 0, err
	}
	answer := make(chan time.Duration, 1)
	id := l.ask(answer)
	timeout := time.NewTimer(pingTimeout)
	defer timeout.Stop()
	var err error
	select {
	case trip := <-answer:
		return trip, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = os.ErrDeadlineExceeded
	case <-l.session.done:
		err = l.session.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.asked, id)
	return 0, err
}

func (l *life) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop() // or it keeps the dead session in memory
	}
}

// abandon makes the closing of conn a reset. Where packets are lost in one direction
// only, a silent peer hears us: it would not get the end that stands behind what was
// not acknowledged (R8).
func abandon(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case interface{ SetLinger(seconds int) error }:
			c.SetLinger(0)
			return
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return
		}
	}
}
