//go:build unix

package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that comes within moments on a
// healthy machine.
const patience = 30 * time.Second

// bin is where TestMain builds the binaries, home the home folder they get.
var bin, home string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(cutAppVariable) != "" {
		return runCutApp()
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "tunnel-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin, home = filepath.Join(dir, "bin"), filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Neither a time-out of the tests nor Ctrl-C lets cleanups run: end the
	// children, which ends the tests that wait for them, or is all there is to do.
	if d := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); d > 10*time.Second {
		defer time.AfterFunc(d-5*time.Second, children.killAll).Stop()
	}
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./cmd/tunnel-server", "./cmd/tunnel-client")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	defer children.killAll()
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupt
		children.killAll()
		os.RemoveAll(dir)
		os.Exit(130)
	}()
	return m.Run()
}

// groups are the process groups that run.
type groups struct {
	mu  sync.Mutex
	ids map[int]bool
}

var children = groups{ids: map[int]bool{}}

func (g *groups) add(id int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids[id] = true
}

func (g *groups) kill(id int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ids[id] {
		syscall.Kill(-id, syscall.SIGKILL)
		delete(g.ids, id)
	}
}

func (g *groups) killAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.ids {
		syscall.Kill(-id, syscall.SIGKILL)
		delete(g.ids, id)
	}
}

// process is a child in a process group of its own. The group is killed at the
// test's end at the latest; what it has printed is shown where the test failed,
// unless the process itself ended well.
type process struct {
	name        string
	cmd         *exec.Cmd
	out, errors *output
	done        chan struct{} // closed at its end
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{
		name: filepath.Base(cmd.Path), cmd: cmd, done: make(chan struct{}),
		out: newOutput(), errors: newOutput(),
	}
	cmd.Stdout, cmd.Stderr = p.out, p.errors
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for a pipe that a child of the child holds
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	children.add(cmd.Process.Pid)
	go func() {
		cmd.Wait()
		p.out.end()
		p.errors.end()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() && !cmd.ProcessState.Success() {
			t.Logf("%s on standard error:\n%s", p.name, p.errors.tail())
			t.Logf("%s on standard output:\n%s", p.name, p.out.tail())
		}
	})
	return p
}

// kill is kill -9 of the group. It returns when the process has ended.
func (p *process) kill() {
	children.kill(p.cmd.Process.Pid)
	<-p.done
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// exit waits for the process to end by itself and returns its exit code, -1 for
// a signal's.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s did not end", p.name)
		return -1
	}
}

// insist sends s until the process has ended: one that comes at once is taken for the same.
func (p *process) insist(t *testing.T, s os.Signal) int {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		p.cmd.Process.Signal(s)
		select {
		case <-p.done:
			return p.cmd.ProcessState.ExitCode()
		case <-tick.C:
		case <-late:
			t.Fatalf("%s did not end", p.name)
		}
	}
}

// output keeps what a process prints.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	ended   bool
	changed chan struct{} // closed and replaced when there is more
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake()
	return o.buf.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wake()
}

// wake is called with mu held.
func (o *output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// tail is the end of what was printed, which is enough to see what went wrong.
func (o *output) tail() string {
	const size = 6000
	s := o.String()
	return s[max(0, len(s)-size):]
}

var errEnded = errors.New("it ended")

// find waits for a line that match accepts, and returns what match made of it.
// The error says that none came.
func (o *output) find(match func(line string) (string, bool)) (string, error) {
	deadline := time.After(patience)
	seen := 0
	for {
		o.mu.Lock()
		text, ended, changed := o.buf.String()[seen:], o.ended, o.changed
		o.mu.Unlock()
		whole := strings.LastIndexByte(text, '\n') + 1
		if ended {
			whole = len(text)
		}
		for line := range strings.Lines(text[:whole]) {
			if found, ok := match(strings.TrimRight(line, "\r\n")); ok {
				return found, nil
			}
		}
		seen += whole
		if ended {
			return "", errEnded
		}
		select {
		case <-changed:
		case <-deadline:
			return "", fmt.Errorf("not within %s", patience)
		}
	}
}

// await is find for a line with all the words in it.
func (o *output) await(t *testing.T, words ...string) string {
	t.Helper()
	line, err := o.find(func(line string) (string, bool) {
		return line, !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
	if err != nil {
		t.Fatalf("no line with %q was printed: %v", words, err)
	}
	return line
}

// run runs cmd to its end, with its process group, and returns its exit code.
func run(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	return runWithin(t, 2*patience, cmd)
}

func runWithin(t *testing.T, d time.Duration, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, cmd)
	select {
	case <-p.done:
	case <-time.After(d):
		t.Fatalf("%s did not end", cmd)
	}
	return p.cmd.ProcessState.ExitCode(), p.out.String(), p.errors.String()
}

// build is run for a compiler, which takes minutes where Go's cache is empty and
// other tests are being built: it has as long as the tests of the package.
func build(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	patient := 20 * patience
	if end, ok := t.Deadline(); ok {
		patient = time.Until(end) - 10*time.Second
	}
	if code, out, errors := runWithin(t, patient, cmd); code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", cmd, code, out, errors)
	}
}

// mustRun is run for what has to succeed.
func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	code, out, _ := run(t, cmd)
	if code != 0 {
		t.Fatalf("%s: exit code %d", cmd, code)
	}
	return out
}

// need returns the path of a program, or ends the test, with the Debian package
// to install.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil && filepath.IsAbs(path) {
			return path
		}
	}
	missing(t, fmt.Sprintf("%s is missing: apt-get install %s", program, pkg))
	return ""
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// environment is that of the tests, without what would change the tunnel's
// behaviour, with more variables.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "TUNNEL_") || strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "GIT_") ||
			strings.HasSuffix(strings.ToUpper(name), "_PROXY")
	})
	return append(env, more...)
}

// bounded is the test's context with an end.
func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, as long as patience lasts.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitOn receives from c.
func awaitOn[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
		panic("unreachable")
	}
}
