package edge

import (
	"crypto/tls"
	"errors"
	"sync"
	"time"
)

// preface begins a connection of HTTP/2 (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// timedConn closes itself where an HTTP/2 visitor is too slow with what is not a
// body. A timer does it: the deadlines are net/http's, which also bound the
// preface. The rest is for the one who reads, until the protocol is known.
type timedConn struct {
	wrapper
	timeout  time.Duration
	accepted time.Time            // or when its handshake was over
	entry    *admitted            // what its Gate knows of it; nil: there is none
	tls      *tls.ConnectionState // nil: it has no TLS
	other    bool                 // than HTTP/2: framing follows it
	prefaced int                  // bytes of the preface that came
	frames   frames
	framing  framing
	rations  rations

	mu     sync.Mutex // guards the following fields
	timer  *time.Timer
	closed bool
}

var errPreface = errors.New("no preface of HTTP/2, which the handshake agreed on")

func (c *timedConn) Read(p []byte) (int, error) {
	n, err := c.tcpConn.Read(p)
	if c.other {
		c.framing.take(p[:n])
	} else if n > 0 {
		c.watch(p[:n])
		if c.other && c.tls != nil && c.tls.NegotiatedProtocol == protoHTTP2 {
			c.tcpConn.Close() // lest net/http answers in HTTP/1.1
			return 0, errPreface
		}
		cost, bytes := c.frames.spent()
		time.Sleep(c.rations.spend(time.Now(), cost, bytes))
	}
	return n, err
}

func (c *timedConn) Write(p []byte) (int, error) {
	n, err := c.tcpConn.Write(p)
	c.rations.written.Add(int64(n))
	return n, err
}

// Close closes the connection and stops its timer.
func (c *timedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	return c.tcpConn.Close()
}

func (c *timedConn) watch(p []byte) {
	if c.prefaced < len(preface) {
		n := min(len(p), len(preface)-c.prefaced)
		if string(p[:n]) != preface[c.prefaced:c.prefaced+n] {
			c.other = true
			c.framing.take([]byte(preface[:c.prefaced]))
			c.framing.take(p)
			return
		}
		if c.prefaced += n; c.prefaced < len(preface) {
			return
		}
		p = p[n:]
		c.start(c.timeout - time.Since(c.accepted))
	}
	before := c.frames.waiting()
	switch settled := c.frames.take(p); {
	case !c.frames.waiting():
		if before {
			c.stop()
		}
	case settled || !before:
		c.start(c.timeout)
	}
}

// start sets the timer anew.
func (c *timedConn) start(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed, c.timeout <= 0:
	case c.timer == nil:
		c.timer = time.AfterFunc(d, func() { c.tcpConn.Close() })
	default:
		c.timer.Reset(d)
	}
}

func (c *timedConn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil { // it was closed before there was one
		c.timer.Stop()
	}
}

// What is looked at in a frame's header (RFC 9113, sections 4.1, 6.2 and 6.10).
const (
	frameHeaderSize   = 9
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameContinuation = 0x9
	flagEndHeaders    = 0x4
)

// frames follows the frames that a visitor sends. Whether they are valid is for
// net/http to find, which then closes the connection.
type frames struct {
	head  [frameHeaderSize]byte
	n     int  // bytes of head that came
	left  int  // bytes of the payload to come
	began bool // a header section came
	open  bool // a header section began and has not ended

	cost, data int64 // of the frames that ended, and bytes of bodies, since spent
}

// waiting reports whether more is to come soon: a first header section, the rest
// of one, or of a frame that is no body.
func (f *frames) waiting() bool {
	return f.unsettled() || 0 < f.n && (f.n < frameHeaderSize || f.head[3] != frameData)
}

// unsettled reports whether the end of a frame is not enough.
func (f *frames) unsettled() bool { return !f.began || f.open }

// take reads on. It reports whether nothing was waited for at some time.
func (f *frames) take(p []byte) (settled bool) {
	for len(p) > 0 {
		if f.n < frameHeaderSize {
			n := copy(f.head[f.n:], p)
			f.n += n
			p = p[n:]
			if f.n < frameHeaderSize {
				break
			}
			f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			f.open = f.open || f.head[3] == frameHeaders
		}
		n := min(f.left, len(p))
		f.left -= n
		p = p[n:]
		if f.left == 0 {
			f.end()
		}
		settled = settled || !f.waiting()
	}
	return settled
}

// end ends a frame.
func (f *frames) end() {
	f.cost += frameCost(f.head)
	if f.head[3] == frameData {
		f.data += int64(f.head[0])<<16 | int64(f.head[1])<<8 | int64(f.head[2])
	}
	section := f.head[3] == frameHeaders || f.head[3] == frameContinuation
	if section && f.head[4]&flagEndHeaders != 0 {
		f.began, f.open = true, false
	}
	f.n = 0
}

// spent is what the frames since the last call cost, and the bytes, see [rations].
func (f *frames) spent() (cost, bytes int64) {
	cost, bytes = f.cost, f.data
	f.cost, f.data = 0, 0
	return cost, bytes
}
