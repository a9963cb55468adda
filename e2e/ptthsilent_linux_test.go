package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// mute is a proxy that grants PTTH and then is as one that has gone without a word: it
// tells of each connection that it was asked for, and says nothing on it.
func mute(t *testing.T) (port int, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	granted := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: %s\r\n\r\n", req.Header.Get("ALPN"))
				if req.Header.Get("ALPN") == "h2" {
					io.WriteString(conn, http2.ClientPreface)
					http2.NewFramer(conn, nil).WriteSettings()
				}
				granted <- struct{}{}
				io.Copy(io.Discard, r)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, granted
}

// The examples of HTTP/2 ask a proxy that is silent for a sign of life, and attach
// themselves again within 45 s where none comes; that of HTTP/1.1 has the system ask.
func TestPTTHExamplesNoticeSilence(t *testing.T) {
	for name, command := range map[string][]string{
		"go":     {buildOrigin(t), "-proxy", "PROXY", "-origin", "ORIGIN"},
		"node":   {need(t, "node", "nodejs"), "origin.mjs", "PROXY", "ORIGIN"},
		"python": {need(t, "python3", "python3"), "origin.py", "PROXY", "ORIGIN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, asked := mute(t)
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			startOrigin(t, &tunnelServer{addr: addr, url: "http://" + addr}, "demo", command...)
			late := time.After(time.Minute)
			for range map[string]int{"go": 2, "node": 2, "python": 4}[name] {
				select {
				case <-asked:
				case <-late:
					t.Fatal("it did not ask again")
				}
			}
			if name != "python" {
				return
			}
			for keptAlive(t, port) < 4 {
				select {
				case <-late:
					t.Fatal("its connections have no keep-alive")
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
}

// keptAlive is how many connections to port of this machine the system will ask for a
// sign of life within 15 s of silence: "02" is the timer of that, in 10 ms (proc(5)).
func keptAlive(t *testing.T, port int) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		var timer, left int
		if len(f) > 5 && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) && f[3] == "01" {
			if fmt.Sscanf(f[5], "%x:%x", &timer, &left); timer == 2 && left <= 1500 {
				n++
			}
		}
	}
	return n
}
