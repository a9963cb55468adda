package mux

import (
	"math"
	"net"
	"os"
	"time"
)

// Write returns when the last byte of b is on its way, or is queued to be.
func (st *stream) Write(b []byte) (int, error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	o := &st.session.out
	o.mu.Lock()
	defer o.mu.Unlock()
	err := st.unwritable()
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if !st.syn && len(b) <= maxFrame-headerSize && len(b) <= int(st.credit) && len(b)+headerSize <= batch-len(o.queue) {
		o.queue = appendHeader(o.buffer(), header{kind: typeData, id: st.id, length: uint32(len(b))})
		o.queue = append(o.queue, b...)
		st.credit -= uint32(len(b))
	} else {
		st.rest = b
		o.enlist(st)
	}
	o.flushHere()
	for len(st.rest) > 0 {
		if err = st.unwritable(); err != nil {
			break
		}
		st.written.Wait()
	}
	n := len(b) - len(st.rest)
	st.rest = nil
	return n, err
}

// unwritable says why nothing can be written.
func (st *stream) unwritable() error {
	if st.writeErr != nil {
		return st.writeErr
	}
	if err := st.session.out.err; err != nil {
		return err // and st is about to have it, too
	}
	if st.writeTime.passed {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// sendable reports whether take would send something.
func (st *stream) sendable() bool {
	return st.writeErr == nil && (st.syn || len(st.rest) > 0 && st.credit > 0)
}

// take appends one frame of what the stream has to send to queue.
func (st *stream) take(queue []byte) []byte {
	n := min(len(st.rest), int(st.credit), st.turn, batch-headerSize-len(queue))
	h := header{kind: typeData, id: st.id, flags: st.opening(), length: uint32(n)}
	if n == 0 {
		h.kind = typeWindow
	}
	queue = append(appendHeader(queue, h), st.rest[:n]...)
	st.credit -= uint32(n)
	st.turn -= n
	if st.rest = st.rest[n:]; n > 0 && len(st.rest) == 0 {
		st.written.Signal()
	}
	return queue
}

// opening returns the flag that opens the stream, once.
func (st *stream) opening() (flag uint16) {
	if st.syn {
		flag = flagSYN
	}
	st.syn = false
	return flag
}

// grant takes the peer's leave to send more.
func (st *stream) grant(n uint32) {
	if n == 0 {
		return
	}
	o := &st.session.out
	o.mu.Lock()
	defer o.mu.Unlock()
	// Nobody grants 2 GiB, and more would not be an int everywhere.
	st.credit = uint32(min(uint64(st.credit)+uint64(n), math.MaxInt32))
	o.enlist(st)
	o.start()
}

func (st *stream) CloseWrite() error {
	o := &st.session.out
	o.mu.Lock()
	if st.writeErr != nil {
		defer o.mu.Unlock()
		if st.writeErr == net.ErrClosed {
			return nil
		}
		return st.writeErr
	}
	o.append(header{kind: typeWindow, flags: flagFIN | st.opening(), id: st.id})
	st.shut(net.ErrClosed)
	o.mu.Unlock()
	st.end()
	return nil
}

// stopWriting ends the sending side with err: what was not sent never will be.
func (st *stream) stopWriting(err error) {
	o := &st.session.out
	o.mu.Lock()
	first := st.writeErr == nil
	if first {
		st.shut(err)
	}
	o.mu.Unlock()
	if first {
		st.end()
	}
}

// cut is stopWriting, and tells the peer of the abort.
func (st *stream) cut(err error) {
	o := &st.session.out
	o.mu.Lock()
	if !st.syn && st.ended.Load() < 2 {
		o.append(header{kind: typeWindow, flags: flagRST, id: st.id})
	}
	o.mu.Unlock()
	st.stopWriting(err)
}

// shut ends the sending side with err.
func (st *stream) shut(err error) {
	st.writeErr = err
	st.syn = false
	st.writeTime.stop()
	st.written.Signal()
}

func (st *stream) SetWriteDeadline(t time.Time) error {
	o := &st.session.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if st.writeErr == nil { // or nobody would stop the timer
		st.writeTime.set(t, &st.written)
	}
	return nil
}
