package proxy

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// response is the ResponseWriter of a Server.
type response struct {
	c      *served
	req    *http.Request
	body   *incoming // nil: none
	header http.Header

	status    int   // 0: not yet
	left      int64 // what is still to come of a known length; -1: not known
	chunked   bool
	close     bool // the connection is closed afterwards
	announced bool // the header section had a Trailer
	hijacked  bool
}

func (w *response) Header() http.Header { return w.header }

// WriteHeader sends 1xx at once, and writes any other header section into the
// buffer. Only the first one counts that is not interim.
func (w *response) WriteHeader(status int) {
	switch {
	case w.status != 0 || w.hijacked:
		return
	case status < 200 && status != http.StatusSwitchingProtocols:
		writeStatus(w.c.writer(), status)
		w.writeFields()
		w.c.w.WriteString("\r\n")
		w.c.w.Flush() // an error stays, and finish sees it
		return
	}
	w.status = status
	w.close = w.req.Close || w.body != nil && !w.body.ended.Load() || status == http.StatusSwitchingProtocols ||
		httpguts.HeaderValuesContainsToken(w.header["Connection"], "close")
	b := w.c.writer()
	writeStatus(b, status)
	w.writeFields()
	if w.close {
		b.WriteString("Connection: close\r\n")
	}
	w.writeFraming()
	b.WriteString("\r\n")
}

// writeFraming tells the peer, and Write, where the body ends.
func (w *response) writeFraming() {
	b, lengths := w.c.w, w.header["Content-Length"]
	if !mayHaveBody(w.req.Method, w.status) || w.status == http.StatusSwitchingProtocols {
		// The length that a body would have had (RFC 9110, section 8.6).
		if len(lengths) == 1 && w.status != http.StatusNoContent && w.status != http.StatusSwitchingProtocols {
			writeField(b, "Content-Length", sanitized(lengths[0]))
		}
		return
	}
	if len(lengths) == 1 && w.header["Transfer-Encoding"] == nil {
		if n, err := strconv.ParseUint(lengths[0], 10, 63); err == nil {
			w.left = int64(n)
			writeField(b, "Content-Length", lengths[0])
			return
		}
	}
	w.chunked = true
	b.WriteString("Transfer-Encoding: chunked\r\n")
	for _, v := range w.header["Trailer"] {
		w.announced = true
		writeField(b, "Trailer", sanitized(v))
	}
}

func writeStatus(b *bufio.Writer, status int) {
	b.WriteString("HTTP/1.1 ")
	b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(status), 10))
	b.WriteByte(' ')
	b.WriteString(http.StatusText(status))
	b.WriteString("\r\n")
}

// writeFields writes the fields that do not frame, and can be read again.
func (w *response) writeFields() {
	for name, values := range w.header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		case "Connection":
			if w.close {
				continue
			}
		}
		if !httpguts.ValidHeaderFieldName(name) { // as http.TrailerPrefix
			continue
		}
		for _, v := range values {
			writeField(w.c.w, name, sanitized(v))
		}
	}
}

// sanitized is v without line ends: an app may send bare ones.
func sanitized(v string) string {
	if strings.ContainsAny(v, "\r\n") {
		return strings.NewReplacer("\r", " ", "\n", " ").Replace(v)
	}
	return v
}

// Write writes a part of the body, in HTTP/1.1's chunks where no length is known.
func (w *response) Write(p []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch b := w.c.writer(); {
	case w.req.Method == http.MethodHead:
		return len(p), nil
	case w.chunked && len(p) > 0:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(len(p)), 16))
		b.WriteString("\r\n")
		b.Write(p)
		if _, err := b.WriteString("\r\n"); err != nil {
			return 0, err
		}
		return len(p), nil
	case w.chunked:
		return 0, nil
	case w.left < 0:
		return 0, http.ErrBodyNotAllowed
	case int64(len(p)) > w.left:
		return 0, http.ErrContentLength
	default:
		n, err := b.Write(p)
		w.left -= int64(n)
		return n, err
	}
}

// Flush is FlushError without its error.
func (w *response) Flush() { w.FlushError() }

// FlushError sends what was written.
func (w *response) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.c.writer().Flush()
}

// EnableFullDuplex is there for http.ResponseController: it is never off.
func (w *response) EnableFullDuplex() error { return nil }

// SetReadDeadline counts until the request's end.
func (w *response) SetReadDeadline(t time.Time) error {
	w.c.timed.Store(true)
	return w.c.conn.SetReadDeadline(t)
}

// SetWriteDeadline counts until the request's end.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.c.timed.Store(true)
	return w.c.conn.SetWriteDeadline(t)
}

// Hijack hands the connection over, with what was read too far.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if w.body != nil {
		w.body.stop()
	}
	w.hijacked = true
	c := w.c
	rw := bufio.NewReadWriter(c.r, c.writer())
	c.r, c.w = nil, nil // they go with it
	return c.conn, rw, c.conn.SetDeadline(time.Time{})
}

// finish ends the answer, and reports what becomes of the connection.
func (w *response) finish() verdict {
	if w.hijacked {
		return handed
	}
	if w.status == 0 {
		w.header["Content-Length"] = []string{"0"}
		w.WriteHeader(http.StatusOK)
	}
	whole := w.end()
	complete := w.body == nil || w.body.stop()
	switch {
	case !whole:
		return cut // it must not look complete
	case !complete:
		return linger
	case w.close:
		return leave
	}
	if w.c.timed.Swap(false) {
		w.c.conn.SetDeadline(time.Time{})
	}
	return keep
}

// end sends what is left of the answer, and reports whether it is whole.
func (w *response) end() bool {
	b := w.c.writer()
	switch {
	case w.chunked:
		b.Write(lastChunk(w.trailer()))
	case w.left > 0:
		return false
	}
	return b.Flush() == nil
}

// trailer is what follows the last chunk: the fields that were announced, and those
// with http.TrailerPrefix.
func (w *response) trailer() http.Header {
	var t http.Header
	set := func(name string, values []string) {
		if t == nil {
			t = make(http.Header)
		}
		t[name] = values
	}
	if w.announced {
		for _, v := range w.header["Trailer"] {
			for name := range strings.SplitSeq(v, ",") {
				name = http.CanonicalHeaderKey(strings.TrimSpace(name))
				set(name, w.header[name])
			}
		}
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			set(name, values)
		}
	}
	return t
}
