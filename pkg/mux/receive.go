package mux

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// idleRead is the size of the read buffer that an idle session keeps.
	idleRead = 512
	// busyRead is its size while more than that arrives at once.
	busyRead = 64 << 10
	// calm is after how many reads that idleRead had sufficed for the large buffer
	// is given back; or one, after a pause.
	calm  = 64
	pause = time.Second
)

var reads = sync.Pool{New: func() any { return new([busyRead]byte) }}

// reader is the buffer between a session's connection and its frames.
type reader struct {
	src    io.Reader
	seen   func() time.Duration // something arrived; for so long, nothing had
	buf    []byte
	unread []byte // a part of buf
	small  []byte
	calm   int // reads since one was larger than small
}

// more reads once, and at least one byte. What is unread stays.
func (r *reader) more() error {
	if len(r.unread) == len(r.buf) || r.buf == nil {
		return io.ErrShortBuffer // not with frames' headers, which are shorter
	}
	n := copy(r.buf, r.unread)
	k, err := r.src.Read(r.buf[n:])
	r.unread = r.buf[:n+k]
	if k == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	r.resize(k, r.seen())
	return nil // an error comes again
}

// resize follows the traffic with the size of the buffer.
func (r *reader) resize(read int, idle time.Duration) {
	switch {
	case len(r.buf) == idleRead:
		if len(r.unread) == idleRead {
			r.buf = reads.Get().(*[busyRead]byte)[:]
			r.unread = r.buf[:copy(r.buf, r.unread)]
			r.calm = 0
		}
	case read >= idleRead:
		r.calm = 0
	default:
		if r.calm++; (r.calm >= calm || idle >= pause) && len(r.unread) < idleRead {
			busy := r.buf
			r.buf = r.small
			r.unread = r.buf[:copy(r.buf, r.unread)]
			reads.Put((*[busyRead]byte)(busy))
		}
	}
}

func (r *reader) release() {
	if len(r.buf) == busyRead {
		reads.Put((*[busyRead]byte)(r.buf))
	}
	r.buf, r.unread = nil, nil
}

// receive takes frames until the session ends.
func (s *session) receive() {
	small := make([]byte, idleRead)
	r := &reader{src: s.conn, seen: s.life.seen, buf: small, small: small}
	var err error
	for err == nil {
		err = s.frame(r)
	}
	s.end(s.why(err))
	r.release()
}

// frame takes one frame.
func (s *session) frame(r *reader) error {
	for len(r.unread) < headerSize {
		if err := r.more(); err != nil {
			return err
		}
	}
	h, ok := parseHeader(r.unread)
	if !ok {
		return errors.New("the peer does not speak yamux")
	}
	r.unread = r.unread[headerSize:]
	switch h.kind {
	case typeData, typeWindow:
		return s.streamFrame(r, h)
	case typePing:
		if h.flags&flagSYN != 0 {
			s.out.pong(h.length)
		} else {
			s.life.answered(h.length)
		}
		return nil
	case typeGoAway:
		if h.length != 0 {
			return fmt.Errorf("the peer ended the session: error %d", h.length)
		}
		return io.EOF
	}
	return fmt.Errorf("a frame of the unknown type %d", h.kind)
}

func (s *session) streamFrame(r *reader, h header) error {
	var st *stream
	if h.flags&flagSYN != 0 {
		var err error
		if st, err = s.opened(h.id); err != nil {
			return err
		}
		if st == nil && h.flags&flagRST == 0 {
			s.out.answer(header{kind: typeWindow, flags: flagRST, id: h.id})
		}
	} else {
		st = s.stream(h.id) // nil: it was reset here, and the peer did not know yet
	}
	if st != nil && h.flags&flagACK != 0 {
		st.place()
	}
	if h.kind == typeData {
		if err := payload(r, st, h.length); err != nil {
			return err
		}
	} else if st != nil {
		st.grant(h.length)
	}
	if st == nil {
		return nil
	}
	if h.flags&flagRST != 0 {
		st.abort(ErrReset)
		s.takenBack(st)
	} else if h.flags&flagFIN != 0 {
		st.wasEnded()
	}
	return nil
}

// payload hands the n bytes that follow to st as they come, or to nobody.
func payload(r *reader, st *stream, n uint32) error {
	if st != nil && !st.expects(n) {
		return fmt.Errorf("stream %d: the peer sent more than its window", st.id)
	}
	for n > 0 {
		if len(r.unread) == 0 {
			if err := r.more(); err != nil {
				return err
			}
		}
		k := min(uint32(len(r.unread)), n)
		if st != nil {
			st.deliver(r.unread[:k])
		}
		r.unread = r.unread[k:]
		n -= k
	}
	return nil
}
