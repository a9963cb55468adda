package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/proxy"
)

// answeredBy is what comes of a GET whose origin of HTTP/1.1 says says, and then, where
// that is asked for, ends the connection.
func answeredBy(t *testing.T, says string, end bool) result2 {
	t.Helper()
	here, there := tcpPair(t)
	line, err := NewLine(t.Context(), here, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(line.Close)
	p := NewLines(0)
	p.Add(line)
	go func() {
		http.ReadRequest(bufio.NewReader(there))
		io.WriteString(there, says)
		if end {
			there.(*net.TCPConn).CloseWrite()
		}
		io.Copy(io.Discard, there)
	}()
	r := <-send(p, asked(t.Context(), "GET", "/", nil))
	<-line.Done()
	return r
}

// Who answers what is no HTTP has lost no connection: it is told apart from who has, also
// where the connection is closed for it, and is not asked again (R42).
func TestLineGarbage(t *testing.T) {
	for name, says := range map[string]string{
		"garbage":            "\x00\x01garbage",
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
		"101 unasked":        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"bare CR":            "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
		"NUL":                "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"header without end": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20),
		"no chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		r := answeredBy(t, says, false)
		if !errors.Is(r.err, proxy.ErrBadResponse) || errors.Is(r.err, ErrSessionLost) || errors.Is(r.err, ErrUnanswered) {
			t.Errorf("%s: got %v", name, r.err)
		}
	}
	for name, says := range map[string]string{
		"nothing": "",
		"a part":  "HTTP/1.1 200 OK\r\nContent-",
		"a body":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbeg",
	} {
		if r := answeredBy(t, says, true); !errors.Is(r.err, ErrSessionLost) {
			t.Errorf("%s, and the end: got %v", name, r.err)
		}
	}
}
