package rig

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

// A Path is a long way to target: a relay that delivers each byte one way's delay after it left, and
// lets rate bytes a second through in each direction, shared by all its connections.
//
// It behaves as a bottleneck with a queue for each connection: they take turns chunk by chunk, so a
// connection with little to send does not wait behind one with much. Of each connection it holds what
// is on the way, delay times rate, and a short queue of about 2 ms; then it stops reading, so that
// the sender feels the path. Unlike in reality, connecting takes no time, and nothing is lost.
type Path struct {
	target  string
	sockets int // bytes of their buffers
	there   *link
	back    *link

	mu    sync.Mutex
	pairs map[*pair]struct{} // guarded by mu
}

// A pair is the two ends of one connection over the path.
type pair struct{ c, d *net.TCPConn }

// close closes both; with reset, what was cut off does not look complete.
func (p *pair) close(reset bool) {
	for _, c := range []*net.TCPConn{p.c, p.d} {
		if reset {
			_ = c.SetLinger(0)
		}
		c.Close()
	}
}

// NewPath makes a path with a delay for each direction. Call Close in the end.
func NewPath(target string, delay time.Duration, rate int) *Path {
	return &Path{
		target: target, sockets: max(socketMin, bytesIn(3*time.Millisecond, rate)),
		there: newLink(delay, rate), back: newLink(delay, rate), pairs: make(map[*pair]struct{}),
	}
}

// Close stops the path; what is under way is lost.
func (p *Path) Close() {
	p.there.close()
	p.back.close()
}

// Listen listens at addr, for Serve.
func (p *Path) Listen(addr string) (net.Listener, error) {
	config := net.ListenConfig{Control: likeEthernet(p.sockets)}
	return config.Listen(context.Background(), "tcp", addr)
}

// Serve relays what l accepts until l is closed.
func (p *Path) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go p.relay(c.(*net.TCPConn))
	}
}

func (p *Path) relay(c *net.TCPConn) {
	defer c.Close()
	dialer := net.Dialer{Control: likeEthernet(p.sockets)}
	conn, err := dialer.Dial("tcp", p.target)
	if err != nil {
		_ = c.SetLinger(0) // as one that is refused
		return
	}
	one := &pair{c, conn.(*net.TCPConn)}
	defer one.d.Close()
	p.note(one, true)
	defer p.note(one, false)
	var both sync.WaitGroup
	both.Go(func() { p.there.carry(one, one.d, one.c) })
	both.Go(func() { p.back.carry(one, one.c, one.d) })
	both.Wait()
}

func (p *Path) note(one *pair, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open {
		p.pairs[one] = struct{}{}
	} else {
		delete(p.pairs, one)
	}
}

// carry takes one direction of a connection over the link and passes its end on. Where the end was an
// error, both sides are closed.
func (l *link) carry(one *pair, dst, src *net.TCPConn) {
	f := l.join()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		switch {
		case !l.deliver(f, dst):
			one.close(true)
		case f.cut == nil || f.cut.how == HalfClose:
			_ = dst.CloseWrite()
		default:
			one.close(f.cut.how == Reset)
		}
		if f.cut != nil {
			close(f.cut.done)
		}
	}()
	buf := make([]byte, chunkSize)
	for {
		n, err := src.Read(buf)
		n = l.allow(f, n)
		if n > 0 && !l.send(f, append([]byte(nil), buf[:n]...)) {
			break
		}
		if f.cut != nil {
			l.end(f, true)
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
