package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// local is where connect takes connections, or datagrams.
type local struct {
	network, addr string
	own           bool // only this machine reaches it
}

// parseLocal reads PORT, HOST:PORT or unix:/PATH.
func parseLocal(s string) (local, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path = strings.TrimPrefix(path, "//"); path == "" {
			return local{}, fmt.Errorf("--listen %q names no socket: use unix:/PATH", s)
		}
		return local{"unix", path, true}, nil
	}
	if _, err := strconv.Atoi(s); err == nil {
		s = "127.0.0.1:" + s
	}
	host, port, err := net.SplitHostPort(s)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return local{}, fmt.Errorf("--listen %q is not an address: use 127.0.0.1:5432, a port, or unix:/PATH", s)
	}
	return local{"tcp", s, loopback(host)}, nil
}

// listen listens. A socket is the user's alone, and takes the place of one that
// nobody listens at any more.
func (l local) listen() (net.Listener, error) {
	ln, err := net.Listen(l.network, l.addr)
	if errors.Is(err, syscall.EADDRINUSE) && l.network == "unix" && l.isLeft() {
		os.Remove(l.addr)
		ln, err = net.Listen(l.network, l.addr)
	}
	if err != nil {
		return nil, listenError(err)
	}
	if l.network == "unix" {
		if err := os.Chmod(l.addr, 0o600); err != nil {
			ln.Close()
			return nil, fmt.Errorf("--listen: %w", err)
		}
	}
	return ln, nil
}

// listenUDP is listen for datagrams.
func (l local) listenUDP() (*net.UDPConn, error) {
	c, err := net.ListenPacket("udp", l.addr)
	if err != nil {
		return nil, listenError(err)
	}
	return c.(*net.UDPConn), nil
}

// listenError names the way out of an address that is taken.
func listenError(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: another program uses it: choose another address, or port 0 for any that is free", err)
	}
	return fmt.Errorf("--listen: %w", err)
}

// isLeft reports whether the socket is one of a process that has gone.
func (l local) isLeft() bool {
	info, err := os.Lstat(l.addr)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", l.addr)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// addrOf is l's address as connect's --listen has it.
func addrOf(l interface{ Addr() net.Addr }) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
