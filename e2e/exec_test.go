//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// execCommand is tunnel-client exec --json ARGS -- sh -c SCRIPT.
func execCommand(script string, args ...string) *exec.Cmd {
	all := append([]string{"exec", "--json"}, args...)
	cmd := exec.Command(filepath.Join(bin, "tunnel-client"), append(all, "--", "sh", "-c", script)...)
	cmd.Env = environment("HOME=" + home)
	return cmd
}

// event waits for tunnel-client's line of that event, which exec has on standard error.
func (p *process) event(t *testing.T, kind string) event {
	t.Helper()
	var e event
	line := p.errors.await(t, `{"event":"`+kind+`"`)
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// listenAt serves h at addr until the test ends.
func listenAt(t *testing.T, addr string, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

// waitScript is a command that does nothing until a signal comes.
const waitScript = "echo started; exec sleep 60"

// TestExecReady: visitors get 503 until the app is there, then the app.
func TestExecReady(t *testing.T) {
	for _, transport := range []string{"raw", "ptth"} {
		t.Run(transport, func(t *testing.T) {
			s := startServer(t)
			addr, file := rig.FreePort(t), filepath.Join(t.TempDir(), "url")
			p := start(t, execCommand("echo $TUNNEL_URL $PORT; exec sleep 60", "--server", s.url, "--name", "app",
				"--transport", transport, "--target", addr, "--set-port", "--url-file", file))
			url := p.event(t, "ready").URL
			res, body := fetch(t, visitor(t), url+"/")
			if got := res.Header.Get("Tunnel-Error"); res.StatusCode != 503 || got != "app_starting" || res.Header.Get("Retry-After") == "" {
				t.Errorf("before it is ready: %s, code %q, header %v, body %q", res.Status, got, res.Header, body)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the URL file is there before the app")
			}
			listenAt(t, addr, hello)
			p.event(t, "app_ready")
			if res, body := fetch(t, visitor(t), url+"/"); res.StatusCode != 200 || body != "hello" {
				t.Errorf("when it is ready: %s %q", res.Status, body)
			}
			eventually(t, "the URL file", func() bool {
				content, _ := os.ReadFile(file)
				return string(content) == url+"\n"
			})
			_, port, _ := net.SplitHostPort(addr)
			eventually(t, "the command's output", func() bool { return p.out.String() == url+" "+port+"\n" })
			p.signal(t, syscall.SIGTERM)
			if got := p.exit(t); got != 143 {
				t.Errorf("exit code %d, want 143", got)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the URL file is left")
			}
		})
	}
}

// TestExecWait: a target that takes connections is not enough where --wait says so.
func TestExecWait(t *testing.T) {
	s := startServer(t)
	var well atomic.Bool
	asked := make(chan string, 1000)
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
		if !well.Load() {
			w.WriteHeader(500)
		}
	}))
	p := start(t, execCommand(waitScript, "--server", s.url, "--target", target, "--wait", "http://"+target+"/healthz"))
	url := p.event(t, "ready").URL
	for range 2 {
		if got := awaitOn(t, asked, "look at the app"); got != "/healthz" {
			t.Errorf("asked for %s", got)
		}
	}
	if res, _ := fetch(t, visitor(t), url); res.StatusCode != 503 || res.Header.Get("Tunnel-Error") != "app_starting" {
		t.Errorf("before: %s", res.Status)
	}
	well.Store(true)
	p.event(t, "app_ready")
	if res, _ := fetch(t, visitor(t), url); res.StatusCode != 200 {
		t.Errorf("after: %s", res.Status)
	}
}

// TestExecWaitTimeout: the command is asked to end, its own code does not hide why, and
// neither does a look that has no answer yet.
func TestExecWaitTimeout(t *testing.T) {
	s := startServer(t)
	for timeout := 200 * time.Millisecond; ; timeout *= 4 { // until the machine was fast enough
		var looks atomic.Int64
		target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if looks.Add(1) > 1 {
				<-r.Context().Done()
			}
			w.WriteHeader(http.StatusInsufficientStorage)
		}))
		code, out, errors := run(t, execCommand(`trap 'echo told; exit 0' TERM; echo trapped; while :; do sleep 0.05; done`,
			"--server", s.url, "--target", target, "--wait", "http://"+target, "--wait-timeout", timeout.String()))
		if code != 6 || !strings.Contains(errors, "(app_starting)") {
			t.Fatalf("exit code %d, want 6; output %q\n%s", code, out, errors)
		}
		if out == "trapped\ntold\n" && strings.Contains(errors, "it answers 507") {
			return
		}
		if timeout > patience/2 {
			t.Fatalf("within %s: output %q\n%s", timeout, out, errors)
		}
	}
}

func TestExecExitCodes(t *testing.T) {
	s := startServer(t)
	holder := startClient(t, says(t, "x"), "--server", s.url, "--name", "taken")
	plain := filepath.Join(t.TempDir(), "plain")
	writeFile(t, plain, "no program")
	for _, tt := range []struct {
		name string
		args []string
		want int
		out  string
	}{
		{"0", []string{"--", "sh", "-c", "echo run"}, 0, "run\n"},
		{"its own", []string{"--", "sh", "-c", "exit 7"}, 7, ""},
		{"a signal's", []string{"--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{"no --", []string{"sh", "-c", "echo $0 $1; exit 8", "--name", "--help"}, 8, "--name --help\n"},
		{"not found", []string{"--", "no-such-program"}, 127, ""},
		{"no such file", []string{"--", "./no-such-program"}, 127, ""},
		{"not executable", []string{"--", plain}, 126, ""},
		{"a directory", []string{"--", "/"}, 126, ""},
		{"the name is taken", []string{"--name", "taken", "--", "echo", "run"}, 4, ""},
		{"no server", []string{"--server", "http://" + rig.FreePort(t), "--", "echo", "run"}, 5, ""},
		{"no command", []string{"--"}, 2, ""},
		{"private", []string{"--private", "--", "echo", "run"}, 2, ""},
		{"bad --wait", []string{"--wait", "localhost:3000", "--", "echo", "run"}, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := append([]string{"exec", "--server", s.url, "--target", rig.FreePort(t)}, tt.args...)
			cmd := exec.Command(filepath.Join(bin, "tunnel-client"), all...)
			cmd.Env = environment("HOME=" + home)
			if code, out, errors := run(t, cmd); code != tt.want || out != tt.out {
				t.Errorf("exit code %d, want %d; output %q, want %q\n%s", code, tt.want, out, tt.out, errors)
			}
		})
	}
	holder.signal(t, syscall.SIGTERM)
	holder.exit(t)
}

// TestExecSignals: the command gets them all, and says when to end.
func TestExecSignals(t *testing.T) {
	s := startServer(t)
	script := "for s in HUP QUIT USR1 USR2 INT TERM; do trap \"echo got $s\" $s; done; trap 'echo got TERM; exit 5' TERM; echo trapped; while :; do sleep 0.05; done"
	p := start(t, execCommand(script, "--server", s.url, "--target", rig.FreePort(t)))
	p.out.await(t, "trapped")
	for s, name := range map[os.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2"} {
		if signal.Ignored(s) {
			continue // whoever runs the tests has it so, and a shell cannot trap it then
		}
		for range 2 { // the second one is like the first
			p.signal(t, s)
		}
		p.out.await(t, "got "+name)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	interrupted := start(t, execCommand(script, "--server", s.url, "--target", rig.FreePort(t), "--grace", "300ms"))
	interrupted.out.await(t, "trapped")
	interrupted.signal(t, os.Interrupt)
	interrupted.signal(t, os.Interrupt) // as timeout(1) sends it, to the command and to its group
	interrupted.out.await(t, "got INT")
	if code := interrupted.exit(t); code != 137 { // it goes on, and --grace is over
		t.Errorf("exit code %d, want 137", code)
	}
	stubborn := start(t, execCommand(script, "--server", s.url, "--target", rig.FreePort(t), "--grace", "10m"))
	stubborn.out.await(t, "trapped")
	stubborn.signal(t, os.Interrupt)
	stubborn.out.await(t, "got INT")
	if code := stubborn.insist(t, os.Interrupt); code != 137 {
		t.Errorf("after the second one: exit code %d, want 137", code)
	}
}

// TestExecLeavesNothing: what the command has started ends with it, also what does not
// want to, and what has a session of its own.
func TestExecLeavesNothing(t *testing.T) {
	need(t, "setsid", "util-linux")
	s := startServer(t)
	script := `sh -c 'trap "" TERM; echo $$; while :; do sleep 0.05; done' & setsid sh -c 'echo $$; exec sleep 60' & sh -c 'echo $$; exec sleep 60' & `
	wait := filepath.Join(t.TempDir(), "go")
	script += "until [ -e " + wait + " ]; do sleep 0.02; done; exit 3"
	p := start(t, execCommand(script, "--server", s.url, "--target", rig.FreePort(t), "--grace", "300ms"))
	var pids []int
	eventually(t, "three processes", func() bool {
		pids = nil
		for _, field := range strings.Fields(p.out.String()) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return len(pids) == 3
	})
	writeFile(t, wait, "")
	if code := p.exit(t); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	for i, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is left", i)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestExecKilled: who is killed can end nothing, but on Linux the system tells the command.
func TestExecKilled(t *testing.T) {
	s := startServer(t)
	file := filepath.Join(t.TempDir(), "told")
	p := start(t, execCommand("trap 'echo told > "+file+"; exit' TERM; echo trapped; while :; do sleep 0.05; done", "--server", s.url, "--target", rig.FreePort(t)))
	p.out.await(t, "trapped")
	p.signal(t, syscall.SIGKILL)
	eventually(t, "the command is told", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
}

// TestExecTunnelLost: a tunnel that ends for good ends its command. That has not seen the token.
func TestExecTunnelLost(t *testing.T) {
	file := tokens(t, tokenA, tokenB)
	s := startServer(t, "--token-file", file)
	p := start(t, withToken(execCommand(`env; trap 'echo told; exit 0' TERM; echo trapped; while :; do sleep 0.05; done`,
		"--server", s.url, "--target", rig.FreePort(t)), tokenA))
	p.out.await(t, "trapped")
	if strings.Contains(p.out.String(), tokenA) {
		t.Error("the command sees the token")
	}
	writeFile(t, file, tokenB+"\n")
	if code := p.exit(t); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	p.out.await(t, "told")
	p.errors.await(t, "token_revoked")
}

// TestExecServerGone: a connection that is lost for a while is not the command's business.
func TestExecServerGone(t *testing.T) {
	s := startServer(t)
	p := start(t, execCommand("trap 'echo told; exit 9' TERM; echo trapped; while :; do sleep 0.05; done", "--server", s.url, "--target", rig.FreePort(t)))
	p.event(t, "ready")
	p.out.await(t, "trapped")
	s.kill()
	p.event(t, "disconnected")
	startServer(t, "--listen", s.addr)
	p.event(t, "reconnected")
	if got := p.out.String(); got != "trapped\n" {
		t.Errorf("it printed %q", got)
	}
}

// TestExecDrains: what is under way when the command ends is finished.
func TestExecDrains(t *testing.T) {
	s := startServer(t)
	asked, rest := make(chan bool, 1), make(gate)
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		rest.pass(r)
		fmt.Fprint(w, "whole")
	}))
	wait := filepath.Join(t.TempDir(), "go")
	p := start(t, execCommand("until [ -e "+wait+" ]; do sleep 0.02; done", "--server", s.url, "--target", target))
	url := p.event(t, "ready").URL
	p.event(t, "app_ready")
	got := make(chan string, 1)
	go func() {
		res, err := visitor(t).Get(url)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(body), err)
	}()
	awaitOn(t, asked, "request")
	writeFile(t, wait, "")
	p.event(t, "draining")
	close(rest)
	if s := awaitOn(t, got, "answer"); s != "whole<nil>" {
		t.Errorf("got %q", s)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
