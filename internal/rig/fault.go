package rig

import "time"

// A Direction is one of a path's two.
type Direction int

// There leads from who connects to the target, Back the other way.
const (
	There Direction = iota
	Back
)

// A Break is a way for a connection to end.
type Break int

const (
	// Reset ends both directions with a reset, as a process that was killed or a router that lost its
	// memory.
	Reset Break = iota
	// Finish ends both directions in order, in the middle of whatever passes.
	Finish
	// HalfClose ends the one direction in order; the other goes on.
	HalfClose
)

// cut is a break to come.
type cut struct {
	left int64 // bytes that pass before it
	how  Break
	done chan struct{} // closed when it happened
}

func (p *Path) link(d Direction) *link {
	if d == Back {
		return p.back
	}
	return p.there
}

// Silence makes one direction deliver nothing more, as if each packet was dropped, or deliver again.
// Nothing is lost by it, as TCP sends again what did not arrive. Those that connect meanwhile are
// accepted, and hear nothing.
func (p *Path) Silence(d Direction, on bool) {
	l := p.link(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = on
	l.change.Broadcast()
}

// Slow sets the delay of one way and the bytes a second, from now on.
func (p *Path) Slow(delay time.Duration, rate int) {
	for _, l := range []*link{p.there, p.back} {
		l.mu.Lock()
		l.delay, l.rate = delay, rate
		l.room = bytesIn(delay, rate) + 2*l.queue
		l.change.Broadcast()
		l.mu.Unlock()
	}
}

// Cut resets the connections that are open.
func (p *Path) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.pairs {
		one.close(true)
	}
}

// CutAfter breaks the connection that carries the n-th byte from now on in a direction, when that
// byte has arrived; the ones after it do not. The channel is closed when it has happened. A later call
// takes the place of an earlier one that has not happened.
func (p *Path) CutAfter(d Direction, n int64, how Break) <-chan struct{} {
	l := p.link(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = &cut{left: n, how: how, done: make(chan struct{})}
	return l.cut.done
}

// Open is how many connections are open over the path.
func (p *Path) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// allow returns how many of the next n bytes of f may pass. It may be f that is to be cut.
func (l *link) allow(f *flow, n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == nil || n == 0 {
		return n
	}
	if l.cut.left > int64(n) {
		l.cut.left -= int64(n)
		return n
	}
	n = int(l.cut.left)
	f.cut, l.cut = l.cut, nil
	return n
}
