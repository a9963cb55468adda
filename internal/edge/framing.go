package edge

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/pkg/protocol"
)

// framing follows the HTTP/1 requests that a visitor sends, and finds the first one
// that another parser on the way may have taken for something else (S1): where
// net/http is more lenient than it may be (RFC 9112, section 6.1: Content-Length
// beside Transfer-Encoding, Transfer-Encoding in HTTP/1.0), and where being lenient
// is allowed and dangerous all the same (section 2.2: lines that end in LF alone;
// 5.2: folded lines; 6.3: Content-Length twice). What net/http refuses itself need
// not be found. After an upgrade what comes is soon no request, and not looked at
// any more.
type framing struct {
	state framingState
	began int64  // requests whose request line came
	left  uint64 // bytes of the body or chunk to come

	line  [48]byte // how the line begins; enough for each that frames
	n     int      // its bytes so far, without CR
	cr    bool     // CR was the last byte
	last  [8]byte  // how the request line ends: its version
	old   bool     // that is HTTP/1.0, where net/http ignores Transfer-Encoding
	sized bool     // the header section has Content-Length, which is left
	coded bool     // it has Transfer-Encoding

	// These are for the handler, which is called when Read has seen all of the header
	// section, and perhaps requests after it. They count from 1; 0: none.
	stop   atomic.Int64 // the first request that is not to be served
	served atomic.Int64 // requests that reached the handler
}

type framingState byte

const (
	requestLine framingState = iota
	headerField
	wholeBody
	chunkSize
	chunkData
	chunkEnd
	trailerField
	lost // nothing is followed any more
)

// take reads on.
func (f *framing) take(p []byte) {
	for len(p) > 0 && f.state != lost {
		if f.state == wholeBody || f.state == chunkData {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			f.skipped()
			continue
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			f.keep(p)
			return
		}
		f.keep(p[:i])
		p = p[i+1:]
		f.endLine()
	}
}

// skipped comes after bytes of a body.
func (f *framing) skipped() {
	switch {
	case f.left > 0:
	case f.state == chunkData:
		f.state = chunkEnd
	default:
		f.state = requestLine
	}
}

// keep takes a part of a line.
func (f *framing) keep(p []byte) {
	if len(p) == 0 {
		return
	}
	cr := bytes.IndexByte(p, '\r')
	if f.cr || cr >= 0 && cr < len(p)-1 || f.state == chunkSize && bytes.ContainsFunc(p, strange) {
		f.lose()
		return
	}
	if cr >= 0 {
		f.cr = true
		p = p[:cr]
	}
	if f.n < len(f.line) {
		copy(f.line[f.n:], p)
	}
	f.n += len(p)
	if f.state == requestLine {
		n := min(len(p), len(f.last))
		copy(f.last[:], f.last[n:])
		copy(f.last[len(f.last)-n:], p[len(p)-n:])
	}
}

// strange reports whether c has no place in a chunk's extensions.
func strange(c rune) bool { return c < ' ' && c != '\t' && c != '\r' || c == 0x7f }

// lose ends the following: the request that is being read is not to be served, or,
// once its header section was whole, the next one.
func (f *framing) lose() {
	if f.state == lost {
		return
	}
	at := f.began
	if f.state != headerField {
		at++
	}
	f.state = lost
	f.refuse(at)
}

// refuse has request n not served, nor any after it. Who reads and who serves call it
// in either order: the smallest n holds.
func (f *framing) refuse(n int64) {
	for {
		at := f.stop.Load()
		if at > 0 && at <= n || f.stop.CompareAndSwap(at, n) {
			return
		}
	}
}

func (f *framing) endLine() {
	if f.state == lost {
		return
	}
	line, whole := f.line[:min(f.n, len(f.line))], f.n <= len(f.line)
	ok := f.cr
	f.n, f.cr = 0, false
	if ok {
		switch f.state {
		case requestLine:
			f.startHead(line)
		case headerField:
			ok = f.field(line, whole)
		case chunkSize:
			ok = f.size(line, whole)
		case chunkEnd:
			ok = len(line) == 0
			f.state = chunkSize
		case trailerField:
			if len(line) == 0 {
				f.state = requestLine
			} else if name, _, found := bytes.Cut(line, colon); found || whole {
				ok = found && httpguts.ValidHeaderFieldName(string(name))
			}
		}
	}
	if !ok {
		f.lose()
	}
}

var colon = []byte(":")

// startHead begins a request. net/http knows which empty lines it skips.
func (f *framing) startHead(line []byte) {
	if len(line) > 0 {
		f.began++
		f.state, f.sized, f.coded, f.left = headerField, false, false, 0
		f.old = string(f.last[:]) == "HTTP/1.0"
	}
}

// field reports whether a line of the header section says nothing unclear.
func (f *framing) field(line []byte, whole bool) bool {
	if len(line) == 0 {
		return f.endHead()
	}
	if line[0] == ' ' || line[0] == '\t' {
		return false // folded; names that are none net/http refuses
	}
	name, value, found := bytes.Cut(line, colon)
	if !found {
		return !whole
	}
	value = bytes.Trim(value, " \t")
	switch {
	case len(name) == len("Content-Length") && strings.EqualFold(string(name), "Content-Length"):
		n, err := strconv.ParseUint(string(value), 10, 63)
		unclear := f.sized || err != nil || !whole
		f.sized, f.left = true, n
		return !unclear
	case len(name) == len("Transfer-Encoding") && strings.EqualFold(string(name), "Transfer-Encoding"):
		unclear := f.old || f.coded || !whole || len(value) != len("chunked") || !strings.EqualFold(string(value), "chunked")
		f.coded = true
		return !unclear
	}
	return true
}

// endHead reports whether it is clear where the body ends.
func (f *framing) endHead() bool {
	switch {
	case f.coded && f.sized:
		return false
	case f.coded:
		f.state = chunkSize
	case f.left > 0:
		f.state = wholeBody
	default:
		f.state = requestLine
	}
	return true
}

// size reads a chunk-size line (RFC 9112, section 7.1).
func (f *framing) size(line []byte, whole bool) bool {
	digits, _, extended := bytes.Cut(line, []byte(";"))
	digits = bytes.TrimRight(digits, " \t")
	n, err := strconv.ParseUint(string(digits), 16, 63)
	if err != nil || len(digits) > 16 || !whole && !extended {
		return false
	}
	f.left, f.state = n, chunkData
	if n == 0 {
		f.state = trailerField
	}
	return true
}

// unclear reports whether r, the next request of its connection, is not to be
// served. The connection is to be closed then.
func (f *framing) unclear(r *http.Request) bool {
	n := f.served.Add(1)
	if r.Close { // RFC 9112, section 9.6; in HTTP/1.0 net/http lets keep-alive win
		f.refuse(n + 1)
	}
	stop := f.stop.Load()
	return stop > 0 && n >= stop
}

// serveClear is the handler of connections of [Door.Listener]: it refuses the requests
// whose framing can be read in two ways, and those in another protocol than the TLS
// handshake agreed on. It is called for each request.
func (h *HTTP) serveClear(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*timedConn)
	if !ok {
		h.ServeHTTP(w, r)
		return
	}
	r.TLS = c.tls
	if c.framing.unclear(r) || c.tls != nil && (c.tls.NegotiatedProtocol == protoHTTP2) != (r.ProtoMajor == 2) {
		h.log().Debug("unclear framing", "remote", r.RemoteAddr)
		w.Header().Set("Connection", "close")
		h.fail(w, r, protocol.BadRequest)
		return
	}
	h.ServeHTTP(w, r)
}
