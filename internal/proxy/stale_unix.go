//go:build unix

package proxy

import (
	"net"
	"syscall"
)

// stale reports whether an idle connection has ended, or has bytes that nobody
// asked for. Where that can't be told (streams) it answers false. On TLS any
// byte counts: what a server sends unasked is most often its end.
func stale(c net.Conn) bool {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false // as of TLS that refuses its socket
	}
	var alive bool
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		alive = n < 0 && (err == syscall.EAGAIN || err == syscall.EWOULDBLOCK)
		return true
	})
	return err != nil || !alive
}
