package transport

import (
	"net"
	"syscall"
	"time"
)

// KeepAlive has the kernel notice within 35 s that the peer of conn is gone, as long as
// nothing waits to be acknowledged: see [Unheard] for then.
func KeepAlive(conn net.Conn) {
	if tcp, ok := below(conn).(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 2})
	}
}

// below is the connection that the kernel knows.
func below(conn net.Conn) net.Conn {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = inner.NetConn()
	}
}

// control calls f with the descriptor of conn, if it has one.
func control(conn net.Conn, f func(fd int)) {
	sc, ok := below(conn).(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
