//go:build unix

package forward

import (
	"net"
	"syscall"
)

// incoming reads a socket without holding a buffer while nothing comes, as there may
// be thousands of them.
type incoming struct {
	raw syscall.RawConn
	try func(fd uintptr) bool
	buf *[maxDatagram]byte
	n   int
	err error
}

func newIncoming(c *net.UDPConn) (*incoming, error) {
	raw, err := c.SyscallConn()
	in := &incoming{raw: raw}
	in.try = in.read
	return in, err
}

// next waits for a datagram. The buffer goes back to datagrams.
func (in *incoming) next() (buf *[maxDatagram]byte, n int, err error) {
	if err := in.raw.Read(in.try); err != nil {
		return nil, 0, err
	}
	return in.buf, in.n, in.err
}

// read reports whether there was something to read, or an error.
func (in *incoming) read(fd uintptr) bool {
	in.buf = datagrams.Get().(*[maxDatagram]byte)
	for {
		in.n, in.err = syscall.Read(int(fd), in.buf[:])
		if in.err != syscall.EINTR {
			break
		}
	}
	if in.err != nil {
		datagrams.Put(in.buf)
		in.buf = nil
	}
	return in.err != syscall.EAGAIN
}
