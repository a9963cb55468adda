package capsule

import (
	"io"
	"sync"
	"sync/atomic"
)

// maxQueued is what a Queue holds at most, in bytes, beside what it is just writing,
// which is as much: some 80 datagrams of 1,500 bytes, or one of any size.
const maxQueued = 128 << 10

// keptSize is the buffer that a Queue keeps while it is empty, in bytes.
const keptSize = 2 << 10

// Budget is what several queues may hold together. The zero value is nothing; a nil
// one is no bound.
type Budget struct {
	Max int64 // in bytes
	// Parent bounds what is held beyond Own, with others of its. Nil: nothing does.
	// Without Own, who uses all of Parent up would leave nothing to the others.
	Parent *Budget
	Own    int64 // in bytes
	used   atomic.Int64
}

func (b *Budget) take(n int64) bool {
	if b == nil {
		return true
	}
	used := b.used.Add(n)
	if used > b.Max || !b.Parent.take(b.shared(used)-b.shared(used-n)) {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *Budget) give(n int64) {
	if b == nil {
		return
	}
	left := b.used.Add(-n)
	b.Parent.give(b.shared(left+n) - b.shared(left))
}

// shared is the part of used that Parent bounds.
func (b *Budget) shared(used int64) int64 { return max(0, used-b.Own) }

// Used is how much is held, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

// Queue holds datagrams until a stream takes them, in their order, so that who
// brings them need not wait. What does not fit is refused, as a full socket buffer
// drops what comes last. Make it with [NewQueue]. One goroutine calls Run; the other
// methods may be called from many.
type Queue struct {
	budget *Budget
	wake   chan struct{} // has one element where there may be work

	mu     sync.Mutex // guards the following
	queued []byte     // capsules
	n      int        // how many
	closed bool
}

// NewQueue returns an empty queue, which holds 256 KiB at most, and with the others of
// budget no more than that has.
func NewQueue(budget *Budget) *Queue {
	return &Queue{budget: budget, wake: make(chan struct{}, 1)}
}

// Put queues a datagram, of [MaxPayload] bytes at most, and reports whether there was
// room. It keeps nothing of payload.
func (q *Queue) Put(payload []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(payload) + maxHeader
	if q.closed || len(q.queued)+n > maxQueued || !q.budget.take(int64(n)) {
		return false
	}
	before := len(q.queued)
	q.queued = Append(q.queued, payload)
	q.n++
	q.budget.give(int64(n - (len(q.queued) - before)))
	if before == 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// Run writes to w what comes, several datagrams at once where they wait, until the
// queue is closed or w fails, whose error it returns. The queue is closed then.
func (q *Queue) Run(w io.Writer) error {
	var spare []byte
	for range q.wake {
		batch := q.swap(spare)
		if len(batch) > 0 {
			_, err := w.Write(batch)
			q.budget.give(int64(len(batch)))
			if err != nil {
				q.Close()
				return err
			}
		}
		spare = q.settle(batch)
	}
	return nil
}

// swap takes what is queued, and leaves spare in its place.
func (q *Queue) swap(spare []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.queued
	q.queued, q.n = spare, 0
	return batch
}

// settle returns the buffer of what was written, to be used again, unless nothing
// waits: then large ones are let go.
func (q *Queue) settle(batch []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queued) == 0 {
		if cap(q.queued) > keptSize {
			q.queued = nil
		}
		if cap(batch) > keptSize {
			return nil
		}
	}
	return batch[:0]
}

// Close refuses all that comes, drops what waits, and returns how many datagrams that
// were. A Run that does not wait for its writer returns.
func (q *Queue) Close() (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0
	}
	q.closed = true
	q.budget.give(int64(len(q.queued)))
	dropped = q.n
	q.queued, q.n = nil, 0
	close(q.wake)
	return dropped
}
