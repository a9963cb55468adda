// Package capsule puts datagrams on a stream and takes them off again: the capsules
// of RFC 9297 with the payloads of RFC 9298, as both ends of a UDP tunnel use them.
// [Append] and [Reader] are the two directions; a [Queue] is what stands between a
// socket that does not wait and a stream that may.
package capsule

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxPayload is the most that a datagram of UDP can carry, in bytes (RFC 9298,
// section 5). Over IPv4 it is 65,507.
const MaxPayload = 65527

const (
	// typeDatagram is the capsule type of a datagram (RFC 9297, section 3.5).
	typeDatagram = 0
	// contextUDP is the context of payloads of UDP (RFC 9298, section 4).
	contextUDP = 0
	// maxSkipped bounds a capsule that is skipped, in bytes.
	maxSkipped = 128 << 10
	// readSize is the buffer of a Reader, in bytes: longer payloads go past it.
	readSize = 2 << 10
	// maxHeader is how much longer a capsule is than its payload, in bytes.
	maxHeader = 1 + 4 + 1
)

// ErrTooLarge says that a capsule is larger than what it may be.
var ErrTooLarge = errors.New("capsule is too large")

// ErrMalformed says that a capsule ends before what it has to hold.
var ErrMalformed = errors.New("malformed capsule")

// Append appends the capsule of a datagram with payload, of [MaxPayload] bytes at most,
// to b.
func Append(b, payload []byte) []byte {
	b = append(b, typeDatagram)
	b = appendVarint(b, uint64(len(payload))+1)
	b = append(b, contextUDP)
	return append(b, payload...)
}

// appendVarint appends n, which is below 2^30, as RFC 9000, section 16, has it.
func appendVarint(b []byte, n uint64) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	default:
		return binary.BigEndian.AppendUint32(b, uint32(n)|2<<30)
	}
}

// Reader takes datagrams off a stream. Make it with [NewReader]. It holds 2 KiB.
type Reader struct {
	r    *bufio.Reader
	left int // of the payload that Next announced
}

// NewReader returns what reads r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, readSize)} }

// Next waits for the next datagram, and returns how many bytes it carries, which
// Payload reads. What was not read of the one before is skipped. Capsules of other types (RFC 9297,
// section 3.3), and datagrams of other contexts (RFC 9298, section 4), are skipped. The
// error is io.EOF at the stream's end, [ErrTooLarge], [ErrMalformed], or the stream's.
func (r *Reader) Next() (int, error) {
	if err := r.skip(r.left); err != nil {
		return 0, err
	}
	r.left = 0
	for {
		n, ok, err := r.capsule()
		if err != nil {
			return 0, err
		}
		if ok {
			r.left = n
			return n, nil
		}
		if err := r.skip(n); err != nil {
			return 0, err
		}
	}
}

// capsule reads up to a payload, or what is to be skipped, of n bytes.
func (r *Reader) capsule() (n int, ok bool, err error) {
	kind, _, err := r.varint()
	if err != nil {
		return 0, false, err // also io.EOF: here is where a stream may end
	}
	length, _, err := r.varint()
	if err != nil {
		return 0, false, whole(err)
	}
	if kind != typeDatagram {
		return bounded(length, maxSkipped)
	}
	if length == 0 {
		return 0, false, fmt.Errorf("%w: a datagram without a context", ErrMalformed)
	}
	context, size, err := r.varint()
	switch {
	case err != nil:
		return 0, false, whole(err)
	case uint64(size) > length:
		return 0, false, fmt.Errorf("%w: a datagram without a context", ErrMalformed)
	case context != contextUDP:
		return bounded(length-uint64(size), maxSkipped)
	}
	n, _, err = bounded(length-uint64(size), MaxPayload)
	return n, err == nil, err
}

func bounded(length, limit uint64) (int, bool, error) {
	if length > limit {
		return 0, false, fmt.Errorf("%w: %d bytes", ErrTooLarge, length)
	}
	return int(length), false, nil
}

func (r *Reader) skip(n int) error {
	_, err := r.r.Discard(n)
	return whole(err)
}

// varint reads an integer of RFC 9000, section 16, and says how many bytes it had.
func (r *Reader) varint() (v uint64, size int, err error) {
	first, err := r.r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	size = 1 << (first >> 6)
	v = uint64(first & 0x3f)
	for range size - 1 {
		b, err := r.r.ReadByte()
		if err != nil {
			return 0, 0, whole(err)
		}
		v = v<<8 | uint64(b)
	}
	return v, size, nil
}

// Payload reads what Next announced into b, which is to have room for it.
func (r *Reader) Payload(b []byte) error {
	_, err := io.ReadFull(r.r, b[:r.left])
	r.left = 0
	return whole(err)
}

// whole makes an end within a capsule an error.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
