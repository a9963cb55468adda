package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// onTerminal runs a command on a terminal.
func onTerminal(screen *os.File, args ...string) (signals <-chan chan<- os.Signal, code <-chan int) {
	registered, ended := make(chan chan<- os.Signal, 2), make(chan int, 1)
	go func() {
		ended <- run(context.Background(), process{
			args: append([]string{"tunnel-client"}, args...), stdin: screen, stdout: screen, stderr: screen,
			notify: func(c chan<- os.Signal) { registered <- c },
		})
	}()
	return registered, ended
}

// appears reads what appears on a terminal up to the text.
func appears(t *testing.T, keyboard *os.File, text string) string {
	t.Helper()
	if err := keyboard.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(all.String(), text) {
		n, err := keyboard.Read(buf)
		if err != nil {
			t.Fatalf("no %q but %q: %v", text, all.String(), err)
		}
		all.Write(buf[:n])
	}
	return all.String()
}

// shows reports whether a terminal shows what is typed.
func shows(t *testing.T, screen *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestLoginOnTerminal(t *testing.T) {
	home(t)
	base := startTokenServer(t, "good-token\n")
	keyboard, screen := openTerminal(t)
	_, code := onTerminal(screen, "login", "--server", base)
	appears(t, keyboard, "Token for "+base+": ")
	eventually(t, "the terminal hides what is typed", func() bool { return !shows(t, screen) })
	fmt.Fprint(keyboard, "good-token\n")
	if got := appears(t, keyboard, "the token is kept in"); strings.Contains(got, "good-token") {
		t.Errorf("the terminal shows %q", got)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
	if !shows(t, screen) {
		t.Error("the terminal does not show any more what is typed")
	}
}

// TestLoginInterrupted: Ctrl-C leaves the terminal as it was.
func TestLoginInterrupted(t *testing.T) {
	home(t)
	base := startTokenServer(t, "good-token\n")
	keyboard, screen := openTerminal(t)
	signals, code := onTerminal(screen, "login", "--server", base)
	appears(t, keyboard, "Token for ")
	eventually(t, "the terminal hides what is typed", func() bool { return !shows(t, screen) })
	(<-signals) <- os.Interrupt
	if got := <-code; got != 130 {
		t.Errorf("exit code %d", got)
	}
	if !shows(t, screen) {
		t.Error("the terminal does not show what is typed")
	}
	fmt.Fprint(keyboard, "\n") // or the goroutine that reads stays
	if files := keptLogins(t); len(files) > 0 {
		t.Errorf("kept are %q", files)
	}
}

func TestStartOnTerminal(t *testing.T) {
	home(t)
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "dumb")
	base := startServer(t, server.Config{})
	app := says(t, "hello")
	writeConfig(t, fmt.Sprintf("server: %s\nendpoints: {web: {target: %q}, taken: {target: 1, name: web}}", base, app))
	keyboard, screen := openTerminal(t)
	signals, code := onTerminal(screen, "start", "web")
	text := appears(t, keyboard, " -> "+app)
	wantText(t, text, "web          http://web.localhost:")
	get(t, base, "http://web.localhost:"+portOf(base)+"/the-path")
	wantText(t, appears(t, keyboard, "/the-path  200"), "web          GET")
	s := <-signals
	s <- os.Interrupt
	appears(t, keyboard, "closed: signal: interrupt")
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

// TestStartHangup: SIGHUP ends start where the terminal has gone away with it, as it ends
// the other commands; where the terminal is there, it is to read the files again.
func TestStartHangup(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	writeConfig(t, fmt.Sprintf("server: %s\nendpoints: {web: {target: 1}}", base))
	keyboard, screen := openTerminal(t)
	var stderr rig.Buffer
	signals, code := make(chan chan<- os.Signal, 1), make(chan int, 1)
	go func() {
		code <- run(context.Background(), process{
			args: []string{"tunnel-client", "start"}, stdin: screen, stdout: &stderr, stderr: &stderr,
			notify: func(c chan<- os.Signal) { signals <- c },
		})
	}()
	s := <-signals
	s <- syscall.SIGHUP
	eventually(t, "the files are read again", func() bool { return strings.Contains(stderr.String(), "configuration applied") })
	keyboard.Close()
	s <- syscall.SIGHUP
	select {
	case got := <-code:
		if got != 0 {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(patience):
		t.Error("it goes on without its terminal")
		s <- os.Interrupt
		<-code
	}
}
