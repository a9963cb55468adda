package upstream

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
)

// unheardConn is one whose peer's end is what the kernel says of a peer that it has not
// heard, however often it asked.
type unheardConn struct{ net.Conn }

func (c unheardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
		err = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	}
	return n, err
}

// An origin that the kernel has given up was silent, and one that ends was not: visitors
// wait longer for that to be back.
func TestLineUnheard(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, silent := range []bool{true, false} {
			here, there := tcpPair(t)
			if silent {
				here = unheardConn{here}
			}
			line := lineOn(t, h2, http.NotFoundHandler(), here, there)
			there.Close()
			<-line.Done()
			if line.Silent() != silent {
				t.Errorf("silent: %v, want %v", line.Silent(), silent)
			}
		}
	})
}
