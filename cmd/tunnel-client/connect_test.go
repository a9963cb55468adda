package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// startEcho is a local app that sends back what comes, and ends when that does.
func startEcho(t *testing.T) (addr string) {
	t.Helper()
	return listener.TCP(t, func(c net.Conn) { io.Copy(c, c) })
}

// dialLocal connects to where connect listens.
func dialLocal(t *testing.T, listen string) net.Conn {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		network, listen = "unix", path
	}
	c, err := net.Dial(network, listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// echoes checks that body comes back from c, and the end after it.
func echoes(t *testing.T, c net.Conn, body string) {
	t.Helper()
	go func() {
		io.WriteString(c, body)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != body {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(body), err)
	}
}

// refused checks that a connection to listen is reset without a byte.
func refused(t *testing.T, listen string) {
	t.Helper()
	c, err := net.Dial("tcp", listen)
	if err != nil {
		return // it was reset at once
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 0 {
		t.Errorf("read %q, %v; want a reset", got, err)
	}
}

func TestConnectCommand(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startCommand(t, "tcp", startEcho(t), "--json", "--private", "--name", "db", "--server", base)
	if e := app.next("ready"); e.URL != "private:db" || e.Name != "db" {
		t.Errorf("the exposing end says %s", e.line)
	}
	c := startCommand(t, "connect", "db", "--json", "--server", base)
	e := c.next("ready")
	if want := `{"event":"ready","url":"private:db","name":"db","listen":"` + e.Listen + `"}`; e.line != want || !strings.HasPrefix(e.Listen, "127.0.0.1:") {
		t.Errorf("ready is %s, want %s", e.line, want)
	}
	echoes(t, dialLocal(t, e.Listen), strings.Repeat("there and back\n", 100_000))

	// The first signal lets it finish what is open, and takes no more.
	open := dialLocal(t, e.Listen)
	one := make([]byte, 1)
	io.WriteString(open, "a")
	io.ReadFull(open, one)
	c.signal(syscall.SIGTERM)
	c.next("draining")
	if extra, err := net.Dial("tcp", e.Listen); err == nil {
		extra.Close()
		t.Error("a connection is taken after the signal")
	}
	echoes(t, open, "to the end")
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestConnectToPrivateHTTP(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	web := startApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "host "+r.Host) })
	start(t, web, "--private", "--name", "web", "--server", base).next("ready")
	socket := filepath.Join(t.TempDir(), "s")
	if runtime.GOOS == "windows" {
		t.Skip("unix sockets are elsewhere")
	}
	for range 2 { // the second finds what the first left behind
		c := startCommand(t, "connect", "web", "--json", "--listen", "unix:"+socket, "--server", base)
		e := c.next("ready")
		conn := dialLocal(t, e.Listen)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: as.it.comes\r\nConnection: close\r\n\r\n")
		if got, err := io.ReadAll(conn); err != nil || !bytes.HasSuffix(got, []byte("host as.it.comes")) {
			t.Errorf("%q, %v", got, err)
		}
		if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		conn.Close()
		c.signal(syscall.SIGTERM)
		c.exit()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
}

// A connection that does not get through is reset, and the log says why.
func TestConnectRefused(t *testing.T) {
	home(t)
	base, stop := startServerUntil(t, server.Config{})
	c := startCommand(t, "connect", "db", "--json", "--server", base)
	e := c.next("ready")
	refused(t, e.Listen)
	eventually(t, "the log says why", func() bool { return strings.Contains(c.stderr.String(), "name_unknown") })
	wantText(t, c.stderr.String(), "connection failed", "--private")
	app := startCommand(t, "tcp", "127.0.0.1:1", "--json", "--private", "--name", "db", "--server", base)
	app.next("ready")
	refused(t, e.Listen)
	eventually(t, "the log says why", func() bool { return strings.Contains(c.stderr.String(), string(protocol.AppRefused)) })
	stop()
	c.next("draining")
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGTERM)
	c.exit()
}

func TestConnectUsage(t *testing.T) {
	home(t)
	for _, args := range [][]string{
		{"connect"}, {"connect", "a", "b"}, {"connect", "A"}, {"connect", "a/b"}, {"connect", "db", "--listen", "nonsense"},
		{"connect", "db", "--listen", "127.0.0.1:70000"}, {"connect", "db", "--listen", "unix:"}, {"connect", "db", "--grace", "-1s"},
		{"connect", "db", "--name", "x"}, {"tcp", "22", "--private", "--remote-port", "20000"},
	} {
		if code := startCommand(t, args...).exit(); code != int(exitUsage) {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	if code := startCommand(t, "connect", "db", "--server", "http://127.0.0.1:1").exit(); code != int(exitUnreachable) {
		t.Errorf("without a server: exit code %d", code)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	c := startCommand(t, "connect", "db", "--listen", busy.Addr().String())
	if code := c.exit(); code != int(exitRuntime) {
		t.Errorf("with a taken address: exit code %d", code)
	}
	wantText(t, c.stderr.String(), "--listen: listen tcp "+busy.Addr().String(), "another program uses it: choose another address, or port 0")
}

// A --listen that others reach is said to be one.
func TestConnectOpenToOthers(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	for listen, warned := range map[string]bool{"0.0.0.0:0": true, ":0": true, "localhost:0": false, "0": false} {
		c := startCommand(t, "connect", "db", "--json", "--listen", listen, "--server", base)
		c.next("ready")
		if got := strings.Contains(c.stderr.String(), "no loopback address"); got != warned {
			t.Errorf("--listen %s: warned %v", listen, got)
		}
	}
}
