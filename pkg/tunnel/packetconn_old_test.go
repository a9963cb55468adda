package tunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// A server that knows private endpoints, and none of kind UDP, is said to be that.
func TestDialUDPAtOldServer(t *testing.T) {
	f, end := begin()
	defer end()
	f.hello = func(_ int, _ *protocol.Hello, m mux.Session, control mux.Stream) bool {
		protocol.Write(control, &protocol.Message{Welcome: &protocol.Welcome{Version: 1, Resume: "secret", Connect: true}})
		for {
			s, err := m.Accept()
			if err != nil {
				return true
			}
			if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				io.WriteString(s, "HTTP/1.1 400 Bad Request\r\nTunnel-Error: bad_request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}
			s.Close()
		}
	}
	c, _ := f.client()
	d, err := c.Connect(context.Background(), ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.DialUDP(context.Background(), "dns")
	if !errors.Is(err, &protocol.Error{Code: protocol.KindUnsupported}) || !strings.Contains(err.Error(), "newer tunnel-server") {
		t.Errorf("told %v", err)
	}
}
