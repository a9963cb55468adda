package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// A refusal is why a request is not served, with the status that tells the peer.
type refusal struct {
	status int
	why    string
}

func (r *refusal) Error() string { return r.why }

func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// readRequest reads one request up to its body. The error is a *refusal, or the
// connection's.
func (c *served) readRequest() (*http.Request, error) {
	head, err := c.readHead()
	if err != nil {
		return nil, err
	}
	req := new(http.Request).WithContext(c.ctx)
	req.RemoteAddr = c.remote
	if err := parseHead(req, head); err != nil {
		return nil, err
	}
	switch {
	case req.ContentLength > 0:
		req.Body = &incoming{c: c, req: req, left: req.ContentLength}
	case req.ContentLength < 0:
		res := &http.Response{Trailer: req.Trailer}
		req.Body = &incoming{c: c, req: req, chunks: &chunks{r: c.r, limit: &c.limit, maxTrailer: c.maxHeader(), res: res}}
	}
	return req, nil
}

var headEnd = []byte("\r\n\r\n")

// readHead reads the request line and the header section, without the empty line
// at their end.
func (c *served) readHead() (string, error) {
	for {
		buf, _ := c.r.Peek(c.r.Buffered())
		if end := bytes.Index(buf, headEnd); end >= 0 {
			head := string(buf[:end+2])
			c.r.Discard(end + 4)
			return head, nil
		}
		if len(buf) == c.r.Size() {
			return c.readLongHead()
		}
		if _, err := c.r.Peek(len(buf) + 1); err != nil {
			return "", err
		}
	}
}

// readLongHead reads a head that does not fit into the buffer.
func (c *served) readLongHead() (string, error) {
	var head []byte
	for {
		part, err := c.r.ReadSlice('\n')
		head = append(head, part...)
		switch {
		case int64(len(head)) > c.maxHeader():
			return "", &refusal{http.StatusRequestHeaderFieldsTooLarge, "header section is too large"}
		case err != nil && err != bufio.ErrBufferFull:
			return "", err
		case bytes.HasSuffix(head, headEnd):
			return string(head[:len(head)-2]), nil
		}
	}
}

// parseHead fills req from its head (RFC 9112). ContentLength is -1 where chunks
// are to follow. What it takes, http.ReadRequest takes as well, and in the same
// way, but for the Cache-Control that that adds to Pragma.
func parseHead(req *http.Request, head string) error {
	line, fields, _ := strings.Cut(head, "\r\n")
	if err := parseLine(req, line); err != nil {
		return err
	}
	if err := parseFields(req, fields); err != nil {
		return err
	}
	if req.URL.Host != "" {
		req.Host = req.URL.Host // RFC 9112, section 3.2.2
	}
	req.Close = httpguts.HeaderValuesContainsToken(req.Header["Connection"], "close")
	return findFraming(req)
}

func parseLine(req *http.Request, line string) (err error) {
	method, rest, _ := strings.Cut(line, " ")
	target, proto, ok := strings.Cut(rest, " ")
	if !ok || !httpguts.ValidHeaderFieldName(method) { // both are tokens
		return bad("request line %q", line)
	}
	if proto != "HTTP/1.1" {
		if _, _, ok := http.ParseHTTPVersion(proto); ok {
			return &refusal{http.StatusHTTPVersionNotSupported, "version " + proto}
		}
		return bad("request line %q", line)
	}
	req.Method, req.RequestURI = method, target
	req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.1", 1, 1
	authority := method == http.MethodConnect && !strings.HasPrefix(target, "/")
	if authority {
		target = "http://" + target
	}
	if req.URL, err = url.ParseRequestURI(target); err != nil {
		return bad("target: %v", err)
	}
	if authority {
		req.URL.Scheme = ""
	}
	return nil
}

// usualFields is how many fields a header has at most, but for strange ones.
const usualFields = 64

// parseFields fills the header, which Host is no part of.
func parseFields(req *http.Request, fields string) error {
	// What is reserved is for what is usual, not for what was not looked at yet.
	n := min(strings.Count(fields, "\r\n"), usualFields)
	req.Header = make(http.Header, n)
	values := make([]string, n) // one allocation for all that come once
	hosts := 0
	for fields != "" {
		line, rest, _ := strings.Cut(fields, "\r\n")
		fields = rest
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return bad("header field name %q", name)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return bad("value of header field %q", name) // may be a secret
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		before := req.Header[name]
		switch {
		case name == "Host":
			req.Host = value
			hosts++
		case before != nil:
			req.Header[name] = append(before, value)
		case len(values) == 0:
			req.Header[name] = []string{value}
		default:
			values[0] = value
			req.Header[name], values = values[:1:1], values[1:]
		}
	}
	if hosts != 1 || !httpguts.ValidHostHeader(req.Host) {
		return bad("host %q, which came %d times", req.Host, hosts)
	}
	return nil
}

// findFraming tells where the body ends (RFC 9112, section 6).
func findFraming(req *http.Request) error {
	codings, lengths := req.Header["Transfer-Encoding"], req.Header["Content-Length"]
	req.Body = http.NoBody
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return bad("both Content-Length and Transfer-Encoding")
	case len(codings) > 0:
		if len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") {
			return &refusal{http.StatusNotImplemented, fmt.Sprintf("transfer encoding %q", codings)}
		}
		delete(req.Header, "Transfer-Encoding")
		req.TransferEncoding = []string{"chunked"}
		req.ContentLength = -1
		return announced(req)
	case len(lengths) > 1:
		return bad("Content-Length came %d times", len(lengths))
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil {
			return bad("Content-Length %q", lengths[0])
		}
		req.ContentLength = int64(n)
	}
	return nil
}

// announced finds the trailers that are to come.
func announced(req *http.Request) error {
	for _, v := range req.Header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			name = http.CanonicalHeaderKey(textproto.TrimString(name))
			switch name {
			case "":
				continue
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return bad("trailer %q", name)
			}
			if req.Trailer == nil {
				req.Trailer = make(http.Header)
			}
			req.Trailer[name] = nil
		}
	}
	delete(req.Header, "Trailer")
	return nil
}

// incoming is a request's body. It reads nothing of the connection once stopped.
type incoming struct {
	c   *served
	req *http.Request // gets the trailers

	mu      sync.Mutex // held while reading; guards the following
	left    int64      // where the length is known
	chunks  *chunks    // where it is not
	stopped bool

	ended atomic.Bool // it was read to its end
}

func (b *incoming) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended.Load():
		return 0, io.EOF
	case b.stopped:
		return 0, http.ErrBodyReadAfterClose
	case b.chunks != nil:
		return b.readChunk(p)
	}
	n, err := b.c.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		b.ended.Store(true)
		return n, io.EOF // at once: nobody may ask again
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *incoming) readChunk(p []byte) (int, error) {
	n, err := b.chunks.Read(p)
	if err == io.EOF {
		b.req.Trailer = b.chunks.res.Trailer
		b.ended.Store(true)
	}
	return n, err
}

// Close makes what is left unreadable; a Read under way goes on.
func (b *incoming) Close() error {
	if b.mu.TryLock() {
		b.stopped = true
		b.mu.Unlock()
	}
	return nil
}

// stop ends a Read that is under way, lets none begin, and reports whether the body
// was read to its end.
func (b *incoming) stop() bool {
	if b.ended.Load() {
		return true
	}
	b.c.conn.SetReadDeadline(longAgo)
	b.c.timed.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	return b.ended.Load()
}
