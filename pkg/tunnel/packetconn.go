package tunnel

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/capsule"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxPending bounds what a PacketConn holds that was not read, in bytes, as the
	// buffer of a socket would.
	maxPending = 256 << 10
	// unreadCost is what each such datagram counts beside its payload, in bytes.
	unreadCost = 64
)

// DialUDP reaches the private endpoint name of kind UDP: the app there sees one visitor,
// at a socket of its own, until the connection is closed. Waiting and errors are those
// of Dial; that there is an endpoint of that name, and of another kind, has
// [protocol.WrongKind].
func (d *Connector) DialUDP(ctx context.Context, name string) (*PacketConn, error) {
	stream, err := d.dial(ctx, protocol.KindUDP, name)
	if err != nil {
		return nil, err
	}
	c := &PacketConn{stream: stream, queue: capsule.NewQueue(nil)}
	c.change.L = &c.mu
	c.tasks.Go(func() { c.queue.Run(stream) }) // where it fails, receive sees it, too
	c.tasks.Go(c.receive)
	return c, nil
}

// DialCapsules is DialUDP without its buffers, for who brings its own: the stream has
// DATAGRAM capsules of context 0 in both directions (RFC 9297, RFC 9298).
func (d *Connector) DialCapsules(ctx context.Context, name string) (net.Conn, error) {
	stream, err := d.dial(ctx, protocol.KindUDP, name)
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// PacketConn exchanges datagrams with a private endpoint of kind UDP, as a connected
// UDP socket does: each Write is one, and each Read. It is a net.Conn, and a
// net.PacketConn with one peer, by which net.Resolver and others know datagrams. What finds
// no room on the way is dropped. That nobody answers, as the app is not running, is no
// error. When the endpoint, or the connection to the server, is lost, Read and Write
// return an error from then on: dial again.
//
// Its methods may be called from many goroutines. Make it with [Connector.DialUDP].
type PacketConn struct {
	stream  *conn
	queue   *capsule.Queue
	tasks   sync.WaitGroup
	dropped atomic.Int64

	mu       sync.Mutex // guards the following
	change   sync.Cond  // of them
	unread   [][]byte
	size     int       // of unread, in bytes
	err      error     // why nothing comes any more
	deadline time.Time // of Read
	timer    *time.Timer
}

// receive takes what comes until the stream ends.
func (c *PacketConn) receive() {
	err := capsule.Receive(c.stream, nil, func(b []byte) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.size+len(b)+unreadCost > maxPending {
			c.dropped.Add(1)
			return nil
		}
		c.unread = append(c.unread, append([]byte(nil), b...))
		c.size += len(b) + unreadCost
		c.change.Broadcast()
		return nil
	}, nil) // there is no budget that could lack
	c.mu.Lock()
	c.err = cmp.Or(c.err, fmt.Errorf("%s: the endpoint, or the way to it, was lost: %w", c.stream.remote, err))
	c.change.Broadcast()
	c.mu.Unlock()
	c.queue.Close()
	c.stream.Reset()
}

// Read reads the next datagram. What b has no room for is lost, as with a socket.
func (c *PacketConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err == net.ErrClosed:
			return 0, c.err
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(c.unread) > 0:
			one := c.unread[0]
			c.unread[0] = nil
			c.unread = c.unread[1:]
			c.size -= len(one) + unreadCost
			return copy(b, one), nil
		case c.err != nil:
			return 0, c.err
		}
		c.change.Wait()
	}
}

// Write sends one datagram, of 65,527 bytes at most, and does not wait: where there is no
// room it is dropped, which is no error, and counted.
func (c *PacketConn) Write(b []byte) (int, error) {
	if len(b) > capsule.MaxPayload {
		return 0, fmt.Errorf("%s: a datagram of %d bytes is too large", c.stream.remote, len(b))
	}
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if !c.queue.Put(b) {
		c.dropped.Add(1)
	}
	return len(b), nil
}

// ReadFrom is Read; whom the datagram is from is RemoteAddr.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

// WriteTo is Write; there is one peer, whatever the address.
func (c *PacketConn) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// Dropped is how many datagrams found no room, in either direction. Those that were
// dropped elsewhere on the way are not known here.
func (c *PacketConn) Dropped() int64 { return c.dropped.Load() }

// Close ends the connection, and returns when all that it started has ended. What is
// queued is dropped. Closing twice is fine.
func (c *PacketConn) Close() error {
	c.mu.Lock()
	c.err = net.ErrClosed
	c.unread, c.size = nil, 0
	c.mu.Unlock()
	c.queue.Close()
	c.stream.Reset()
	c.tasks.Wait()
	c.SetReadDeadline(time.Time{})
	return nil
}

// LocalAddr is that of the session's stream.
func (c *PacketConn) LocalAddr() net.Addr { return c.stream.LocalAddr() }

// RemoteAddr is "private:" and the endpoint's name.
func (c *PacketConn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// SetReadDeadline is when Read returns os.ErrDeadlineExceeded; zero: never.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.deadline = t
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.change.Broadcast()
		})
	}
	c.change.Broadcast()
	return nil
}

// SetWriteDeadline does nothing: Write does not wait.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
