package transport

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// loopback sets the loopback interface of the thread's network namespace up or down.
func loopback(t *testing.T, up bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if up {
		ifr.SetUint16(unix.IFF_UP)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

// pairApart returns the two ends of a connection in a network namespace of its own, which
// ends with the test, and what cuts the network there, or joins it again.
func pairApart(t *testing.T) (a, b *net.TCPConn, join func(bool)) {
	t.Helper()
	do, done := make(chan func()), make(chan struct{})
	t.Cleanup(func() { close(do); <-done })
	ready := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends, and its namespace with it
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespace can be made, which needs root: %v", err)
		}
		t.Skipf("no network namespace can be made, which needs root: %v", err)
	}
	in := func(f func()) {
		over := make(chan struct{})
		do <- func() { defer close(over); f() }
		<-over
	}
	join = func(up bool) { in(func() { loopback(t, up) }) }
	join(true)
	in(func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			a = conn.(*net.TCPConn)
		}
		if conn, err := l.Accept(); err == nil {
			b = conn.(*net.TCPConn)
		}
	})
	if a == nil || b == nil {
		t.Fatal("there is no connection")
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b, join
}

// A peer that reads nothing is heard; one that the network has lost is not, until it is back.
func TestUnheard(t *testing.T) {
	const d = 300 * time.Millisecond
	until := func(t *testing.T, conn net.Conn, want bool) {
		t.Helper()
		poll.Until(t, fmt.Sprint("Unheard is ", want), func() bool { return Unheard(conn, d) == want })
	}
	a, b, join := pairApart(t)
	if _, err := a.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	until(t, a, false)
	join(false)
	a.Write(make([]byte, 1000))
	until(t, a, true)
	join(true)
	until(t, a, false)
	if _, err := io.ReadFull(b, make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}

	full, mute, _ := pairApart(t)
	full.SetWriteDeadline(time.Now().Add(3 * d))
	if _, err := full.Write(make([]byte, 64<<20)); !os.IsTimeout(err) {
		t.Fatalf("who reads nothing took all: %v", err)
	}
	until(t, full, false) // the kernel there answers, each time that it is asked
	mute.Close()
}

// Both ends of PTTH have the kernel look after a peer that is gone.
func TestKeepAlive(t *testing.T) {
	a, b, _ := pairApart(t)
	for _, conn := range []*net.TCPConn{a, b} {
		KeepAlive(wrapped{conn})
		control(conn, func(fd int) {
			for option, want := range map[int]int{unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 10, unix.TCP_KEEPCNT: 2} {
				if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); got != want || err != nil {
					t.Errorf("option %d is %d, want %d: %v", option, got, want, err)
				}
			}
		})
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }
