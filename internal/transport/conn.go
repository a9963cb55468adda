package transport

import (
	"bufio"
	"errors"
	"net"
	"sync"
)

// maxUnsent is how many bytes the kernel may hold of a session's or a visitor's connection that
// have not been sent at all.
const maxUnsent = 128 << 10

// restConn is a connection of which some bytes were read ahead, behind the
// head of the HTTP message that upgraded it. They belong to the new protocol.
type restConn struct {
	net.Conn

	mu   sync.Mutex // guards rest
	rest []byte
}

// withRest returns conn with the bytes that br has read ahead of it; conn
// itself where there are none, so that its type stays visible.
func withRest(conn net.Conn, br *bufio.Reader) net.Conn {
	n := br.Buffered()
	if n == 0 {
		return conn
	}
	ahead, _ := br.Peek(n) // cannot fail: they are there
	return &restConn{Conn: conn, rest: append([]byte(nil), ahead...)}
}

func (c *restConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
		c.mu.Unlock()
		return n, nil
	}
	c.mu.Unlock()
	return c.Conn.Read(p)
}

// CloseWrite ends the writing side where the connection below can do that.
func (c *restConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below, for its options only: reading from it
// loses bytes.
func (c *restConn) NetConn() net.Conn { return c.Conn }
