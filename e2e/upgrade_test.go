//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// upgradeApp switches to a protocol of its own, and hands each connection over.
func upgradeApp(t *testing.T) (addr string, switched <-chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan *net.TCPConn, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				conn.Close()
				continue
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n")
			conn.SetDeadline(time.Now().Add(patience))
			conns <- conn.(*net.TCPConn)
		}
	}()
	return l.Addr().String(), conns
}

// upgrade is a visitor's connection and the app's end of it.
func upgrade(t *testing.T, public string, switched <-chan *net.TCPConn) (visitor, local *net.TCPConn) {
	t.Helper()
	visitor = dialPublic(t, public)
	fmt.Fprintf(visitor, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n", hostOf(t, public))
	local = awaitOn(t, switched, "upgrade at the app")
	t.Cleanup(func() { local.Close() })
	for head := []byte{}; !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		b := make([]byte, 1)
		if _, err := io.ReadFull(visitor, b); err != nil {
			t.Fatalf("%q, %v", head, err)
		}
		head = append(head, b...)
	}
	return visitor, local
}

// TestHalfCloseOfUpgrade ends one side, and then sends 8 MB the other way: each
// byte arrives, and the end (R16).
func TestHalfCloseOfUpgrade(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		addr, switched := upgradeApp(t)
		public := expose(t, addr, transport)
		for _, first := range []string{"visitor", "app"} {
			one, other := upgrade(t, public, switched)
			if first == "app" {
				one, other = other, one
			}
			small, large := noise(100_000, 41), noise(8<<20, 42)
			go func() {
				one.Write(small)
				one.CloseWrite()
			}()
			if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, small) {
				t.Fatalf("%s first: %d bytes of %d, %v", first, len(got), len(small), err)
			}
			go func() {
				other.Write(large)
				other.CloseWrite()
			}()
			if got, err := io.ReadAll(one); err != nil || !bytes.Equal(got, large) {
				t.Errorf("%s first: after the half-close %d bytes of %d, %v", first, len(got), len(large), err)
			}
		}
	})
}

// TestResetOfUpgrade resets one side: the other gets a reset, never an end; and so
// does the visitor whose client is killed, and the app whose server is (R17).
func TestResetOfUpgrade(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		addr, switched := upgradeApp(t)
		s := startServer(t)
		c := startClient(t, addr, "--server", s.url, "--name", "app", "--transport", transport)
		for _, how := range []string{"visitor", "app", "app amid its bytes", "client", "server"} {
			if how == "server" {
				c = startClient(t, addr, "--server", s.url, "--name", "second", "--transport", transport)
			}
			visitor, local := upgrade(t, c.url, switched)
			who := visitor
			switch how {
			case "visitor":
				who = local
				visitor.SetLinger(0)
				visitor.Close()
			case "app amid its bytes":
				go io.Copy(local, &endless{})
				io.ReadFull(visitor, make([]byte, 1<<20))
				fallthrough
			case "app":
				local.SetLinger(0)
				local.Close()
			case "client":
				c.kill()
			case "server":
				who = local
				s.kill()
			}
			if _, err := io.Copy(io.Discard, who); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: the other side gets %v, want a reset", how, err)
			}
		}
	})
}
