//go:build linux || darwin

package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// LimitUnsent keeps what waits in the kernel to be sent on conn short, at 128 KiB. It
// waits in the streams instead: there a small message passes by a large one, and who
// does not read holds no more than a stream may. The kernel would let each connection
// have megabytes, out of a store that all of the machine's share.
func LimitUnsent(conn net.Conn) {
	// Where the system knows no such limit, there is none.
	control(conn, func(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) })
}
