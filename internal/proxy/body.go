package proxy

import (
	"io"
	"net/http"
	"strconv"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// copySize is how much of a body is moved at once. It bounds what an exchange
// holds of a body whose receiver is slow: one buffer in each direction.
const copySize = 32 << 10

// buffers are shared by all exchanges; idle ones hold none.
var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// startBody sends the request's body on a goroutine of its own, since the
// answer may begin before its end (full duplex).
func (e *exchange) startBody() {
	e.body = &requestBody{done: make(chan struct{})}
	e.c.sending = true
	go func() {
		defer close(e.body.done)
		e.body.err = e.sendBody()
		if e.bodyErr.Load() != nil {
			// The sender is gone: the peer must see that the body was cut off (R2).
			abort(e.c.Conn)
			return
		}
		// Where only writing failed, the answer that made the peer stop reading may
		// be there to be read.
		e.startTimeout()
	}()
}

func (e *exchange) sendBody() error {
	defer e.req.Body.Close()
	if !chunked(e.req) {
		return e.sendLength(e.req.ContentLength)
	}
	return e.sendChunks()
}

func (e *exchange) sendLength(left int64) error {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for left > 0 {
		n, err := e.req.Body.Read(buf[:min(left, copySize)])
		left -= int64(n)
		if left == 0 {
			e.body.read.Store(true)
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if n > 0 {
			if _, werr := e.c.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err != nil && left > 0 {
			return e.senderFailed(err)
		}
	}
	return nil
}

// sendChunks writes each read as one chunk (RFC 9112, section 7.1) in one write.
func (e *exchange) sendChunks() error {
	const head, tail = 8, 2 // "7ff0\r\n" fits; "\r\n"
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for {
		n, err := e.req.Body.Read(buf[head : copySize-tail])
		if n > 0 {
			size := strconv.FormatInt(int64(n), 16) + "\r\n"
			start := head - len(size)
			copy(buf[start:head], size)
			copy(buf[head+n:], "\r\n")
			if _, werr := e.c.Write(buf[start : head+n+tail]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			e.body.read.Store(true)
			return e.sendTrailer()
		}
		if err != nil {
			return e.senderFailed(err)
		}
	}
}

// sendTrailer writes the last chunk with the trailer section.
func (e *exchange) sendTrailer() error {
	_, err := e.c.Write(lastChunk(e.req.Trailer))
	return err
}

// lastChunk is the end of a chunked body. Trailers that may not be sent are left
// out.
func lastChunk(trailer http.Header) []byte {
	end := []byte("0\r\n")
	for name, values := range trailer {
		for _, v := range values {
			if mayTrail(name) && httpguts.ValidHeaderFieldValue(v) {
				end = append(append(append(append(end, name...), ": "...), v...), "\r\n"...)
			}
		}
	}
	return append(end, "\r\n"...)
}

// mayTrail reports whether a field by this name may be sent as a trailer: none
// that frames, routes or authenticates (RFC 9110, section 6.5.1).
func mayTrail(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name)
}

func (e *exchange) senderFailed(err error) error {
	e.bodyErr.Store(&err)
	return err
}
