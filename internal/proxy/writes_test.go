package proxy

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// counted is a connection whose writes are counted.
type counted struct {
	net.Conn
	n *atomic.Int32
}

func (c counted) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

type countedListener struct {
	net.Listener
	n *atomic.Int32
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return counted{c, l.n}, err
}

// Each write is a system call, or a frame: a request's header section is one, and so
// is a small answer with its body.
func TestWrites(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for c.head() != "" {
			c.send("HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi")
		}
	})
	var up, down atomic.Int32
	tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) {
		c, err := dialer(app.addr())(ctx)
		return counted{c, &up}, err
	}}
	defer tr.CloseIdle()
	l := loopback(t)
	serve(t, countedListener{l, &down}, hop(tr, Options{}, nil))
	v := visit(t, l.Addr().String(), "")
	for range 3 {
		v.send("GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("x", bufferSize) + "\r\n\r\n")
		res := v.head("GET")
		if b, err := io.ReadAll(res.Body); string(b) != "hi" || err != nil {
			t.Fatal(b, err)
		}
	}
	if up.Load() != 3 || down.Load() != 3 {
		t.Errorf("3 requests took %d writes, their answers %d", up.Load(), down.Load())
	}
}
