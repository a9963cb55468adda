package mux

import (
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// batch is how many bytes of frames are gathered for one write.
	batch = 64 << 10
	// maxAnswers is how many streams may be accepted or refused, and windows granted,
	// while nothing can be sent. A peer that asks for more and does not read is
	// hostile.
	maxAnswers = 16 << 10
	// maxPongs is how many pings are answered in one write; the rest of a flood is
	// left unanswered.
	maxPongs = 64

	// writeTimeout ends a session whose connection takes no bytes, though some may
	// go on to arrive. It is long enough for a batch on a link of 1.5 kB/s.
	writeTimeout = 60 * time.Second
	// writeSlack is by how much writeTimeout may be shorter: the deadline is set
	// anew only once this much of it has passed.
	writeSlack = 15 * time.Second
)

var errFlood = errors.New("the peer asks for more answers than it takes")

// batches are buffers for queues. A session has one only while it sends.
var batches = sync.Pool{New: func() any { return new([batch]byte) }}

// outbox gathers the frames that a session sends, so that many go out in one
// write. Whoever puts a frame there and finds nobody who sends starts flush, a
// goroutine that ends when there is nothing more to send. A Write to a socket
// sends itself, as far as there is no waiting (flushHere).
//
// Small writes go to the queue at once and so pass by bulk, which waits in its
// streams until the connection takes it: then each stream in line gives one
// frame in turn.
type outbox struct {
	conn   net.Conn
	direct *direct     // nil: conn is no socket
	fail   func(error) // ends the session

	mu       sync.Mutex // guards the following, and the sending side of streams
	queue    []byte     // frames; batch bytes, and beyond that those without payload
	pongs    int        // of them in the queue
	answers  int        // to what the peer opened and sent, of them in the queue
	line     []*stream  // streams that have something to send, and may
	flushing bool
	err      error // why the session ended

	due time.Time // when flush is to set the write deadline anew
}

// put adds a frame without payload. It returns at once.
func (o *outbox) put(h header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.append(h)
}

// append is put under mu.
func (o *outbox) append(h header) {
	if o.err == nil {
		o.queue = appendHeader(o.buffer(), h)
		o.start()
	}
}

// answer is put for what the peer alone decides the number of.
func (o *outbox) answer(h header) {
	o.mu.Lock()
	o.append(h)
	o.answers++
	flood := o.answers > maxAnswers
	o.mu.Unlock()
	if flood {
		o.fail(errFlood)
	}
}

// pong answers a ping.
func (o *outbox) pong(n uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pongs < maxPongs {
		o.pongs++
		o.append(header{kind: typePing, flags: flagACK, length: n})
	}
}

// buffer returns the queue, with memory behind it.
func (o *outbox) buffer() []byte {
	if o.queue == nil {
		return batches.Get().(*[batch]byte)[:0]
	}
	return o.queue
}

// release gives a queue's memory back.
func release(queue []byte) {
	if cap(queue) == batch {
		batches.Put((*[batch]byte)(queue[:batch]))
	}
}

// start sees to it that what is there is sent.
func (o *outbox) start() {
	if o.waits() {
		o.flushing = true
		go o.flush()
	}
}

// waits reports whether there is something to send, and nobody who does.
func (o *outbox) waits() bool {
	return !o.flushing && o.err == nil && (len(o.queue) > 0 || len(o.line) > 0)
}

// enlist puts st in line, where it has something to send and may.
func (o *outbox) enlist(st *stream) {
	if st.inLine || !st.sendable() {
		return
	}
	if len(o.line) == cap(o.line) { // before it grows: of those that were reset, none is kept
		o.line = slices.DeleteFunc(o.line, func(st *stream) bool {
			st.inLine = st.sendable()
			return !st.inLine
		})
	}
	st.inLine, st.turn = true, maxFrame-headerSize
	o.line = append(o.line, st)
}

// fill moves what streams have to send into the queue.
func (o *outbox) fill() {
	for len(o.line) > 0 && batch-len(o.queue) >= 2*headerSize {
		st := o.line[0]
		if st.sendable() {
			o.queue = st.take(o.buffer())
			if st.turn > 0 && st.sendable() {
				break // the batch is full: its turn goes on in the next
			}
		}
		o.line[0] = nil
		if o.line = o.line[1:]; len(o.line) == 0 {
			o.line = nil
		}
		st.inLine = false
		o.enlist(st)
	}
}

// flush sends until there is nothing more.
func (o *outbox) flush() {
	for {
		// Whoever is about to write, too, may join in.
		runtime.Gosched()
		queue := o.next()
		if queue == nil {
			return
		}
		o.write(queue)
		release(queue)
	}
}

// flushHere is start on the caller's goroutine, as far as there is no waiting.
// It spares what is written the way over another one. It is called under mu,
// which it gives away meanwhile.
func (o *outbox) flushHere() {
	if o.direct == nil {
		o.start()
		return
	}
	if !o.waits() {
		return
	}
	o.flushing = true
	o.mu.Unlock()
	sent := o.try()
	o.mu.Lock()
	if sent {
		o.flushing = false
		o.start()
	}
}

// try sends one batch. It reports whether the socket took all of it, and the
// caller is still the one who sends: if not, it is another goroutine, or was when
// there was nothing to send.
func (o *outbox) try() bool {
	runtime.Gosched()
	queue := o.next()
	if queue == nil {
		return false // next has given flushing away
	}
	n := o.direct.try(queue)
	if n == len(queue) {
		release(queue)
		return true
	}
	go func() {
		o.write(queue[n:])
		release(queue)
		o.flush()
	}()
	return false
}

func (o *outbox) write(b []byte) {
	if now := time.Now(); now.After(o.due) {
		o.conn.SetWriteDeadline(now.Add(writeTimeout))
		o.due = now.Add(writeSlack)
	}
	n, err := o.conn.Write(b)
	if n < len(b) && err == nil {
		err = io.ErrShortWrite // what follows would be taken for something else
	}
	if err != nil {
		o.fail(err)
	}
}

// next returns what is to be written now; nil ends flush.
func (o *outbox) next() (queue []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fill()
	queue, o.queue, o.pongs, o.answers = o.queue, nil, 0, 0
	if o.err != nil {
		release(queue)
		queue = nil
	}
	o.flushing = queue != nil
	return queue
}

// close ends the sending of everything. What is under way on streams fails with
// err.
func (o *outbox) close(err error, streams []*stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	o.line = nil
	for _, st := range streams {
		st.written.Signal()
	}
}
