//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const (
	// memoryLimit is small, so that little load is too much.
	memoryLimit = 128 << 20
	// beside is what comes to it: the program's text, and what was taken before the
	// levels of the limit were seen.
	beside = 32 << 20
)

// status is a field of proc_pid_status(5), in bytes.
func (p *process) status(t *testing.T, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

// crowd is many visitors' connections that read nothing by themselves.
type crowd struct {
	addr  string
	conns []net.Conn
}

// join makes n connections, and sends what on each.
func (c *crowd) join(t *testing.T, n int, what string) {
	t.Helper()
	// The kernel shall not take what the server is to hold.
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	const hands = 16
	var mu sync.Mutex
	var all sync.WaitGroup
	for range hands {
		all.Go(func() {
			for range n / hands {
				conn, err := d.Dial("tcp", c.addr)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				c.conns = append(c.conns, conn)
				mu.Unlock()
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, what) // may be cut off
			}
		})
	}
	all.Wait()
	t.Cleanup(c.leave)
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// told is what the connections of a crowd were told: 503, something else, that
// they were closed, or nothing yet.
type told struct{ refused, served, closed, nothing int }

// hear reads what each connection has been sent.
func (c *crowd) hear(t *testing.T) told {
	t.Helper()
	var all told
	for _, conn := range c.conns {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		switch {
		case err != nil && os.IsTimeout(err):
			all.nothing++
		case err != nil:
			all.closed++
		case res.StatusCode != http.StatusServiceUnavailable:
			all.served++
		default:
			all.refused++
			if res.Header.Get("Tunnel-Error") != "overloaded" || res.Header.Get("Retry-After") == "" || !res.Close {
				t.Errorf("%s with %v", res.Status, res.Header)
			}
		}
	}
	return all
}

// greedy is an app whose /hang does not answer, and whose /download is 100 MB.
func greedy(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hang":
		<-r.Context().Done()
	case "/download":
		for block := make([]byte, 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	io.WriteString(w, "well")
}

// isWell makes a request for what the app answers at once.
func isWell(t *testing.T, url string) bool {
	c := visitor(t)
	defer c.CloseIdleConnections()
	res, err := c.Get(url)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return err == nil && string(b) == "well"
}

// TestMemoryLimit puts several times as much on a server as it may hold. It stays
// below its limit, and alive, and serves again afterwards (R37, R14).
func TestMemoryLimit(t *testing.T) {
	get := func(path string, filler int) string {
		return fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: app.localhost\r\nX-Filler: %s\r\n", path, strings.Repeat("x", filler))
	}
	for name, test := range map[string]struct {
		visitors int
		send     string // on each connection
		ok       func(told) bool
		says     string // in the log
	}{
		"requests":  {1600, get("hang", 60<<10) + "\r\n", func(all told) bool { return all.refused > 30 }, "memory is full"},
		"headers":   {1600, get("hang", 150<<10), func(all told) bool { return all.closed > 30 }, "memory is full"},
		"downloads": {320, get("download", 0) + "\r\n", func(all told) bool { return all.served > 30 }, "visitors read too slowly"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "--memory-limit", "128MiB", "--log-level", "info")
			s.errors.await(t, "listening", `"memory-limit":"128 MiB"`)
			c := startClient(t, app(t, http.HandlerFunc(greedy)), "--server", s.url, "--name", "app")
			load := &crowd{addr: s.addr}
			load.join(t, test.visitors, test.send)
			s.errors.await(t, test.says)
			all := load.hear(t)
			if !test.ok(all) {
				t.Errorf("the visitors were told %+v", all)
			}
			load.leave()
			eventually(t, "answer after the load", func() bool { return isWell(t, c.url) })
			most := s.status(t, "VmHWM")
			t.Logf("%d MB at most; %+v", most>>20, all)
			if most > memoryLimit+beside {
				t.Errorf("the server had %d MB, with a limit of %d", most>>20, memoryLimit>>20)
			}
			if lines := strings.Count(s.errors.String(), "\n"); lines > 20 {
				t.Errorf("%d lines in the log", lines)
			}
		})
	}
}

// TestFewDescriptors leaves a server 256 descriptors, and takes them all with
// connections that are then idle. It serves others meanwhile (R36).
func TestFewDescriptors(t *testing.T) {
	s := startServer(t, "--idle-timeout", "10m", "--log-level", "info")
	c := startClient(t, app(t, http.HandlerFunc(greedy)), "--server", s.url, "--name", "app")
	few := syscall.Rlimit{Cur: 256, Max: 256}
	const noFile = 7 // RLIMIT_NOFILE
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(s.cmd.Process.Pid), noFile, uintptr(unsafe.Pointer(&few)), 0, 0, 0); e != 0 {
		t.Fatal(e)
	}
	load := &crowd{addr: s.addr}
	load.join(t, 400, "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
	s.errors.await(t, "out of descriptors")
	eventually(t, "answer beside the load", func() bool { return isWell(t, c.url) })
	load.leave()
	eventually(t, "answer after the load", func() bool { return isWell(t, c.url) })
	if text := s.errors.String(); strings.Count(text, "descriptors") > 2 || strings.Contains(text, "Accept error") {
		t.Errorf("the log is flooded: %d lines", strings.Count(text, "\n"))
	}
}
