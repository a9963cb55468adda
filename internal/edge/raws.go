package edge

import (
	"context"
	"net"
	"sync"
)

// raws are connections that are passed on as they are, of a [TCP] or a [TLS]. The zero
// value has none, and takes them.
type raws struct {
	mu      sync.Mutex // guards the following
	conns   map[*rawConn]struct{}
	closed  bool
	running sync.WaitGroup // what go has started
}

// rawConn is a visitor's connection.
type rawConn struct {
	net.Conn
	ctx    context.Context // of its way to the client
	cancel context.CancelFunc
}

// enter takes c, and passes it on in the background. Where no more are taken, c is
// aborted.
func (r *raws) enter(c net.Conn, pass func(*rawConn)) {
	v := &rawConn{Conn: c}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		v.abort()
		return
	}
	if r.conns == nil {
		r.conns = make(map[*rawConn]struct{})
	}
	r.conns[v] = struct{}{}
	r.running.Go(func() {
		defer r.leave(v)
		pass(v)
	})
}

func (r *raws) leave(v *rawConn) {
	v.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, v)
}

// shutdown takes no more connections, and waits for those that are open until ctx ends,
// whose error it returns; then they are aborted.
func (r *raws) shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	for v := range r.conns {
		v.abort()
	}
	r.mu.Unlock()
	<-done
	return ctx.Err()
}

// abort ends a connection so that the visitor sees an error.
func (v *rawConn) abort() {
	v.cancel()
	abort(v.Conn)
}

func abort(c net.Conn) {
	if tcp, ok := c.(lingerer); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
