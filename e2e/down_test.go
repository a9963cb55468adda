//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
)

// TestAppIsDown has the app refuse, hang, answer garbage or leave: each has its
// code, and when the app is back the same tunnel carries its answer (R42).
func TestAppIsDown(t *testing.T) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	ways := map[string]func(*net.TCPConn){
		"504 app_timeout":      func(*net.TCPConn) { <-over },
		"502 app_bad_response": func(c *net.TCPConn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n") },
		"200 ": func(c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nup")
		},
	}
	eachTransport(t, func(t *testing.T, transport string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		target := l.Addr().String()
		s := startServer(t)
		c := startClient(t, target, "--server", s.url, "--name", "app", "--transport", transport, "--app-timeout", "300ms")
		check := func(want string) {
			t.Helper()
			for _, method := range []string{"GET", "POST"} {
				req, err := http.NewRequest(method, c.url, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := visitor(t).Do(req)
				if err != nil {
					t.Fatalf("%s: %v, want %s", method, err, want)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Tunnel-Error")); got != want || err != nil {
					t.Errorf("%s: got %s %q, %v; want %s", method, got, body, err, want)
				}
			}
		}
		var way atomic.Value
		serve := func(l net.Listener) {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					if _, err := conn.Read(make([]byte, 4<<10)); err == nil {
						ways[way.Load().(string)](conn.(*net.TCPConn))
					}
				}()
			}
		}
		way.Store("200 ")
		go serve(l)
		check("200 ")
		for _, want := range []string{"504 app_timeout", "502 app_bad_response"} {
			way.Store(want)
			check(want)
		}
		l.Close()
		check("502 app_refused")
		way.Store("200 ")
		var again net.Listener
		eventually(t, "the app's port is free again", func() bool {
			var err error
			again, err = net.Listen("tcp", target)
			return err == nil
		})
		t.Cleanup(func() { again.Close() })
		go serve(again)
		check("200 ")
		if got := c.kinds(); !slices.Equal(got, []string{"ready"}) {
			t.Errorf("events %q: the tunnel did not stay up", got)
		}
	})
}
