package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// grace is how long the last write of a request's body may take once the response
// is complete, and the first byte of a response once writing has failed.
const grace = 100 * time.Millisecond

// exchange is one request and its response on a conn.
type exchange struct {
	c    *conn
	req  *http.Request
	stop func() bool // ends the watch on the request's context

	mu       sync.Mutex // guards the read deadline against headDone
	headDone bool

	body    *requestBody // nil: none
	bodyErr atomic.Pointer[error]
}

// requestBody is the sending of a request's body on a goroutine of its own.
type requestBody struct {
	read atomic.Bool // all of it was read; what remains is to write it
	done chan struct{}
	err  error // of sending; valid after done
}

// sent reports whether the body has gone out. A peer that answers when it has
// seen the end may do so before the last write has returned.
func (b *requestBody) sent() bool {
	if !b.read.Load() {
		return false
	}
	select {
	case <-b.done:
		return true
	default:
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-b.done:
		return true
	case <-t.C:
		return false
	}
}

func (c *conn) exchange(req *http.Request) (*http.Response, error) {
	e := &exchange{c: c, req: req}
	c.sending, c.answered, c.sent = false, false, 0
	e.stop = context.AfterFunc(req.Context(), func() { abort(c.Conn) })
	res, err := e.run()
	if err != nil {
		e.stop()
		abort(c.Conn)
		return nil, e.explain(err)
	}
	return res, nil
}

// explain turns an I/O error into one of the package's: the first cause counts,
// not what followed from it.
func (e *exchange) explain(err error) error {
	if ctxErr := e.req.Context().Err(); ctxErr != nil {
		return ctxErr
	}
	if p := e.bodyErr.Load(); p != nil {
		return fmt.Errorf("%w: %w", ErrRequestBody, *p)
	}
	if errors.Is(err, ErrNotSent) {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrHeaderTimeout
	}
	return fmt.Errorf("%w: %w", ErrBadResponse, err)
}

func (e *exchange) run() (*http.Response, error) {
	e.writeHead()
	if err := e.c.w.Flush(); err != nil {
		if e.c.sent == 0 {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		// A peer that refuses a large header has closed; its answer may be there.
		e.c.SetReadDeadline(time.Now().Add(grace))
		if _, readErr := e.c.r.Peek(1); readErr != nil {
			return nil, err
		}
		e.c.SetReadDeadline(time.Time{})
	}
	// With Expect, the body goes out when 100 (Continue) has come (R28).
	waiting := hasBody(e.req) && httpguts.HeaderValuesContainsToken(e.req.Header["Expect"], "100-continue") && !e.ignored()
	if hasBody(e.req) && !waiting {
		e.startBody()
	} else {
		e.startTimeout()
	}
	for {
		res, err := e.readHead()
		if err != nil {
			return nil, err
		}
		switch {
		case res.StatusCode < 100, res.ProtoMajor != 1:
			return nil, fmt.Errorf("status line %q", res.Proto+" "+res.Status)
		case res.StatusCode == http.StatusSwitchingProtocols:
			return e.upgraded(res)
		case res.StatusCode >= 200:
			if waiting {
				closeBody(e.req)
			}
			return e.finish(res), nil
		case res.StatusCode != http.StatusContinue:
			if err := e.interim(res); err != nil {
				return nil, err
			}
			// 103 before 100 is no answer to Expect.
			if waiting && e.ignored() {
				waiting = false
				e.startBody()
			} else if waiting {
				e.startTimeout()
			}
		case waiting:
			waiting = false
			e.stopTimeout()
			e.startBody()
		}
	}
}

// ignored reports whether the peer leaves Expect unanswered.
func (e *exchange) ignored() bool {
	if e.c.t.ContinueTimeout <= 0 {
		return false
	}
	e.c.SetReadDeadline(time.Now().Add(e.c.t.ContinueTimeout))
	_, err := e.c.r.Peek(1)
	e.c.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (e *exchange) interim(res *http.Response) error {
	trace := httptrace.ContextClientTrace(e.req.Context())
	if trace == nil || trace.Got1xxResponse == nil {
		return nil
	}
	return trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header))
}

func (e *exchange) readHead() (*http.Response, error) {
	c := e.c
	if _, err := c.r.Peek(1); err != nil {
		return nil, err
	}
	c.answered = true
	c.limit.N = c.t.maxHeader()
	res, err := http.ReadResponse(c.r, e.req)
	if err != nil {
		if c.limit.N <= 0 {
			err = errors.New("response header is too large")
		}
		return nil, err
	}
	c.limit.N = math.MaxInt64
	if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
		e.endTimeout()
	}
	return res, nil
}

// startTimeout starts the wait for the header: the request has been sent.
func (e *exchange) startTimeout() {
	if d := e.c.t.HeaderTimeout; d > 0 {
		e.setTimeout(time.Now().Add(d), false)
	}
}

// stopTimeout holds the wait until startTimeout.
func (e *exchange) stopTimeout() { e.setTimeout(time.Time{}, false) }

// endTimeout ends the wait for good.
func (e *exchange) endTimeout() { e.setTimeout(time.Time{}, true) }

func (e *exchange) setTimeout(t time.Time, done bool) {
	if e.c.t.HeaderTimeout <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.headDone {
		e.headDone = done
		e.c.SetReadDeadline(t)
	}
}

func (e *exchange) upgraded(res *http.Response) (*http.Response, error) {
	switch up := res.Header.Get("Upgrade"); {
	case up == "", !httpguts.HeaderValuesContainsToken(e.req.Header["Upgrade"], up):
		return nil, fmt.Errorf("101 (Switching Protocols) to %q was not asked for", up)
	case hasBody(e.req) && (e.body == nil || !e.body.sent()):
		return nil, errors.New("101 (Switching Protocols) came before the request's end")
	}
	e.stop()
	res.Body = &upgraded{Conn: e.c.Conn, r: e.c.r}
	return res, nil
}

func (e *exchange) finish(res *http.Response) *http.Response {
	b := &responseBody{e: e, close: res.Close || e.req.Close, body: res.Body}
	if res.Body == http.NoBody {
		b.end()
		return res
	}
	if len(res.TransferEncoding) > 0 {
		b.body = &chunks{r: e.c.r, limit: &e.c.limit, maxTrailer: e.c.t.maxHeader(), res: res}
	}
	res.Body = b
	return res
}

// responseBody gives the connection back at its end.
type responseBody struct {
	e     *exchange
	body  io.Reader
	close bool // the connection is not to be kept
	done  bool
}

// BeforeWait makes Read call f each time before it waits for the connection, and
// reports that it does: a body that wraps this one passes it on.
func (b *responseBody) BeforeWait(f func()) bool {
	if !b.done {
		b.e.c.wait = f
	}
	return true
}

func (b *responseBody) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	switch {
	case err == io.EOF:
		b.end()
	case err != nil:
		err = b.e.explain(err)
	}
	return n, err
}

func (b *responseBody) Close() error {
	if !b.done {
		b.done = true
		b.e.stop()
		abort(b.e.c.Conn)
	}
	return nil
}

// end comes when the response was read to its end.
func (b *responseBody) end() {
	b.done = true
	e, c := b.e, b.e.c
	c.wait = nil
	if !e.stop() {
		return // cancelled: the connection is gone
	}
	switch {
	case e.body != nil && !e.body.sent():
		// An answer before the request was all there (R3). The rest has nowhere to
		// go, as on every proxy: the sender is stopped.
		abort(c.Conn)
	case b.close, c.r.Buffered() > 0, e.body != nil && e.body.err != nil, e.expectUnmet():
		// Bytes beyond the response belong to nobody's request (S2).
		c.Close()
	default:
		c.t.put(c)
	}
}

// expectUnmet reports whether the peer may still wait for a body that never went
// out, because the answer came instead of 100 (Continue).
func (e *exchange) expectUnmet() bool { return e.body == nil && hasBody(e.req) }

// writeHead writes the request line and the header section (RFC 9112) into the
// buffer, which remembers an error.
func (e *exchange) writeHead() {
	w, req := e.c.w, e.req
	w.Reset(e.c)
	w.WriteString(req.Method)
	w.WriteByte(' ')
	w.WriteString(target(req))
	w.WriteString(" HTTP/1.1\r\n")
	writeField(w, "Host", req.Host)
	for name, values := range req.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue // framing is ours
		}
		for _, v := range values {
			writeField(w, name, v)
		}
	}
	switch {
	case chunked(req):
		writeField(w, "Transfer-Encoding", "chunked")
		for name := range req.Trailer {
			if mayTrail(name) {
				writeField(w, "Trailer", name)
			}
		}
	case hasBody(req):
		writeField(w, "Content-Length", strconv.FormatInt(req.ContentLength, 10))
	case req.Header["Content-Length"] != nil:
		writeField(w, "Content-Length", "0")
	}
	w.WriteString("\r\n")
}

func writeField(w *bufio.Writer, name, value string) {
	w.WriteString(name)
	w.WriteString(": ")
	w.WriteString(value)
	w.WriteString("\r\n")
}

// chunked reports whether req's body goes out in chunks: its length is not
// known, or trailers follow it.
func chunked(req *http.Request) bool {
	return hasBody(req) && (req.ContentLength <= 0 || len(req.Trailer) > 0)
}
