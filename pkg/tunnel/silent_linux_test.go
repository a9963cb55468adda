package tunnel

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/listener"
)

// Each connection to a proxy has a keep-alive that finds out within
// 45 s that the other end has gone: HTTP/1.1 has no PING (R8).
func TestPTTHKeepAlive(t *testing.T) {
	addr := listener.TCP(t, func(conn net.Conn) { grant(conn, true, new(atomic.Bool)) })
	dialled := make(chan *net.TCPConn, 10)
	c := &Client{Server: "http://" + addr, Transport: PTTH}
	c.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			dialled <- conn.(*net.TCPConn)
		}
		return conn, err
	}
	b, err := c.Attach(t.Context(), Options{Origin: "https://app.test"}, http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, what := range []string{"HTTP/2", "HTTP/1.1"} {
		conn := <-dialled
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if after := noticed(t, conn); after <= 45 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s: the end is noticed after %d s", what, after)
			}
		}
	}
}

// noticed is how long conn's peer may be gone until the system says so, in seconds.
func noticed(t *testing.T, conn *net.TCPConn) (seconds int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd uintptr, option int) int {
		n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	err = raw.Control(func(fd uintptr) {
		seconds = get(fd, syscall.TCP_KEEPIDLE) + get(fd, syscall.TCP_KEEPINTVL)*get(fd, syscall.TCP_KEEPCNT)
	})
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}
