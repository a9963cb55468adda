package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("this system has no pseudo-terminals:", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	raw, err := keyboard.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

func TestTerminal(t *testing.T) {
	home(t)
	t.Setenv("NO_COLOR", "1")
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	keyboard, screen := openTerminal(t)
	signals := make(chan chan<- os.Signal, 1)
	var stderr rig.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(context.Background(), process{
			args:   []string{"tunnel-client", "http", app, "--server", base, "--name", "demo"},
			stdout: screen, stderr: &stderr,
			notify: func(c chan<- os.Signal) { signals <- c },
		})
	}()
	if err := keyboard.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(keyboard)
	// next reads up to the line with label, and returns what follows it.
	next := func(label string) string {
		t.Helper()
		for lines.Scan() {
			if _, value, ok := strings.Cut(lines.Text(), label); ok {
				return strings.TrimSpace(value)
			}
		}
		t.Fatalf("no line with %s: %v; standard error:\n%s", label, lines.Err(), &stderr)
		return ""
	}
	if got := next("Status "); got != "online" {
		t.Errorf("status %q", got)
	}
	url, to, _ := strings.Cut(next("Forwarding "), " -> ")
	if !strings.HasPrefix(url, "http://demo.localhost:") || to != app {
		t.Errorf("forwarding %q to %q", url, to)
	}
	get(t, base, url+"/the-path")
	if got := next("/the-path "); !strings.HasPrefix(got, "200 ") {
		t.Errorf("the request's line ends with %q", got)
	}
	(<-signals) <- os.Interrupt
	if got := next("draining, "); !strings.HasPrefix(got, "0 requests in flight; press Ctrl-C again") {
		t.Errorf("draining says %q", got)
	}
	if got := next("closed: "); got != "signal: interrupt" {
		t.Errorf("closed says %q", got)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d; standard error:\n%s", got, &stderr)
	}
}
