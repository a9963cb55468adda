//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// rawApp is a local app that hands out its connections.
func rawApp(t *testing.T) (addr string, conns <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan net.Conn, 16)
	go func() {
		defer close(taken)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			taken <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for c := range taken {
			c.Close()
		}
	})
	return l.Addr().String(), taken
}

// TestKilledAmidConnection: bytes without a length tell only by their end whether they
// are whole. Where a process on the way is killed, neither the visitor nor the app may
// read an end: not amid bytes, not while nothing moves, and not after the other
// direction has ended in order (R1, R2, R17).
func TestKilledAmidConnection(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a-token-of-mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"tcp", "private"} {
		for _, who := range []string{"client", "server", "connect"} {
			if kind == "tcp" && who == "connect" {
				continue
			}
			t.Run(kind+"/"+who, func(t *testing.T) {
				target, apps := rawApp(t)
				first := rig.FreePorts(t, 1)
				s := startServer(t, "--token-file", token, "--tcp-ports", fmt.Sprintf("%d-%d", first, first+9))
				victims := map[string]interface{ kill() }{"server": s}
				var addr string
				if kind == "tcp" {
					c, port := portClient(t, s, "tcp", target, "--token-file", token, "--name", "raw")
					victims["client"], addr = c, fmt.Sprintf("127.0.0.1:%d", port)
				} else {
					cmd := clientCommand(target, "--server", s.url, "--token-file", token, "--private", "--name", "raw")
					cmd.Args[1] = "tcp"
					victims["client"] = readyClient(t, cmd)
					victims["connect"], addr = startConnect(t, "raw", "--server", s.url, "--token-file", token)
				}
				killAmid(t, addr, apps, victims[who].kill)
			})
		}
	}
}

// killAmid makes connections in several states, calls kill, and looks at what their ends
// read.
func killAmid(t *testing.T, addr string, apps <-chan net.Conn, kill func()) {
	t.Helper()
	both := func() (visitor, app *net.TCPConn) {
		v, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v.Close() })
		a := awaitOn(t, apps, "the app's connection")
		t.Cleanup(func() { a.Close() }) // or the garbage collector may do it before the kill, in order
		for _, c := range []net.Conn{v, a} {
			c.SetDeadline(time.Now().Add(patience))
		}
		return v.(*net.TCPConn), a.(*net.TCPConn)
	}
	ends := make(map[string]*net.TCPConn)
	const half = "half of what there is to say"
	say := func(from, to net.Conn) {
		io.WriteString(from, half)
		if b := make([]byte, len(half)); must(io.ReadFull(to, b)) != len(half) || string(b) != half {
			t.Fatalf("%q came", b)
		}
	}

	v, a := both()
	say(v, a)
	say(a, v)
	ends["visitor while nothing moves"], ends["app while nothing moves"] = v, a

	v, a = both()
	say(v, a)
	v.CloseWrite()
	if rest, err := io.ReadAll(a); len(rest) > 0 || err != nil {
		t.Fatalf("the app reads %q, %v", rest, err)
	}
	say(a, v)
	ends["visitor that has ended its side"] = v

	v, a = both()
	say(a, v)
	a.CloseWrite()
	if rest, err := io.ReadAll(v); len(rest) > 0 || err != nil {
		t.Fatalf("the visitor reads %q, %v", rest, err)
	}
	say(v, a)
	ends["app that has ended its side"] = a

	down, from := both()
	up, to := both()
	for _, c := range []*net.TCPConn{from, up} {
		go func() {
			for b := make([]byte, 16<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
	for _, c := range []*net.TCPConn{down, to} {
		if _, err := io.CopyN(io.Discard, c, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	ends["visitor amid a download"], ends["app amid an upload"] = down, to

	kill()
	for who, c := range ends {
		if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the %s reads %d bytes more and then %v, want a reset", who, n, err)
		}
	}
}

func must(n int, err error) int {
	if err != nil {
		return -1
	}
	return n
}
