//go:build linux || darwin

package transport

import (
	"net"
	"net/http/httptest"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnsent: both ends of a session keep what waits in the kernel short.
func TestUnsent(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){
		"http": (*httptest.Server).Start, "https": (*httptest.Server).StartTLS,
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, kind Kind) {
				s := newServer(t, start)
				d := &Dialer{Server: s.URL}
				if s.TLS != nil {
					d.TLS = roots(s)
				}
				client := dial(t, d, kind)
				for end, conn := range map[string]net.Conn{"client": client, "server": s.next(t).conn} {
					if got := unsent(t, conn); got != maxUnsent {
						t.Errorf("%s: the kernel may hold %d unsent bytes, want %d", end, got, maxUnsent)
					}
				}
			})
		})
	}
}

func unsent(t *testing.T, conn net.Conn) (limit int) {
	t.Helper()
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var gone error
	if err := raw.Control(func(fd uintptr) {
		limit, gone = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
	}); err != nil || gone != nil {
		t.Fatal(err, gone)
	}
	return limit
}
