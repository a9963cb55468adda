package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// chunks reads a chunked body with its trailer section (RFC 9112, section 7.1).
// net/http's own reader waits until a chunk, or the caller's buffer, is full; a
// tunnel hands on what is there. Nor is the trailer section bounded by r's buffer
// here.
type chunks struct {
	r          *bufio.Reader
	limit      *io.LimitedReader // below r
	maxTrailer int64
	res        *http.Response // gets the trailers

	left  int64 // bytes of the chunk
	begun bool  // a chunk was, whose line end has not been read
	err   error
}

var (
	errChunk   = errors.New("malformed chunked encoding")
	errTrailer = errors.New("trailer section is too large")
)

func (c *chunks) Read(p []byte) (int, error) {
	if c.err == nil && c.left == 0 {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.err = err
	return n, err
}

// next reads up to the data of a chunk. At the last chunk it is io.EOF.
func (c *chunks) next() error {
	if c.begun {
		line, err := c.line()
		if err == nil && len(line) > 0 {
			err = errChunk
		}
		if err != nil {
			return err
		}
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";")) // extensions have no meaning to anyone
	size = bytes.TrimRight(size, " \t")
	n, err := strconv.ParseUint(string(size), 16, 63)
	if err != nil || len(size) > maxChunkSize {
		return errChunk
	}
	if n == 0 {
		if err := c.trailer(); err != nil {
			return err
		}
		return io.EOF
	}
	c.left, c.begun = int64(n), true
	return nil
}

// maxChunkSize is how many digits the size of a chunk may have, zeros before it included:
// as many as net/http's reader takes.
const maxChunkSize = 16

// line reads a line that ends in CRLF and fits into r's buffer.
func (c *chunks) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	switch {
	case err == io.EOF:
		return nil, io.ErrUnexpectedEOF
	case err == bufio.ErrBufferFull:
		return nil, errChunk
	case err != nil:
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(line, '\r') >= 0 {
		return nil, errChunk
	}
	return line, nil
}

func (c *chunks) trailer() error {
	if end, _ := c.r.Peek(2); string(end) == "\r\n" { // nearly always
		c.r.Discard(2)
		return nil
	}
	c.limit.N = c.maxTrailer
	fields, err := c.fields()
	if err != nil {
		return err
	}
	c.limit.N = math.MaxInt64
	if len(fields) > 0 && c.res.Trailer == nil {
		c.res.Trailer = make(http.Header, len(fields))
	}
	for name, values := range fields {
		c.res.Trailer[name] = values
	}
	return nil
}

// fields reads a trailer section up to the empty line behind it. net/http's reader of
// fields would take lines that end in LF alone (RFC 9112, section 2.2).
func (c *chunks) fields() (http.Header, error) {
	fields := make(http.Header)
	for {
		line, err := c.longLine()
		if err != nil || len(line) == 0 {
			return fields, err
		}
		name, value, ok := strings.Cut(string(line), ":")
		value = textproto.TrimString(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errChunk
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		fields[name] = append(fields[name], value)
	}
}

// longLine is line for one that need not fit into r's buffer.
func (c *chunks) longLine() ([]byte, error) {
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			line, ok := bytes.CutSuffix(line, []byte("\r\n"))
			if !ok || bytes.IndexByte(line, '\r') >= 0 {
				return nil, errChunk
			}
			return line, nil
		case err != bufio.ErrBufferFull && c.limit.N <= 0:
			return nil, errTrailer
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}
