package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lineConn is the connection of a Line. While nothing is asked for on it, it notices
// the origin's end.
type lineConn struct {
	net.Conn
	done   <-chan struct{} // closed by Close, as ctx's
	ctx    context.Context // ends with the connection; nothing is passed in it
	end    context.CancelFunc
	silent atomic.Bool
	heard  atomic.Bool // something came since the last look
	broke  atomic.Bool // a read failed: it has ended, or was closed elsewhere
	once   sync.Once
	ear    atomic.Pointer[func()] // called when the next byte comes; nil: nobody listens

	watching chan struct{} // closed when the watch has ended; nil: there is none
}

func newLineConn(conn net.Conn) *lineConn {
	ctx, end := context.WithCancel(context.Background())
	return &lineConn{Conn: conn, done: ctx.Done(), ctx: ctx, end: end}
}

func (c *lineConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		c.end()
	})
	return err
}

// Read also tells who listens for a sign of life, and notes the connection's end.
func (c *lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.note(err)
	if n > 0 {
		c.heard.Store(true)
	}
	if n > 0 && c.ear.Load() != nil {
		if tell := c.ear.Swap(nil); tell != nil {
			(*tell)()
		}
	}
	return n, err
}

// note takes in what became of a read.
func (c *lineConn) note(err error) {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if errors.Is(err, syscall.ETIMEDOUT) {
		c.silent.Store(true) // the kernel has asked for a sign of life, and heard none
	}
	c.broke.Store(true)
}

// watch reads until unwatch. An origin that says anything now says it unasked: nobody
// can tell what it belongs to, and the connection is closed (S2).
func (c *lineConn) watch() {
	watching := make(chan struct{})
	c.watching = watching
	go func() {
		defer close(watching)
		var b [1]byte
		n, err := c.Conn.Read(b[:])
		c.note(err)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			return // unwatch
		}
		c.Close()
	}()
}

// unwatch ends the watch, and reports whether the connection can be used.
func (c *lineConn) unwatch() bool {
	if c.watching == nil {
		return false
	}
	c.Conn.SetReadDeadline(time.Unix(1, 0))
	<-c.watching
	c.watching = nil
	if c.Conn.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// CloseWrite passes on what the connection has.
func (c *lineConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// NetConn returns the connection below, whose options an abort sets.
func (c *lineConn) NetConn() net.Conn { return c.Conn }
