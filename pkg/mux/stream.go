package mux

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// linger is how long a stream that was closed before its end was read may be
// written to by the peer, before it is reset. TCP resets at once; a peer that
// reads our end and ends its own side within this time sees no error.
const linger = 2 * time.Second

// stream is a Stream. Each direction has a lock of its own: the sending side is
// the outbox's, which all streams share.
type stream struct {
	session    *session
	id         uint32
	unaccepted atomic.Bool  // it was opened here, and holds a place
	ended      atomic.Int32 // directions

	writing sync.Mutex // held by Write
	reading sync.Mutex // held by Read

	// The sending side is guarded by session.out.mu.
	credit    uint32 // bytes that may be sent
	rest      []byte // of the Write under way
	syn       bool   // its opening is to be sent
	inLine    bool
	turn      int   // bytes that may be sent before the next in line
	writeErr  error // why nothing can be written any more
	written   sync.Cond
	writeTime deadline

	mu       sync.Mutex // guards the receiving side: what follows
	in       inbox
	into     []byte // of the Read that waits
	got      int    // bytes that it was given
	fin      bool   // the peer's end has arrived
	closed   bool   // Close was called
	readErr  error  // why nothing more will arrive
	readable sync.Cond
	readTime deadline
	window   window
	onAbort  map[*func()]struct{}
	aborted  bool // by the peer, or with the session
}

func newStream(s *session, id uint32) *stream {
	st := &stream{session: s, id: id, credit: initialWindow}
	st.window.init(s)
	st.written.L = &s.out.mu
	st.readable.L = &st.mu
	return st
}

// begin sends the stream's opening.
func (st *stream) begin() {
	o := &st.session.out
	o.mu.Lock()
	defer o.mu.Unlock()
	st.syn = true
	o.enlist(st)
	o.start()
}

// place gives back the place that an opened stream holds until the peer takes it.
func (st *stream) place() {
	if st.unaccepted.CompareAndSwap(true, false) {
		<-st.session.places
	}
}

// end is called once for each direction.
func (st *stream) end() {
	if st.ended.Add(1) == 2 {
		st.session.forget(st)
	}
}

func (st *stream) LocalAddr() net.Addr { return st.session.conn.LocalAddr() }

func (st *stream) RemoteAddr() net.Addr { return st.session.conn.RemoteAddr() }

// Read hands what waits to b, or waits for the session to put into b what
// arrives.
func (st *stream) Read(b []byte) (int, error) {
	st.reading.Lock()
	defer st.reading.Unlock()
	st.mu.Lock()
	n, err := st.read(b)
	var credit uint32
	if !st.closed && !st.over() {
		credit = st.window.read(n, st.in.size)
	} else if st.in.size == 0 {
		st.settle()
	}
	st.mu.Unlock()
	if credit > 0 {
		st.session.out.answer(header{kind: typeWindow, id: st.id, length: credit})
	}
	return n, err
}

// over reports whether nothing more will arrive.
func (st *stream) over() bool { return st.fin || st.readErr != nil }

func (st *stream) read(b []byte) (int, error) {
	for {
		switch {
		case st.closed:
			return 0, net.ErrClosed
		case st.readTime.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0 && st.readErr == nil:
			return 0, nil
		case st.in.size > 0:
			n, gave := st.in.read(b)
			st.session.share.hold(st, -gave)
			return n, nil
		case st.fin:
			return 0, io.EOF
		case st.readErr != nil:
			return 0, st.readErr
		}
		st.into = b
		st.readable.Wait()
		st.into = nil
		if n := st.got; n > 0 {
			st.got = 0
			return n, nil
		}
	}
}

// expects reports whether the peer may send n bytes.
func (st *stream) expects(n uint32) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.window.expects(n)
}

// deliver takes what arrived.
func (st *stream) deliver(b []byte) {
	if st.keep(b) {
		st.session.share.budget.shed()
	}
}

// keep is deliver under mu. It reports whether shed is called for.
func (st *stream) keep(b []byte) (over bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.window.arrived(len(b))
	if st.closed || st.over() {
		return false
	}
	if st.into != nil {
		st.got = copy(st.into, b)
		st.into = nil
		b = b[st.got:]
		st.readable.Signal()
	}
	return st.session.share.hold(st, st.in.write(b))
}

// settle is called under mu when nothing more will arrive, and again when nothing
// is left to be read.
func (st *stream) settle() {
	st.window.close()
	if st.in.listed && st.in.blocks == 0 {
		st.in.listed = false
		st.session.share.unlist(st)
	}
}

// drop throws away what arrived.
func (st *stream) drop() { st.session.share.hold(st, -st.in.drop()) }

// wasEnded takes the peer's end.
func (st *stream) wasEnded() {
	st.mu.Lock()
	first := !st.over()
	st.fin = st.fin || first
	if st.in.size == 0 {
		st.settle()
	}
	st.readable.Signal()
	st.mu.Unlock()
	if first {
		st.end()
	}
}

// abort ends both directions with err: the peer's reset, or the session's end.
// What arrived whole before it is still read.
func (st *stream) abort(err error) {
	st.stopWriting(err)
	st.mu.Lock()
	if !st.over() {
		st.readErr = err
		if err == ErrReset {
			st.drop()
		}
		st.settle()
		defer st.end()
	}
	st.tellAborted()
	st.readable.Signal()
	st.mu.Unlock()
}

// whole reports whether all of it arrived.
func (st *stream) whole() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.fin
}

// tellAborted calls what OnAbort was given. It is called under mu.
func (st *stream) tellAborted() {
	for f := range st.onAbort {
		go (*f)()
	}
	st.onAbort, st.aborted = nil, true
}

func (st *stream) Reset() error {
	st.mu.Lock()
	st.onAbort = nil // they are told of what was not done here
	ended := st.stopReading(ErrReset)
	st.mu.Unlock()
	st.cut(ErrReset)
	if !ended {
		st.end()
	}
	return nil
}

// evict resets the stream for what it holds, where that is more than it is spared.
// Whoever uses it is told as of the peer's reset.
func (st *stream) evict() bool {
	st.mu.Lock()
	if st.in.blocks*blockSize <= spared {
		st.mu.Unlock()
		return false
	}
	st.tellAborted()
	ended := st.stopReading(ErrOverBudget)
	st.mu.Unlock()
	st.cut(ErrOverBudget)
	if !ended {
		st.end()
	}
	return true
}

// stopReading ends the receiving side with err: what was not read never will be, and
// so an end that has arrived is none. It is called under mu, and reports whether
// the side had ended before.
func (st *stream) stopReading(err error) (ended bool) {
	ended = st.over()
	if st.readErr == nil {
		st.readErr = err
	}
	st.fin = false
	st.drop()
	st.settle()
	st.readable.Signal()
	return ended
}

// OnAbort is documented with [Stream].
func (st *stream) OnAbort(f func()) (stop func() bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.aborted {
		go f()
		return func() bool { return false }
	}
	if st.onAbort == nil {
		st.onAbort = make(map[*func()]struct{})
	}
	st.onAbort[&f] = struct{}{}
	return func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		_, waiting := st.onAbort[&f]
		delete(st.onAbort, &f)
		return waiting
	}
}

// Close ends the writing side and gives up the reading side: what the peer
// sent is thrown away, and after linger it gets an error.
func (st *stream) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	st.drop()
	st.settle()
	st.readTime.stop()
	ended := st.over()
	st.readable.Signal()
	st.mu.Unlock()

	st.CloseWrite()
	if !ended {
		time.AfterFunc(linger, func() { st.Reset() })
	}
	return nil
}

func (st *stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return net.ErrClosed
	}
	st.readTime.set(t, &st.readable)
	return nil
}

func (st *stream) SetDeadline(t time.Time) error {
	if err := st.SetReadDeadline(t); err != nil {
		return err
	}
	return st.SetWriteDeadline(t)
}

// deadline is guarded by the lock of the Cond that it is set with.
type deadline struct {
	passed bool
	timer  *time.Timer
}

func (d *deadline) set(t time.Time, wake *sync.Cond) {
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		wake.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		wake.L.Lock()
		defer wake.L.Unlock()
		if d.timer == timer { // or it was set anew meanwhile
			d.passed = true
			wake.Broadcast()
		}
	})
	d.timer = timer
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
