package tunnel

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	prefaceSize = 24 // RFC 9113, section 3.4
	headSize    = 9  // of a frame, section 4.1
	typeGoAway  = 0x7
)

// attached is one connection to a proxy, on which that is the client of HTTP.
type attached struct {
	net.Conn
	a       *attachment
	since   time.Time
	frames  *frames     // nil: HTTP/1.1
	begun   atomic.Bool // the preface came, of HTTP/2
	leaving atomic.Bool // no more requests are wanted, of HTTP/2
	inject  []byte      // what is read before all else; nil: nothing was yet

	once  sync.Once
	state http.ConnState // guarded by a.mu
	used  bool           // a request came; guarded by a.mu
	cause error          // why it broke; guarded by a.mu
}

// Read also looks for the proxy's GOAWAY, and slips in one of ours: net/http's server
// then says GOAWAY itself and goes on with what is under way. Its Shutdown would
// close a connection that is idle without a word, and lose what comes at that moment.
func (c *attached) Read(p []byte) (int, error) {
	for {
		if c.leaving.Load() && c.frames.between() && c.inject == nil {
			c.inject = []byte{0, 0, 8, typeGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			c.Conn.SetReadDeadline(time.Time{})
		}
		if len(c.inject) > 0 {
			n := copy(p, c.inject)
			c.inject = c.inject[n:]
			return n, nil
		}
		n, err := c.Conn.Read(p)
		if c.frames != nil && c.frames.pass(p[:n]) {
			c.a.goesAway()
		}
		if c.frames != nil && c.frames.begun == prefaceSize {
			c.begun.Store(true)
		}
		if n == 0 && c.leaving.Load() && c.inject == nil && errors.Is(err, os.ErrDeadlineExceeded) {
			c.Conn.SetReadDeadline(time.Time{})
			continue
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.a.broke(c, err)
		}
		return n, err
	}
}

// Write also notes why it failed: that may show before a read does.
func (c *attached) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.a.broke(c, err)
	}
	return n, err
}

// leave has the proxy send no more requests, of HTTP/2.
func (c *attached) leave() {
	if !c.begun.Load() {
		c.Close() // there is nobody to be told
		return
	}
	if !c.leaving.Swap(true) {
		c.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes a read
	}
}

// CloseWrite ends the writing side, or all of a connection that has no halves.
func (c *attached) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// NetConn is for what makes the end an abort.
func (c *attached) NetConn() net.Conn { return c.Conn }

func (c *attached) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.a.remove(c) })
	return err
}

// frames follows what a client of HTTP/2 sends. One goroutine reads.
type frames struct {
	begun int // bytes of the preface that came
	head  [headSize]byte
	n     int // bytes of head that came
	left  int // bytes of the payload that are to come
}

// pass follows p, and reports whether a GOAWAY began in it.
func (f *frames) pass(p []byte) (goAway bool) {
	if f.begun < prefaceSize {
		n := min(prefaceSize-f.begun, len(p))
		f.begun, p = f.begun+n, p[n:]
	}
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left, p = f.left-n, p[n:]
			continue
		}
		n := copy(f.head[f.n:], p)
		f.n, p = f.n+n, p[n:]
		if f.n == headSize {
			f.n, f.left = 0, int(binary.BigEndian.Uint32(f.head[:4])>>8)
			goAway = goAway || f.head[3] == typeGoAway
		}
	}
	return goAway
}

// between reports whether no frame has begun that has not ended.
func (f *frames) between() bool {
	return f != nil && f.begun == prefaceSize && f.n == 0 && f.left == 0
}

// why is what a connection broke with as events tell it.
func why(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errHungUp
	case err == nil, errors.Is(err, net.ErrClosed):
		return errGaveUp
	}
	return err
}
