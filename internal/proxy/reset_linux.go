package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// hungUp reports whether conn, whose end was read and which was not ended here, was
// reset in truth. A peer that ended its side first, and reset the connection then,
// has ended it as well.
func hungUp(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	reset := false
	err = raw.Control(func(fd uintptr) {
		// tcp(7) is EPIPE where the end came before the reset, and it is still to be
		// told. Where it was told, to a Write, nobody knows.
		if isDead(fd) {
			cause, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			reset = syscall.Errno(cause) != unix.EPIPE
		}
	})
	return err != nil || reset // closed here, meanwhile: it was aborted
}

// awaitReset waits until conn, whose end was read, is reset or given up. It reports
// false where it was closed before, or a deadline of reading came.
func awaitReset(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	return err == nil && raw.Read(isDead) == nil
}

// isDead reports whether both directions of a TCP connection have ended. Of others,
// such as Unix sockets, it does not know what that means.
func isDead(fd uintptr) bool {
	if proto, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.IPPROTO_TCP {
		return false
	}
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}
