package transport

import (
	"net"
	"sync"
)

// gathered is how many bytes a gatherer sends in one write: a batch of frames of
// the multiplexer, and the header of the message around it.
const gathered = 65 << 10

var gatherBuffers = sync.Pool{New: func() any { return new([gathered]byte) }}

// gatherer joins what package websocket writes for one message, which is pieces
// of 4 KiB where it is masked. Between messages it holds no memory.
type gatherer struct {
	net.Conn

	mu  sync.Mutex // guards the following
	on  bool
	buf []byte // what waits for flush
}

// gather keeps what is written until flush.
func (g *gatherer) gather() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = true
}

func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.on {
		return g.Conn.Write(p)
	}
	if len(g.buf)+len(p) > gathered {
		if err := g.send(); err != nil {
			return 0, err
		}
		if len(p) > gathered {
			return g.Conn.Write(p)
		}
	}
	if g.buf == nil {
		g.buf = gatherBuffers.Get().(*[gathered]byte)[:0]
	}
	g.buf = append(g.buf, p...)
	return len(p), nil
}

// flush writes what was gathered.
func (g *gatherer) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = false
	return g.send()
}

func (g *gatherer) send() error {
	if g.buf == nil {
		return nil
	}
	_, err := g.Conn.Write(g.buf)
	gatherBuffers.Put((*[gathered]byte)(g.buf[:gathered]))
	g.buf = nil
	return err
}
