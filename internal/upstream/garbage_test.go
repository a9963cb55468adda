package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// queuedConn holds up nobody who writes: net.Pipe alone takes nothing before all was read.
type queuedConn struct {
	net.Conn
	queue chan []byte
}

func newQueuedConn(conn net.Conn) *queuedConn {
	c := &queuedConn{conn, make(chan []byte, 1000)}
	go func() {
		for b := range c.queue {
			c.Conn.Write(b)
		}
	}()
	return c
}

func (c *queuedConn) Write(p []byte) (int, error) {
	c.queue <- bytes.Clone(p)
	return len(p), nil
}

// An origin that takes nothing of what is written to it is given up after 30 s, or 60 s
// where it took a little at first, whatever it says meanwhile. One that takes a little
// again and again is not.
func TestLineTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, pipe := net.Pipe()
		there := newQueuedConn(pipe)
		defer close(there.queue)
		line, f := framedOn(t, here, there)
		p := NewLines(0)
		p.Add(line)
		upload := asked(t.Context(), "POST", "/", zeros{})
		upload.ContentLength = -1
		done := send(p, upload)
		header(t, f)
		says := make(chan struct{})
		go func() {
			defer close(says)
			for ; line.open(); time.Sleep(5 * time.Second) {
				f.WriteWindowUpdate(0, 1)
			}
		}()
		for range 10 {
			time.Sleep(20 * time.Second)
			if _, err := there.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		select {
		case <-line.Done():
		case <-time.After(10 * time.Minute):
			t.Error("it is kept")
			line.Close()
		}
		if d := time.Since(begin); d > time.Minute {
			t.Errorf("given up after %v", d)
		}
		if r := <-done; r.err == nil {
			t.Error("the upload was answered")
		}
		<-says
	})
}
