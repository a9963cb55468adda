package edge_test

import (
	"io"
	"net"
	"testing"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/server"
)

// An error does not wait for the body of its request, and neither does the
// connection's end.
func TestErrorBeforeTheBody(t *testing.T) {
	closed := loopback(t)
	closed.Close()
	addr := exposed(t, server.Config{}, closed.Addr().String(), forward.Options{})
	for _, host := range []string{"nobody.example.com", "demo.example.com"} {
		for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
			v := visit(t, addr)
			v.send("POST / HTTP/1.1", "Host: "+host, framing)
			if a := v.receive("POST"); a.code() == "" || !a.Close {
				t.Errorf("%s, %s: got %s", host, framing, answered(a))
			}
			_, err := io.Copy(io.Discard, v.r)
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				t.Errorf("%s, %s: the connection stays open", host, framing)
			}
		}
	}
}
