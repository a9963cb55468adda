package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/revtun/tunnel/internal/rig"
)

// shell is an interactive bash at a terminal of its own.
type shell struct {
	keyboard *os.File
	shown    *output
}

func startShell(t *testing.T) *shell {
	t.Helper()
	bash := need(t, "bash", "bash")
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		missing(t, "this system has no pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd()) // which makes it blocking: it is read by a goroutine
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	cmd := exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = environment("HOME="+home, "PROMPT_COMMAND=echo code=$?", "PS1=$ ", "TERM=dumb", "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s := &shell{keyboard: keyboard, shown: newOutput()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	children.add(cmd.Process.Pid)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := keyboard.Read(buf)
			s.shown.Write(buf[:n])
			if err != nil { // EIO, when nobody has the other end open any more
				s.shown.end()
				return
			}
		}
	}()
	t.Cleanup(func() {
		children.kill(cmd.Process.Pid) // the kernel then sends SIGHUP to who has the terminal
		cmd.Wait()
		awaitOn(t, read, "end of the terminal")
		if t.Failed() {
			t.Logf("the terminal:\n%s", s.shown.tail())
		}
	})
	return s
}

func (s *shell) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// TestExecTerminal: at a terminal the command reads, stops, goes on and is interrupted as
// if it were run alone, and the terminal is the shell's again.
func TestExecTerminal(t *testing.T) {
	server := startServer(t)
	sh := startShell(t)
	run := strings.Join([]string{"tunnel-client exec --server", server.url, "--target", rig.FreePort(t), "--log-level error -- "}, " ")
	sh.types(t, run+`sh -c 'echo be""gun; while read x; do echo got=$x; done'`+"\n")
	sh.shown.await(t, "begun")
	sh.types(t, "one\n")
	sh.shown.await(t, "got=one")
	sh.types(t, "\x1a")
	sh.shown.await(t, "Stopped")
	sh.types(t, "echo the-sh''ell; fg\n")
	sh.shown.await(t, "the-shell")
	sh.types(t, "two\n") // whoever has the terminal
	sh.shown.await(t, "got=two")
	sh.types(t, "\x03")
	sh.shown.await(t, "code=130")

	// One in the background leaves the terminal alone.
	wait := filepath.Join(t.TempDir(), "go")
	sh.types(t, "("+run+"sh -c 'until [ -e "+wait+" ]; do sleep 0.02; done'; echo en''ded) & cat\n")
	sh.types(t, "three\n")
	twice := func(line string) func() bool { // typed, and printed by cat
		return func() bool { return strings.Count(sh.shown.String(), line) == 2 }
	}
	eventually(t, "cat reads", twice("three\r\n"))
	writeFile(t, wait, "")
	sh.shown.await(t, "ended")
	sh.types(t, "four\n")
	eventually(t, "cat still reads", twice("four\r\n"))
	sh.types(t, "five\n") // the line before may have been asked for while it still had the terminal
	eventually(t, "cat reads on", twice("five\r\n"))
	sh.types(t, "\x04")

	// A script ends with a command that a key has ended, and only then. Shells differ in
	// what they make of Ctrl-C while they wait.
	script := filepath.Join(t.TempDir(), "script")
	writeFile(t, script, run+"sh -c 'echo ru\"\"nning; read x; exit 4'\necho next=$?\n")
	sh.types(t, "sh "+script+"\n")
	sh.shown.await(t, "running")
	sh.types(t, "x\n")
	sh.shown.await(t, "next=4")
	for i, runner := range []string{"sh", "bash"} {
		sh.types(t, fmt.Sprintf("%s %s | sed 's/running/ag\"\"ain-%d/;s/\"//g'\n", runner, script, i))
		sh.shown.await(t, fmt.Sprintf("again-%d", i))
		sh.types(t, "\x03")
		eventually(t, "the shell has the terminal", func() bool { return strings.Count(sh.shown.String(), "code=130") == 2+i })
		if strings.Contains(sh.shown.String(), "next=130") {
			t.Errorf("a script of %s goes on after Ctrl-C", runner)
		}
	}
}
