// Package listener is for tests that need somebody who takes connections. It stands apart from rig,
// whose clients and servers a test of a low layer has no need to link.
package listener

import (
	"net"
	"sync"
	"testing"
)

// TCP listens on a port of 127.0.0.1 that the system chooses, as [On] does, and returns the address.
func TCP(tb testing.TB, handle func(net.Conn)) (addr string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	On(tb, l, handle)
	return l.Addr().String()
}

// On has handle called with each connection that l takes, in a goroutine of its own, and closes the
// connection when handle returns. When the test ends, so do l and what it has taken, and On's
// cleanup waits until all have been handled.
func On(tb testing.TB, l net.Listener, handle func(net.Conn)) {
	var handling sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	handling.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			handling.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		handling.Wait()
	})
}
