//go:build linux || darwin

package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnsent keeps what waits in the kernel to be sent short. It waits in the
// streams instead, where a small message passes by a large one.
func limitUnsent(conn net.Conn) {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	// Where the system knows no such limit, there is none.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}
