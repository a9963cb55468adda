package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// A visitor that still sends may take lingerTime to read the end of its answer, and
// send lingerBytes meanwhile.
const (
	lingerTime  = 3 * time.Second
	lingerBytes = 16 << 20
)

// answer passes res on to the visitor.
func (f *forwarding) answer(res *http.Response) {
	chunked := f.writeHead(res)
	if err := f.copyBody(res); err != nil {
		f.abort(err)
	}
	if f.unread() && f.r.ProtoAtLeast(1, 1) {
		var end []byte
		if chunked {
			end = lastChunk(res.Trailer)
		}
		f.rc.Flush()
		f.src.stop()
		res.Body.Close() // nothing of the exchange waits for what follows
		f.hangUp(end)
		return
	}
	f.writeTrailer(res)
}

// abort cuts an answer off that was begun.
func (f *forwarding) abort(err error) {
	if f.o.Abort != nil {
		f.o.Abort(err)
	}
	if f.unread() {
		f.src.stop() // or net/http would wait for the rest before it cuts
	}
	panic(http.ErrAbortHandler)
}

// writeHead reports whether the body goes out in chunks of HTTP/1.1.
func (f *forwarding) writeHead(res *http.Response) (chunked bool) {
	h := f.w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	// net/http would add these where the app sent none.
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
	var announced []string
	for name := range res.Trailer {
		if mayTrail(name) {
			announced = append(announced, name)
		}
	}
	if len(announced) > 0 {
		h["Trailer"] = []string{strings.Join(announced, ", ")}
	}
	if f.unread() {
		h["Connection"] = []string{"close"}
	}
	if f.r.ProtoMajor == 1 && f.r.ProtoAtLeast(1, 1) && mayHaveBody(f.r.Method, res.StatusCode) {
		chunked = res.ContentLength < 0 || len(announced) > 0 || f.mayTrail(res)
	}
	if chunked {
		// Said aloud, lest net/http count a short body and make it a Content-Length.
		h["Transfer-Encoding"] = []string{"chunked"}
		delete(h, "Content-Length")
	}
	f.w.WriteHeader(res.StatusCode)
	return chunked
}

// mayTrail reports whether trailers that were not announced may follow a body of
// known length, which only HTTP/2 has. HTTP/1.1 must give up the length for them.
func (f *forwarding) mayTrail(res *http.Response) bool {
	return res.ProtoMajor > 1 && res.ContentLength > 0 && httpguts.HeaderValuesContainsToken(f.r.Header["Te"], "trailers")
}

// settle finds the trailers of an HTTP/2 answer that has nothing else: nothing
// else tells it from one that has not even those. And an HTTP/2 server may answer
// with any number.
func settle(res *http.Response) error {
	switch {
	case res.StatusCode == http.StatusSwitchingProtocols:
		return nil
	case res.StatusCode < 200, res.StatusCode > 999:
		return fmt.Errorf("%w: status %d", ErrBadResponse, res.StatusCode)
	case res.ProtoMajor < 2, res.ContentLength != 0:
		return nil
	}
	if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("%w: body of length 0: %v", ErrBadResponse, err)
	}
	return nil
}

// mayHaveBody is RFC 9112, section 6.3, rule 1.
func mayHaveBody(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}

// copyBody passes the body on. Nothing waits in a buffer while the app is silent
// (R27), and nothing is flushed on its own while more is at hand.
func (f *forwarding) copyBody(res *http.Response) error {
	if f.r.Method == http.MethodHead || res.Body == http.NoBody {
		return nil
	}
	flush := func() { f.rc.Flush() }
	after := flush
	if b, ok := res.Body.(interface{ BeforeWait(func()) bool }); ok && b.BeforeWait(flush) {
		after = func() {}
	} else if res.ContentLength != 0 {
		// The header of a gRPC answer that is trailers only must not leave before
		// its end is known: both are one frame. It has length 0.
		flush()
	}
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			if _, err := f.w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			after()
		}
	}
}

// writeTrailer passes the trailers on, announced or not.
func (f *forwarding) writeTrailer(res *http.Response) {
	if len(res.Trailer) == 0 {
		return
	}
	h := f.w.Header()
	known := make(map[string]bool)
	for name := range strings.SplitSeq(h.Get("Trailer"), ", ") {
		known[name] = true
	}
	for name, values := range res.Trailer {
		switch {
		case !mayTrail(name):
		case known[name]:
			h[name] = values
		default:
			h[http.TrailerPrefix+name] = values
		}
	}
}

// hangUp ends an HTTP/1.1 answer before its request has ended. net/http would
// read on without a limit of time, or reset the connection under what the visitor
// has not read yet (RFC 9112, section 9.6).
func (f *forwarding) hangUp(end []byte) {
	conn, _, err := f.rc.Hijack()
	if err != nil {
		return // of a ResponseWriter that is not net/http's
	}
	defer conn.Close()
	if _, err := conn.Write(end); err != nil {
		return
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, conn, lingerBytes)
	}
}
