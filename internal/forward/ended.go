package forward

import "io"

// ended is the body of an HTTP/2 answer of known length, whose last byte waits for
// the end of the app's stream. The tunnel's stream is another request's as soon as
// the length is reached, which would wait behind an app that is not done; and an app
// that resets its stream then has not ended its answer (R1).
type ended struct {
	io.ReadCloser
	left int64 // bytes that are still to come
	held bool  // last is to come
	last [1]byte
}

func (b *ended) Read(p []byte) (int, error) {
	if b.held && len(p) > 0 {
		var more [1]byte
		if _, err := io.ReadFull(b.ReadCloser, more[:]); err != io.EOF {
			return 0, err // net/http lets no byte pass beyond the length
		}
		b.held = false
		return copy(p, b.last[:]), io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left == 0 && n > 0 && err == nil {
		n--
		b.last[0], b.held = p[n], true
	}
	return n, err
}
