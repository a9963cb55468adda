package rig

import (
	"errors"
	"syscall"
)

// dieWithParent makes the system end a child whose parent was killed and could not do it.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// likeEthernet makes a socket of the path send and announce segments of Ethernet's size, and take no
// more than buffer bytes ahead of its reader. Loopback's segments of 64 KiB do not go with short
// buffers: the sender would wait for a timer whenever a whole one does not fit. It is for the Control
// of a dialer or listener, as a connection agrees on both when it opens.
func likeEthernet(buffer int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		outer := c.Control(func(fd uintptr) {
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1448),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffer),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, buffer),
			)
		})
		return errors.Join(outer, err)
	}
}
