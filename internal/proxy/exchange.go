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
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// grace is how long the last write of a request's body may take once the response
// is complete, and the first byte of a response once writing has failed.
const grace = 100 * time.Millisecond

// watchAfter is how long an exchange may take before the end of its request's
// context, and of HeaderTimeout, are watched for. Most are over sooner, and spared
// what that costs.
const watchAfter = 50 * time.Millisecond

// exchange is one request and its response on a conn.
type exchange struct {
	c      *conn
	req    *http.Request
	got1xx func(code int, header textproto.MIMEHeader) error // may be nil

	watched func() bool // ends the watch on the request's context; nil: there is none

	mu       sync.Mutex // guards the following fields, and the read deadline by them
	deadline time.Time  // of the header; zero: none
	headDone bool
	late     bool // watchAfter has passed: deadline is to be the connection's

	body    *requestBody // nil: none
	bodyErr atomic.Pointer[error]

	response responseBody
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

func (c *conn) exchange(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	e := &exchange{c: c, req: req, got1xx: got1xx, late: c.t.HeaderTimeout < 2*watchAfter}
	c.r = readers.Get().(*bufio.Reader)
	c.r.Reset(&c.limit)
	c.sending, c.answered, c.sent = false, false, 0
	e.start()
	res, err := e.run()
	if err != nil {
		e.stop()
		abort(c.Conn)
		return nil, e.explain(err)
	}
	return res, nil
}

// start lets the end of the request's context abort the connection until stop.
func (e *exchange) start() {
	c := e.c
	c.mu.Lock()
	c.current = e
	c.mu.Unlock()
	c.watcher.Reset(watchAfter)
}

// watch is for the exchange that is under way. The time may have been another's.
func (c *conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.current; e != nil && e.watched == nil {
		e.watched = context.AfterFunc(e.req.Context(), func() { abort(c.Conn) })
		e.beLate()
	}
}

// stop is called once, at the exchange's end. It reports false where the
// connection was, or is being, aborted.
func (e *exchange) stop() bool {
	c := e.c
	c.watcher.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
	return e.watched == nil || e.watched()
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
	if !e.c.answered && Repeatable(e.req) {
		return fmt.Errorf("%w: %w: %w", ErrBadResponse, ErrUnanswered, err)
	}
	return fmt.Errorf("%w: %w", ErrBadResponse, err)
}

func (e *exchange) run() (*http.Response, error) {
	if err := e.writeHead(); err != nil {
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
		case e.req.Method == http.MethodConnect && res.StatusCode/100 == 2:
			return e.handOver(res), nil
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
	e.stopTimeout()
	e.c.SetReadDeadline(time.Now().Add(e.c.t.ContinueTimeout))
	_, err := e.c.r.Peek(1)
	e.c.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (e *exchange) interim(res *http.Response) error {
	got1xx := e.got1xx
	if got1xx == nil {
		trace := httptrace.ContextClientTrace(e.req.Context())
		if trace == nil || trace.Got1xxResponse == nil {
			return nil
		}
		got1xx = trace.Got1xxResponse
	}
	return got1xx(res.StatusCode, textproto.MIMEHeader(res.Header))
}

func (e *exchange) readHead() (*http.Response, error) {
	c := e.c
	first, err := c.r.Peek(1)
	if err != nil {
		return nil, err
	}
	c.answered = true
	if first[0] != 'H' { // a line that is not HTTP's may never end
		said, _ := c.r.Peek(min(c.r.Buffered(), 40))
		return nil, fmt.Errorf("not HTTP: %q", said)
	}
	res := e.plainHead()
	if res == nil {
		c.limit.N = c.t.maxHeader()
		if res, err = http.ReadResponse(c.r, e.req); err != nil {
			if c.limit.N <= 0 {
				err = errors.New("response header is too large")
			}
			return nil, err
		}
		c.limit.N = math.MaxInt64
	}
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
	if e.headDone {
		return
	}
	e.headDone, e.deadline = done, t
	if e.late {
		e.c.SetReadDeadline(t)
	}
}

// beLate makes deadline the connection's, from now on.
func (e *exchange) beLate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.late = true
	if !e.deadline.IsZero() {
		e.c.SetReadDeadline(e.deadline)
	}
}

func (e *exchange) upgraded(res *http.Response) (*http.Response, error) {
	switch up := res.Header.Get("Upgrade"); {
	case up == "", !httpguts.HeaderValuesContainsToken(e.req.Header["Upgrade"], up):
		return nil, fmt.Errorf("101 (Switching Protocols) to %q was not asked for", up)
	case hasBody(e.req) && (e.body == nil || !e.body.sent()):
		return nil, errors.New("101 (Switching Protocols) came before the request's end")
	}
	return e.handOver(res), nil
}

// handOver makes the connection the response's body.
func (e *exchange) handOver(res *http.Response) *http.Response {
	e.stop()
	res.Body = &upgraded{Conn: e.c.Conn, r: e.c.r}
	return res
}

func (e *exchange) finish(res *http.Response) *http.Response {
	b := &e.response
	b.e, b.close = e, res.Close || e.req.Close
	switch {
	case res.Body == http.NoBody:
		b.end()
		return res
	case len(res.TransferEncoding) > 0:
		b.body = &chunks{r: e.c.r, limit: &e.c.limit, maxTrailer: e.c.t.maxHeader(), res: res}
	case res.ContentLength >= 0:
		b.sized = sized{r: e.c.r, left: res.ContentLength}
		b.body = &b.sized
	default:
		b.body = e.c.r // to the connection's end
	}
	res.Body = b
	return res
}

// responseBody gives the connection back at its end.
type responseBody struct {
	e     *exchange
	body  io.Reader
	sized sized // body, where its length is known
	close bool  // the connection is not to be kept
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
	surplus := c.r.Buffered() > 0
	c.r.Reset(nil)
	readers.Put(c.r)
	c.r = nil
	switch {
	case e.body != nil && !e.body.sent():
		// An answer before the request was all there (R3). The rest has nowhere to
		// go, as on every proxy: the sender is stopped.
		abort(c.Conn)
	case b.close, surplus, e.body != nil && e.body.err != nil, e.expectUnmet():
		// Bytes beyond the response belong to nobody's request (S2).
		c.Close()
	default:
		c.t.put(c)
	}
}

// expectUnmet reports whether the peer may still wait for a body that never went
// out, because the answer came instead of 100 (Continue).
func (e *exchange) expectUnmet() bool { return e.body == nil && hasBody(e.req) }
