package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// plainHead reads a response's header section where it has arrived as a whole and
// there is but one way to read it. Otherwise it takes nothing and returns nil:
// http.ReadResponse decides then, and would have said the same here (the Body is
// another one). It costs two thirds, in half the allocations.
func (e *exchange) plainHead() *http.Response {
	r := e.c.r
	there, _ := r.Peek(r.Buffered())
	end := bytes.Index(there, []byte("\r\n\r\n"))
	if end < 0 || int64(end) > e.c.t.maxHeader() {
		return nil
	}
	res := plainResponse(string(there[:end]), e.req)
	if res != nil {
		r.Discard(end + len("\r\n\r\n"))
	}
	return res
}

// plainResponse parses head, which is without the last two line ends. It returns nil
// for what is not plain.
func plainResponse(head string, req *http.Request) *http.Response {
	line, rest, _ := strings.Cut(head, "\r\n")
	status, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(status) < 4 || status[3] != ' ' || !httpguts.ValidHeaderFieldValue(status) {
		return nil
	}
	code, err := strconv.ParseUint(status[:3], 10, 16)
	if err != nil {
		return nil
	}
	header := plainFields(rest)
	if header == nil {
		return nil
	}
	res := &http.Response{
		Status: status, StatusCode: int(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Request: req,
	}
	if !frame(res) {
		return nil
	}
	return res
}

// plainFields parses the lines of a header section, or returns nil.
func plainFields(lines string) http.Header {
	n := strings.Count(lines, "\r\n") + 1
	h := make(http.Header, n)
	all := make([]string, n) // one allocation for the values of all
	for lines != "" {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) { // also of a line that continues another
			return nil
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		if had := h[name]; had != nil {
			h[name] = append(had, value)
			continue
		}
		all[0] = value
		h[name] = all[:1:1]
		all = all[1:]
	}
	return h
}

// frame finds how the body of res is framed (RFC 9112, section 6.3). It reports
// whether that is plain.
func frame(res *http.Response) bool {
	h := res.Header
	lengths, codings := h["Content-Length"], h["Transfer-Encoding"]
	switch {
	case h["Pragma"] != nil, h["Trailer"] != nil, len(lengths)+len(codings) != 1:
		return false // what net/http does about them is its own affair
	case res.StatusCode < 200, res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotModified:
		return false
	case res.Request.Method == http.MethodHead:
		return false
	}
	if httpguts.HeaderValuesContainsToken(h["Connection"], "close") {
		res.Close = true
		delete(h, "Connection")
	}
	if len(codings) == 1 {
		delete(h, "Transfer-Encoding")
		res.TransferEncoding, res.ContentLength = codings, -1
		return codings[0] == "chunked"
	}
	n, err := strconv.ParseUint(lengths[0], 10, 63)
	res.ContentLength = int64(n)
	if n == 0 {
		res.Body = http.NoBody
	}
	return err == nil
}

// sized reads the body of a known length. The last bytes come with io.EOF.
type sized struct {
	r    *bufio.Reader
	left int64
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case s.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// writeHead writes the request line and the header section (RFC 9112), in one
// write.
func (e *exchange) writeHead() error {
	req := e.req
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	b := append(buf[:0], req.Method...)
	b = append(b, ' ')
	b = append(b, target(req)...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", req.Host)
	for name, values := range req.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue // framing is ours
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	switch {
	case chunked(req):
		b = appendField(b, "Transfer-Encoding", "chunked")
		for name := range req.Trailer {
			if mayTrail(name) {
				b = appendField(b, "Trailer", name)
			}
		}
	case hasBody(req):
		b = appendField(b, "Content-Length", strconv.FormatInt(req.ContentLength, 10))
	case req.Header["Content-Length"] != nil:
		b = appendField(b, "Content-Length", "0")
	}
	_, err := e.c.Write(append(b, "\r\n"...))
	return err
}

func writeField(w *bufio.Writer, name, value string) {
	w.WriteString(name)
	w.WriteString(": ")
	w.WriteString(value)
	w.WriteString("\r\n")
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// chunked reports whether req's body goes out in chunks: its length is not
// known, or trailers follow it.
func chunked(req *http.Request) bool {
	return hasBody(req) && (req.ContentLength <= 0 || len(req.Trailer) > 0)
}
