package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Unheard reports whether the peer's kernel owes conn an acknowledgement, and has sent none
// for d. One that is well acknowledges also while its process reads nothing, which
// TCP_USER_TIMEOUT does not tell from a peer that is gone. A connection that was idle for d
// owes one as soon as something is sent: look again before believing it.
func Unheard(conn net.Conn, d time.Duration) (unheard bool) {
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		unheard = err == nil && (info.Unacked > 0 || info.Probes > 0) && time.Duration(info.Last_ack_recv)*time.Millisecond >= d
	})
	return unheard
}
