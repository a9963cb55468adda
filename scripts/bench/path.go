package main

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

const (
	chunkSize = 16 << 10 // read at most at once; the unit in which connections take turns
	socketMin = 64 << 10 // bytes of a socket's buffers, which the system would let grow to megabytes
	queueMin  = 32 << 10 // bytes of a connection that may wait for their turn
)

// A path is a long way to target: a relay that delivers each byte one way's delay after it left, and
// lets rate bytes a second through in each direction, shared by all its connections.
//
// It behaves as a bottleneck with a queue for each connection: they take turns chunk by chunk, so a
// connection with little to send does not wait behind one with much. Of each connection it holds what
// is on the way, delay times rate, and a short queue of about 2 ms; then it stops reading, so that
// the sender feels the path. Unlike in reality, connecting takes no time, and nothing is lost.
type path struct {
	target  string
	sockets int // bytes of their buffers
	there   *link
	back    *link
}

// newPath makes a path with a delay for each direction. Call close in the end.
func newPath(target string, delay time.Duration, rate int) *path {
	return &path{
		target: target, sockets: max(socketMin, bytesIn(3*time.Millisecond, rate)),
		there: newLink(delay, rate), back: newLink(delay, rate),
	}
}

func (p *path) close() {
	p.there.close()
	p.back.close()
}

// listen listens at addr, for serve.
func (p *path) listen(addr string) (net.Listener, error) {
	config := net.ListenConfig{Control: likeEthernet(p.sockets)}
	return config.Listen(context.Background(), "tcp", addr)
}

// serve relays what l accepts until l is closed.
func (p *path) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go p.relay(c.(*net.TCPConn))
	}
}

func (p *path) relay(c *net.TCPConn) {
	defer c.Close()
	dialer := net.Dialer{Control: likeEthernet(p.sockets)}
	conn, err := dialer.Dial("tcp", p.target)
	if err != nil {
		return
	}
	d := conn.(*net.TCPConn)
	defer d.Close()
	var both sync.WaitGroup
	both.Go(func() { p.there.carry(d, c) })
	both.Go(func() { p.back.carry(c, d) })
	both.Wait()
}

// carry takes one direction of a connection over the link and passes its end on. Where the end was an
// error, both sides are closed.
func (l *link) carry(dst, src *net.TCPConn) {
	f := l.join()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		if l.deliver(f, dst) {
			_ = dst.CloseWrite()
			return
		}
		_ = dst.SetLinger(0) // a reset: what was cut off must not look complete
		dst.Close()
		src.Close() // ends the reading below
	}()
	buf := make([]byte, chunkSize)
	for {
		n, err := src.Read(buf)
		if n > 0 && !l.send(f, append([]byte(nil), buf[:n]...)) {
			break
		}
		if err != nil {
			l.end(f, err == io.EOF)
			break
		}
	}
	<-delivered
}

// deliver writes f's chunks when they are due. It returns true at the end of f, and false where the
// sender or the receiver broke off.
func (l *link) deliver(f *flow, dst io.Writer) bool {
	for {
		c, clean := l.next(f)
		if c == nil {
			return clean
		}
		time.Sleep(time.Until(c.due))
		if _, err := dst.Write(c.data); err != nil {
			l.leave(f)
			return false
		}
		l.arrived(f, len(c.data))
	}
}
