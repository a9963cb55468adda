//go:build !unix

package forward

import "net"

// incoming reads a socket.
type incoming struct{ c *net.UDPConn }

func newIncoming(c *net.UDPConn) (*incoming, error) { return &incoming{c}, nil }

// next waits for a datagram. The buffer goes back to datagrams.
func (in *incoming) next() (buf *[maxDatagram]byte, n int, err error) {
	buf = datagrams.Get().(*[maxDatagram]byte)
	n, err = in.c.Read(buf[:])
	if err != nil {
		datagrams.Put(buf)
		return nil, 0, err
	}
	return buf, n, nil
}
