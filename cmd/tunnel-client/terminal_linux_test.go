package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/hinshun/vt10x"
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

// window is a terminal's, in which a command runs as its user started it.
type window struct {
	t        *testing.T
	keyboard *os.File
	term     vt10x.Terminal
	raw      rig.Buffer // all that was written
	cmd      *exec.Cmd
	shut     chan struct{} // closed when all was read
}

func openWindow(t *testing.T, cols, rows int, kind, command string, args ...string) *window {
	t.Helper()
	keyboard, screen := openTerminal(t)
	w := &window{t: t, keyboard: keyboard, term: vt10x.New(vt10x.WithSize(cols, rows)), shut: make(chan struct{})}
	w.size(cols, rows)
	w.cmd = exec.Command(command, args...)
	w.cmd.Env = append(os.Environ(), "TERM="+kind, "GORACE=atexit_sleep_ms=0")
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = screen, screen, screen
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen.Close()
	go w.read()
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		w.cmd.Wait()
		keyboard.Close() // whoever is left there keeps it open
		<-w.shut
		if t.Failed() {
			t.Logf("the window:\n%s\nall that was written:\n%q", w.text(), w.raw.String())
		}
	})
	return w
}

// read ends when the command has.
func (w *window) read() {
	defer close(w.shut)
	p := make([]byte, 4096)
	for {
		n, err := w.keyboard.Read(p)
		w.raw.Write(p[:n])
		w.term.Write(p[:n])
		if err != nil {
			return
		}
	}
}

// size is what the user makes of the window.
func (w *window) size(cols, rows int) {
	w.t.Helper()
	w.term.Resize(cols, rows)
	raw, err := w.keyboard.SyscallConn()
	if err != nil {
		w.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) press(keys string) {
	w.t.Helper()
	if _, err := w.keyboard.WriteString(keys); err != nil {
		w.t.Fatal(err)
	}
}

// text is what is seen, without what is blank at the ends of lines.
func (w *window) text() string {
	var lines []string
	for line := range strings.Lines(w.term.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// sees waits until all of it is seen at once; each is an expression that begins a line.
func (w *window) sees(lines ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%q is seen", lines), func() bool {
		text := w.text()
		return !slices.ContainsFunc(lines, func(line string) bool { return !regexp.MustCompile("(?m)^" + line).MatchString(text) })
	})
}

func (w *window) alternate() bool { return w.term.Mode()&vt10x.ModeAltScreen != 0 }

// exit waits for the end and returns the code.
func (w *window) exit() int {
	w.cmd.Wait()
	<-w.shut
	return w.cmd.ProcessState.ExitCode()
}

func TestScreen(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	door := newDoor(t, base)
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	w := openWindow(t, 80, 24, "xterm", "tunnel-client", "http", app, "--server", door.url, "--name", "demo")
	url := "http://demo.localhost:" + strings.TrimPrefix(base, "http://127.0.0.1:")
	w.sees("Status       online$", "Forwarding   "+url+" -> "+app+"$", "Requests     0$", "Server       "+door.url, `Latency      \S+s$`, "Stop         Ctrl-C$")
	if !w.alternate() || w.term.CursorVisible() {
		t.Error("the screen is not the other one, without a cursor")
	}
	get(t, base, url+"/the-path")
	w.sees(`Requests     1; p50 \S+, p90 \S+, p99 \S+$`, `[0-9:]{8}  GET     /the-path  200  \S+$`)
	door.slam()
	w.sees(`[0-9:]{8}  disconnected: .+`, `[0-9:]{8}  reconnected$`, "Status       online$")
	get(t, base, url+"/again")
	w.sees("Requests     2;", ".*/the-path", ".*/again", ".*reconnected")

	w.size(20, 30)
	w.sees("Status online$", "Forwarding http://de$", "disconnected: ", "reconnected$", "GET /[a-z]+…  200  [0-9.mµ]+s$", "GET /a.*  200  ")
	for line := range strings.Lines(w.text()) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 20 {
			t.Errorf("%q is too long", line)
		}
	}
	w.size(20, 3)
	w.sees("Status online$", "Forwarding http://de$")
	w.size(80, 24)
	w.sees("Status       online$", "Forwarding   "+url+" -> "+app+"$", ".*/the-path", ".*/again", "Stop         Ctrl-C$")

	w.press("\x1a") // Ctrl-Z, which a session without a shell ignores
	eventually(t, "the screen is given back and taken again", func() bool {
		return strings.Count(w.raw.String(), leave) == 1 && strings.Count(w.raw.String(), enter) == 2
	})
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if w.alternate() || !w.term.CursorVisible() || w.term.Mode()&vt10x.ModeWrap == 0 {
		t.Error("the terminal is not given back as it was")
	}
	w.sees("Status       closed: signal: interrupt$", "Forwarding   "+url+" -> "+app+"$", "Requests     2; p50",
		".*disconnected: ", ".*reconnected$", ".*draining, 0 requests in flight", ".*closed: signal: interrupt$")
}

// The log is shown within the screen, and left there at the end.
func TestScreenLog(t *testing.T) {
	home(t)
	t.Setenv("NO_COLOR", "1")
	base := startServer(t, server.Config{})
	w := openWindow(t, 200, 20, "xterm", "tunnel-client", "http", rig.FreePort(t), "--server", base, "--name", "demo", "--log-format", "json")
	w.sees("Status       online$", `[0-9:]{8}  \{"time".*the local app does not answer`)
	get(t, base, "http://demo.localhost:"+strings.TrimPrefix(base, "http://127.0.0.1:"))
	w.sees("Requests     1, 1 failed;", `.*GET     /  502 app_refused`)
	if strings.Contains(w.raw.String(), "\x1b[3") {
		t.Error("there is color with NO_COLOR")
	}
	w.press("\x03")
	w.exit()
	w.sees("Status       closed", `[0-9:]{8}  \{"time".*the local app does not answer`)
}

// A terminal that is held (Ctrl-S) holds no request up.
func TestScreenHeld(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	w := openWindow(t, 80, 24, "xterm", "tunnel-client", "http", app, "--server", base, "--name", "demo")
	w.sees("Status       online$")
	w.press("\x13")
	visitor, url := visitor(t, base), "http://demo.localhost:"+strings.TrimPrefix(base, "http://127.0.0.1:")
	for i := range 50 {
		resp, err := visitor.Get(fmt.Sprintf("%s/%d", url, i))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if strings.Contains(w.text(), "/49") {
		t.Error("the terminal is not held, so this test says nothing")
	}
	w.press("\x11")
	w.sees("Requests     50;", ".*/49  200")
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A terminal without control sequences gets lines.
func TestDumbTerminal(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	w := openWindow(t, 120, 24, "dumb", "tunnel-client", "http", app, "--server", base, "--name", "demo")
	w.sees("Status       online$", "Forwarding   http://demo")
	get(t, base, "http://demo.localhost:"+strings.TrimPrefix(base, "http://127.0.0.1:")+"/the-path")
	w.sees(".*GET     /the-path  200")
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.sees("Status       online$", ".*draining, 0 requests in flight; press Ctrl-C again", ".*closed: signal: interrupt$")
	if strings.Contains(w.raw.String(), "\x1b") {
		t.Error("there are control sequences")
	}
}

// What a shell runs in the background leaves the window to the shell.
func TestBackground(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	w := openWindow(t, 120, 24, "xterm", "sh", "-m", "-c", `tunnel-client "$@" & trap "kill $!" INT; wait; wait`, "sh", "http", rig.FreePort(t), "--server", base)
	w.sees("Status       online$", "Stop         Ctrl-C$")
	w.press("\x03")
	w.sees(".*closed: signal: terminated$")
	w.exit()
	if strings.Contains(w.raw.String(), "\x1b[?") {
		t.Error("there is a screen")
	}
}

// Before the first connection there is no screen: what went wrong stays where it was
// written.
func TestScreenNeverReady(t *testing.T) {
	home(t)
	w := openWindow(t, 80, 24, "xterm", "tunnel-client", "http", "3000", "--retry", "--server", "http://"+rig.FreePort(t))
	w.sees(".*cannot be reached, retrying")
	w.size(70, 20)
	eventually(t, "it tries again", func() bool { return strings.Count(w.raw.String(), "reconnecting") > 1 })
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(w.raw.String(), "\x1b") {
		t.Error("there are control sequences")
	}
}
