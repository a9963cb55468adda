package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// idleSize is how much of the next request an idle connection has room for. It
// takes buffers when that has begun.
const idleSize = 512

// longAgo is a deadline that ends a read at once.
var longAgo = time.Unix(1, 0)

// Server is the server's half of HTTP/1.1 on connections that the tunnel's server
// opens: it reads requests and has Handler, which is made for [Forward], answer
// them. It works on the caller's goroutine, and an idle connection holds no buffers.
//
// It differs from http.Server in what a peer that is ours makes needless or harmful:
//
//   - HTTP/1.1 alone, and no two readings of its framing: lines end in CRLF and
//     are not folded, Content-Length is there once and never beside
//     Transfer-Encoding. All else is refused (400, 431, 501, 505).
//   - No field is added to an answer but those of its framing, and none is guessed.
//     With neither Content-Length nor an empty body it goes out in chunks. A name is
//     left out that could not be read again.
//   - Chunks of a request are handed on as their bytes come.
//   - 100 (Continue) is the handler's to send.
//   - A request's context ends when the peer aborts the connection, not when it has
//     ended its side and waits for the answer, and not when the handler returns.
//     The connection tells of it (OnAbort, see [Server.ServeConn]); nothing is read
//     ahead.
//
// As with http.Server, a body that is shorter than its Content-Length is cut off
// visibly, and so is an answer whose handler panics; http.ErrAbortHandler is not
// logged. A connection is closed after an answer that began before its request had
// ended.
type Server struct {
	// Handler answers the requests. Its ResponseWriter supports all of
	// http.ResponseController; full duplex needs no switching on.
	Handler http.HandlerFunc
	// MaxHeader bounds a request's header section, and the trailer section, in
	// bytes. Default 1 MiB.
	MaxHeader int64
	// Log gets panics, and what was refused. Nil discards.
	Log *slog.Logger
}

// served is a connection of a Server.
type served struct {
	s      *Server
	conn   net.Conn
	remote string
	ctx    context.Context // of the connection, and all its requests
	cancel context.CancelFunc

	idle  [idleSize]byte
	ahead []byte           // of idle: what r has not taken
	limit io.LimitedReader // reads the served; bounds trailers
	r     *bufio.Reader    // reads limit; nil while idle
	w     *bufio.Writer    // nil while there is nothing to write
	timed atomic.Bool      // a deadline was set
}

// verdict is what becomes of a connection after a request.
type verdict int

const (
	keep   verdict = iota // for the next request
	leave                 // it has ended, and is closed
	linger                // the peer may still send: it is closed with care
	cut                   // it is aborted
	handed                // the handler has taken it over
)

// The readers and writers of connections that are in use.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}
)

// ServeConn serves conn until it ends, and closes it, unless the handler has taken
// it over. Where conn has a method OnAbort(func()) (stop func() bool), as a
// mux.Stream does, that tells of the connection's abort; otherwise the contexts of
// its requests end with ServeConn only.
func (s *Server) ServeConn(conn net.Conn) {
	c := &served{s: s, conn: conn, remote: conn.RemoteAddr().String()}
	c.limit = io.LimitedReader{R: c, N: math.MaxInt64}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	defer c.cancel()
	if conn, ok := conn.(interface{ OnAbort(func()) func() bool }); ok {
		defer conn.OnAbort(c.cancel)()
	}
	v := c.next()
	for v == keep {
		v = c.next()
	}
	c.release()
	switch v {
	case linger:
		closeLate(conn)
	case leave:
		conn.Close()
	case cut:
		abort(conn)
	}
}

// Read is for limit.
func (c *served) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.conn.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.cancel() // lest the handler takes it for anything else
	}
	return n, err
}

// wait waits for the next request, without buffers.
func (c *served) wait() error {
	if c.r != nil {
		return nil // it has begun
	}
	n, err := c.conn.Read(c.idle[:])
	if n == 0 && err != nil {
		return err
	}
	c.ahead = c.idle[:n]
	c.r = readers.Get().(*bufio.Reader)
	c.r.Reset(&c.limit)
	return nil
}

// release gives the buffers back, which nothing may use any more.
func (c *served) release() {
	if c.r != nil {
		c.r.Reset(nil)
		readers.Put(c.r)
		c.r = nil
	}
	if c.w != nil {
		c.w.Reset(nil)
		writers.Put(c.w)
		c.w = nil
	}
}

func (c *served) writer() *bufio.Writer {
	if c.w == nil {
		c.w = writers.Get().(*bufio.Writer)
		c.w.Reset(c.conn)
	}
	return c.w
}

// next serves one request.
func (c *served) next() verdict {
	if c.wait() != nil {
		return leave
	}
	req, err := c.readRequest()
	if err != nil {
		return c.refuse(err)
	}
	w := &response{c: c, req: req, header: make(http.Header, 8), left: -1}
	w.body, _ = req.Body.(*incoming)
	if !c.handle(w, req) {
		return cut
	}
	v := w.finish()
	if v == keep && c.r.Buffered() == 0 {
		c.release()
	}
	return v
}

// handle reports whether the handler returned.
func (c *served) handle(w *response, req *http.Request) (returned bool) {
	defer func() {
		if returned {
			return
		}
		if p := recover(); p != nil && p != http.ErrAbortHandler && c.s.Log != nil {
			c.s.Log.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
		}
		if w.body != nil && !w.hijacked {
			w.body.stop() // somebody may be reading
		}
	}()
	c.s.Handler(w, req)
	return true
}

// refuse answers what is no request that can be served, where there is someone to
// be answered.
func (c *served) refuse(err error) verdict {
	var refused *refusal
	if !errors.As(err, &refused) {
		return leave
	}
	if c.s.Log != nil {
		c.s.Log.Debug("request refused", "status", refused.status, "err", err)
	}
	w := c.writer()
	writeStatus(w, refused.status)
	w.WriteString("Connection: close\r\nContent-Length: 0\r\n\r\n")
	if w.Flush() != nil {
		return cut
	}
	return linger
}

func (c *served) maxHeader() int64 {
	if c.s.MaxHeader > 0 {
		return c.s.MaxHeader
	}
	return defaultMaxHeader
}

// closeLate closes a connection whose peer may still send: it is not to be reset
// under the answer that the peer has not read yet (RFC 9112, section 9.6).
func closeLate(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, conn, lingerBytes)
	}
	conn.Close()
}
