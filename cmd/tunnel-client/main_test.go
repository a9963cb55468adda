package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/pebble"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
)

// patience bounds every wait for something that is to happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	testscript.Main(leaks{m}, map[string]func(){"tunnel-client": main})
}

// leaks fails where the tests leave goroutines behind.
type leaks struct{ m *testing.M }

func (l leaks) Run() int {
	// What the developer has set says nothing about the tests.
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "TUNNEL_") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			os.Unsetenv(name)
		}
	}
	code := l.m.Run()
	if err := goleak.Find(pebble.Goroutines()...); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the binary as a user does, in a process of its own.
func TestScripts(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the scripts send signals")
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"await": await,
		},
		RequireExplicitExec: true,
	})
}

// setupScript starts two servers, one of which wants the token in token.txt, and
// an app.
func setupScript(e *testscript.Env) error {
	t, ok := e.T().(testing.TB)
	if !ok {
		return errors.New("the scripts run without a testing.TB")
	}
	tokens := filepath.Join(e.WorkDir, "token.txt")
	if err := os.WriteFile(tokens, []byte("# a comment\nsecret-token-1\n"), 0o600); err != nil {
		return err
	}
	known, err := auth.OpenTokens(tokens, nil)
	if err != nil {
		return err
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello from the app")
	}))
	e.Defer(app.Close)
	e.Setenv("SERVER", startServer(t, server.Config{Hold: time.Hour}))
	e.Setenv("TOKENSERVER", startServer(t, server.Config{Auth: known}))
	e.Setenv("APP", app.URL)
	e.Setenv("CLOSED", rig.FreePort(t))
	e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
	e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
	e.Setenv("GORACE", "atexit_sleep_ms=0") // or each process waits a second for races
	return nil
}

// exits CODE COMMAND... runs the command and compares how it ends.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// await FILE waits until there is one.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("there is no %s", args[0])
		}
	}
}
