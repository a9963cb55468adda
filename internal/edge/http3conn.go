package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// h3Conn is a connection of HTTP/3.
type h3Conn struct {
	*quic.Conn
	q        *HTTP3
	raw      *http3.RawServerConn
	places   chan struct{} // as many as requests may be under way
	handlers sync.WaitGroup
	broken   atomic.Int64 // requests that the visitor took back
	start    time.Time
	last     atomic.Int64 // when one was done, in nanoseconds since start
	ration   ration       // of those
}

// serveConn serves one connection to its end, or, when no more are taken, until
// what is under way is done.
func (q *HTTP3) serveConn(conn *quic.Conn) {
	raw, err := q.server.NewRawServerConn(conn)
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
		return
	}
	c := &h3Conn{Conn: conn, q: q, raw: raw, start: time.Now(), places: make(chan struct{}, h3Requests)}
	c.ration = ration{left: rationBurst, then: time.Now()}
	var others sync.WaitGroup
	others.Go(func() {
		for {
			stream, err := conn.AcceptUniStream(conn.Context())
			if err != nil {
				return
			}
			others.Go(func() { raw.HandleUnidirectionalStream(stream) })
		}
	})
	for first := true; c.serveNext(first); first = false {
	}
	c.drain()
	raw.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	others.Wait()
}

// serveNext begins the next request. It reports whether there may be more.
//
// A request counts until its handler is done, however it ended for the visitor: who
// takes back each is not to have more under way than others (S6). And who begins
// them for nothing waits, as with HTTP/2.
func (c *h3Conn) serveNext(first bool) bool {
	select {
	case c.places <- struct{}{}:
	case <-c.Context().Done():
		return false
	}
	ctx, limit := c.q.accepting, c.q.limits.HeaderTimeout
	if first && limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	stream, err := c.AcceptStream(ctx)
	if err != nil {
		return false
	}
	if limit > 0 {
		stream.SetReadDeadline(time.Now().Add(limit)) // serve takes it off
	}
	c.handlers.Go(func() {
		defer func() {
			c.last.Store(int64(time.Since(c.start)))
			<-c.places
		}()
		c.raw.HandleRequestStream(stream)
		var taken *quic.StreamError
		if errors.As(context.Cause(stream.Context()), &taken) && taken.Remote {
			c.broken.Add(1)
		}
	})
	if wait := c.ration.spend(time.Now(), resetCost*c.broken.Swap(0), 0); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.Context().Done():
		}
	}
	return true
}

// drain waits for what is under way, and until the last of it has arrived: quic-go
// does not tell, and forgets what it is to send when the connection is closed.
// Requests that come meanwhile may be sent again elsewhere (RFC 9114, section 8.1).
func (c *h3Conn) drain() {
	draining, over := context.WithCancel(c.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer over()
		c.handlers.Wait()
		t := time.NewTimer(time.Until(c.start.Add(time.Duration(c.last.Load()) + h3Linger)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.Context().Done():
		}
	}()
	for {
		stream, err := c.AcceptStream(draining)
		if err != nil {
			break
		}
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
	}
	<-done
}

// serve is the handler of requests of HTTP/3.
func (q *HTTP3) serve(w http.ResponseWriter, r *http.Request) {
	if bodiless(r) {
		// quic-go does not tell a request without a body from one whose length is not
		// known, and the app would get chunks. The end stands in the header's packet.
		var one [1]byte
		switch n, err := r.Body.Read(one[:]); {
		case n == 0 && err == io.EOF:
			r.Body, r.ContentLength = http.NoBody, 0
		case n == 0 && err != nil:
			panic(http.ErrAbortHandler)
		default:
			r.Body = &begunBody{bytes.NewReader(one[:n]), r.Body}
		}
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{})
	q.h.ServeHTTP(w, r)
}

// bodiless reports whether r is one of those that have no body but in theory.
func bodiless(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodTrace:
		return r.ContentLength < 0
	}
	return false
}

// begunBody is a body of which a part was read.
type begunBody struct {
	first *bytes.Reader
	io.ReadCloser
}

func (b *begunBody) Read(p []byte) (int, error) {
	if b.first.Len() > 0 {
		return b.first.Read(p)
	}
	return b.ReadCloser.Read(p)
}
