//go:build unix

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMessagesOneByOne has the app send each message when the one before has
// arrived, to each version of HTTP: none is kept back or joined (R27).
func TestMessagesOneByOne(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		a := newEventApp()
		target := app(t, a)
		for _, scheme := range []string{"http://", "h2c://"} {
			public := expose(t, scheme+target, transport)
			for _, version := range []string{"1.0", "1.1", "2"} {
				t.Run(scheme+" "+version, func(t *testing.T) {
					lines := bufio.NewScanner(openStream(t, public+"/events", version))
					for n := range events {
						awaitSend(t, a.seen, "message at the app")
						if !lines.Scan() || lines.Text() != fmt.Sprint("data: ", n) || !lines.Scan() {
							t.Fatalf("message %d: got %q, %v", n, lines.Text(), lines.Err())
						}
					}
					if lines.Scan() || lines.Err() != nil {
						t.Errorf("at the end: %q, %v", lines.Text(), lines.Err())
					}
				})
			}
		}
	})
}

// openStream returns the body of an answer whose header has arrived.
func openStream(t *testing.T, url, version string) io.Reader {
	t.Helper()
	v := visitor(t)
	if version == "1.0" {
		base, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
		conn := dialPublic(t, "http://"+base)
		fmt.Fprintf(conn, "GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n", path, base)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return res.Body
	}
	if version == "2" {
		v.Transport.(*http.Transport).Protocols = new(http.Protocols)
		v.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	}
	res, err := v.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res.Body
}

// awaitSend lets the app pass the gate.
func awaitSend(t *testing.T, g gate, what string) {
	t.Helper()
	select {
	case g <- struct{}{}:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}

// bareApp hands over each connection whose first request's header it has read.
func bareApp(t *testing.T) (addr string, asked <-chan *bareConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan *bareConn, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				c := &bareConn{Conn: conn, r: bufio.NewReader(conn)}
				for line := ""; line != "\r\n"; c.head += line {
					if line, err = c.r.ReadString('\n'); err != nil {
						conn.Close()
						return
					}
				}
				conns <- c
			}()
		}
	}()
	return l.Addr().String(), conns
}

type bareConn struct {
	net.Conn
	r    *bufio.Reader
	head string
}

// TestExpectContinue has a visitor that asks to be told to continue, and sends its
// body all the same: before the app has accepted it, nobody tells the visitor so,
// and no byte of the body gets to the app; where it is rejected none ever does
// (R28). By PTTH that is so where a connection of HTTP/1.1 is free, which the first
// request may come too early for.
func TestExpectContinue(t *testing.T) {
	eachSession(t, func(t *testing.T, transport string) {
		addr, asked := bareApp(t)
		public := expose(t, addr, transport)
		for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
			for _, accept := range []bool{true, false} {
				conn := dialPublic(t, public)
				answers := bufio.NewReader(conn)
				next := func(want int) {
					t.Helper()
					res, err := http.ReadResponse(answers, nil)
					if err != nil || res.StatusCode != want {
						t.Fatalf("the visitor got %v, %v; want %d", res, err, want)
					}
				}
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\n%s", hostOf(t, public), body)
				c := awaitOn(t, asked, "request at the app")
				t.Cleanup(func() { c.Close() })
				// Whatever was said in the app's name has come before this.
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
				next(http.StatusEarlyHints)
				c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if b, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("before it was accepted the app got %q, %v", b, err)
				}
				c.SetReadDeadline(time.Now().Add(patience))
				if !accept {
					io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
					next(http.StatusExpectationFailed)
					if b, _ := io.ReadAll(c.r); len(b) > 0 {
						t.Errorf("after it was rejected the app got %q", b)
					}
					continue
				}
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				next(http.StatusContinue)
				end := "hello"
				if strings.HasPrefix(body, "Transfer") {
					end = "0\r\n\r\n"
				}
				for got := ""; !strings.HasSuffix(got, end); {
					b, err := c.r.ReadByte()
					if err != nil {
						t.Fatalf("the app got %q, %v", got, err)
					}
					got += string(b)
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				c.Close()
				next(http.StatusOK)
			}
		}
	})
}
