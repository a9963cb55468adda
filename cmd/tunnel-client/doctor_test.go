package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// doctors runs the command and returns its output and exit code.
func doctors(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(context.Background(), process{args: append([]string{"tunnel-client", "doctor", "--idle", "10ms"}, args...), stdout: &stdout, stderr: &stderr, notify: func(chan<- os.Signal) {}})
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", &stderr)
	}
	return stdout.String(), code
}

func TestDoctor(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	out, code := doctors(t, app, "--server", base)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range []string{
		`Server  http://127\.0\.0\.1:\d+`, `skip  dns +127\.0\.0\.1 is an address`, `ok    tcp +\S+s  127\.0\.0\.1:\d+`, `ok    raw +\S+s  upgraded`,
		`ok    idle +\S+s  a session that was silent for 10ms lives`, `ok    app +\S+s  http://.* answers GET / with 200 OK`, `Everything is fine\.`,
	} {
		if !regexp.MustCompile("(?m)^" + line).MatchString(out) {
			t.Errorf("%q is not in:\n%s", line, out)
		}
	}
	out, code = doctors(t, "http://"+rig.FreePort(t), "--server", base)
	if code != 1 {
		t.Errorf("with the app down: exit code %d", code)
	}
	wantText(t, out, "\nfail  app ", "connection refused\n", " -> start the app, or correct TARGET\n", "\n1 step failed.\n")
}

func TestDoctorJSON(t *testing.T) {
	home(t)
	t.Setenv("TUNNEL_TOKEN", "hunter2-hunter2")
	out, code := doctors(t, "--json", "--server", "http://"+rig.FreePort(t))
	if code != 1 || strings.Count(out, "\n") != 1 || strings.Contains(out, "hunter2") {
		t.Errorf("exit code %d, %q", code, out)
	}
	var report struct {
		Server string
		OK     bool
		Steps  []struct {
			Name, Verdict, Detail, Hint string
			MS                          *float64
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	tcp := report.Steps[1]
	if report.OK || len(report.Steps) != 12 || tcp.Name != "tcp" || tcp.Verdict != "fail" || tcp.Detail == "" || tcp.Hint == "" || tcp.MS == nil {
		t.Errorf("got %+v", report)
	}
}

// What a peer says is no command to the terminal.
func TestDoctorEscapes(t *testing.T) {
	home(t)
	bad := startApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tunnel-Error", "forbidden")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":"forbidden","message":"a\u001b[2Jb","hint":"c\u009b2Jd"}}`)
	})
	out, code := doctors(t, "--server", bad)
	if code != 1 || strings.ContainsAny(out, "\x1b\u009b") {
		t.Errorf("exit code %d, %q", code, out)
	}
	wantText(t, out, "fail  token ", "(forbidden)")
}
