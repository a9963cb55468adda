package rig

import (
	"sync"
	"time"
)

// A link is one direction of a path. Chunks wait in their flow's queue for their turn, take the time
// that the rate gives them, and are due one delay later.
type link struct {
	delay time.Duration
	rate  int           // bytes a second
	burst time.Duration // how much unused time is made up for
	queue int           // bytes of one flow that may wait for their turn
	room  int           // bytes of one flow that may be anywhere in the link

	mu     sync.Mutex
	change *sync.Cond // for all that follows, which mu guards
	turns  []*flow    // with waiting chunks, the next one first
	closed bool
	silent bool // nobody gets a turn
	cut    *cut // what is to happen to a flow
	ended  chan struct{}
}

// A flow is one connection's direction.
type flow struct {
	waiting    []*chunk // for their turn
	travelling []*chunk // that had it, in the order in which they are due
	queued     int      // bytes in waiting
	held       int      // bytes that were taken and have not arrived
	closing    bool     // no more will come
	clean      bool     // because that was the end
	gone       bool     // the receiver broke off
	cut        *cut     // what happened to it; not guarded, its sender's
}

// A chunk is some bytes on their way.
type chunk struct {
	data []byte
	due  time.Time
}

// newLink makes a link. Call close in the end.
func newLink(delay time.Duration, rate int) *link {
	const burst = 2 * time.Millisecond
	queue := max(queueMin, bytesIn(burst, rate))
	l := &link{
		delay: delay, rate: rate, burst: burst, queue: queue,
		room: bytesIn(delay, rate) + 2*queue, ended: make(chan struct{}),
	}
	l.change = sync.NewCond(&l.mu)
	go l.schedule()
	return l
}

// bytesIn is how many bytes rate lets through in d.
func bytesIn(d time.Duration, rate int) int {
	return int(d.Seconds() * float64(rate))
}

// close stops the link; what is under way is lost.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.change.Broadcast()
	l.mu.Unlock()
	<-l.ended
}

func (l *link) join() *flow { return &flow{} }

// send puts data into f's queue as soon as there is room; false where nobody receives any more.
func (l *link) send(f *flow, data []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && !f.gone && (f.queued >= l.queue || f.held >= l.room) {
		l.change.Wait()
	}
	if l.closed || f.gone {
		return false
	}
	if len(f.waiting) == 0 {
		l.turns = append(l.turns, f)
	}
	f.waiting = append(f.waiting, &chunk{data: data})
	f.queued += len(data)
	f.held += len(data)
	l.change.Broadcast()
	return true
}

// end says that no more comes on f; clean where the sender ended it in order.
func (l *link) end(f *flow, clean bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.closing, f.clean = true, clean
	l.change.Broadcast()
}

// leave says that f's receiver takes no more.
func (l *link) leave(f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.gone = true
	l.change.Broadcast()
}

// next is f's next chunk, which may not be due yet; nil at the end.
func (l *link) next(f *flow) (c *chunk, clean bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(f.travelling) == 0 {
		if l.closed || f.gone || f.closing && (!f.clean || len(f.waiting) == 0) {
			return nil, f.clean && !l.closed && !f.gone
		}
		l.change.Wait()
	}
	c = f.travelling[0]
	f.travelling = f.travelling[1:]
	return c, true
}

// arrived makes room for n more bytes of f.
func (l *link) arrived(f *flow, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.held -= n
	l.change.Broadcast()
}

// schedule gives the flows their turns, one chunk each, no faster than the rate. It runs until close.
func (l *link) schedule() {
	defer close(l.ended)
	free := time.Now() // when the link will have sent all that had its turn
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		if len(l.turns) == 0 || l.silent {
			l.change.Wait()
			continue
		}
		now := time.Now()
		if ahead := free.Sub(now); ahead > time.Millisecond {
			l.mu.Unlock()
			time.Sleep(ahead)
			l.mu.Lock()
			continue
		}
		if earliest := now.Add(-l.burst); free.Before(earliest) {
			free = earliest
		}
		free = l.turn(free, now)
	}
}

// turn sends the next chunk, from the moment free on, and gives the moment at which it was sent.
func (l *link) turn(free, now time.Time) time.Time {
	f := l.turns[0]
	l.turns = l.turns[1:]
	c := f.waiting[0]
	f.waiting = f.waiting[1:]
	f.queued -= len(c.data)
	if len(f.waiting) > 0 {
		l.turns = append(l.turns, f)
	}
	free = free.Add(time.Duration(float64(len(c.data)) / float64(l.rate) * float64(time.Second)))
	c.due = free
	if c.due.Before(now) {
		c.due = now
	}
	c.due = c.due.Add(l.delay)
	f.travelling = append(f.travelling, c)
	l.change.Broadcast()
	return free
}
