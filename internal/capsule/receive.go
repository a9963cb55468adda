package capsule

import (
	"io"
	"sync"
)

// smallSize is up to which a payload needs no budget to be read, and largeSize the
// buffer of any other, in bytes.
const smallSize, largeSize = 2 << 10, 64 << 10

var (
	small = sync.Pool{New: func() any { return new([smallSize]byte) }}
	large = sync.Pool{New: func() any { return new([largeSize]byte) }}
)

// Receive calls take with each datagram that in brings, until it ends, or take returns
// an error. The payload is take's for the call only. A peer may begin a large datagram
// on many streams and complete none: for one above 2 KiB, 64 KiB of budget are taken
// until it has come, and where they lack, lost is called in place of take. The error is
// that of [Reader.Next], or take's. While nothing comes, 2 KiB are held.
func Receive(in io.Reader, budget *Budget, take func(payload []byte) error, lost func()) error {
	r := NewReader(in)
	for {
		n, err := r.Next()
		if err != nil {
			return err
		}
		if n <= smallSize {
			buf := small.Get().(*[smallSize]byte)
			err = r.hand(buf[:n], take)
			small.Put(buf)
		} else if budget.take(largeSize) {
			buf := large.Get().(*[largeSize]byte)
			err = r.hand(buf[:n], take)
			large.Put(buf)
			budget.give(largeSize)
		} else {
			lost()
		}
		if err != nil {
			return err
		}
	}
}

func (r *Reader) hand(b []byte, take func(payload []byte) error) error {
	if err := r.Payload(b); err != nil {
		return err
	}
	return take(b)
}
