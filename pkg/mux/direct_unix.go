//go:build unix

package mux

import (
	"net"
	"syscall"
)

// direct writes to a socket what it takes at once, and never waits.
type direct struct {
	raw  syscall.RawConn
	b    []byte
	n    int
	once func(fd uintptr) bool // write, made once
}

// newDirect returns nil where conn is no socket.
func newDirect(conn net.Conn) *direct {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{raw: raw}
	d.once = d.write
	return d
}

// try returns how many bytes of b were written.
func (d *direct) try(b []byte) int {
	d.b, d.n = b, 0
	_ = d.raw.Write(d.once) // what is wrong, a Write of the conn says, too
	d.b = nil
	return d.n
}

func (d *direct) write(fd uintptr) bool {
	n, _ := syscall.Write(int(fd), d.b)
	d.n = max(n, 0)
	return true
}
