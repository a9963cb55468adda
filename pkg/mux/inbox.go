package mux

import "sync"

// blockSize is the memory that a block takes.
const blockSize = 8 << 10

// block is a piece of what arrived and was not read yet.
type block struct {
	next       *block
	start, end int
	data       [blockSize - 24]byte
}

var blocks = sync.Pool{New: func() any { return new(block) }}

// inbox keeps what arrived on a stream until it is read. It holds as much memory
// as bytes, and less than two blocks more.
type inbox struct {
	first, last *block
	size        int
	blocks      int32 // share.hold counts them
	listed      bool  // in share.streams
}

// write returns how many blocks it took, and read how many it gave back.
func (in *inbox) write(b []byte) (took int32) {
	in.size += len(b)
	for len(b) > 0 {
		if in.last == nil || in.last.end == len(in.last.data) {
			bl := blocks.Get().(*block)
			bl.next, bl.start, bl.end = nil, 0, 0
			took++
			if in.last == nil {
				in.first = bl
			} else {
				in.last.next = bl
			}
			in.last = bl
		}
		n := copy(in.last.data[in.last.end:], b)
		in.last.end += n
		b = b[n:]
	}
	return took
}

func (in *inbox) read(b []byte) (n int, gave int32) {
	for n < len(b) && in.first != nil {
		bl := in.first
		k := copy(b[n:], bl.data[bl.start:bl.end])
		bl.start += k
		n += k
		if bl.start == bl.end {
			if in.first = bl.next; in.first == nil {
				in.last = nil
			}
			blocks.Put(bl)
			gave++
		}
	}
	in.size -= n
	return n, gave
}

// drop throws everything away. It returns how many blocks it gave back.
func (in *inbox) drop() (gave int32) {
	for in.first != nil {
		bl := in.first
		in.first = bl.next
		blocks.Put(bl)
		gave++
	}
	in.last, in.size = nil, 0
	return gave
}
