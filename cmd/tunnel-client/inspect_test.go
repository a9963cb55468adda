package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/inspect"
	"github.com/revtun/tunnel/internal/server"
)

// inspectorOf is the address that a ready event tells; "": none.
func inspectorOf(t *testing.T, e event) string {
	t.Helper()
	var line struct{ Inspect string }
	if err := json.Unmarshal([]byte(e.line), &line); err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(line.Inspect, "http://")
}

// once runs a command that ends by itself.
func once(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), process{
		args: append([]string{"tunnel-client"}, args...), stdout: &out, stderr: &errs, notify: func(chan<- os.Signal) {},
	})
	return code, out.String(), errs.String()
}

func TestRequestsAndReplay(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s [%s] %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("X-Try"), body)
	})
	for _, transport := range []string{"raw", "websocket", "ptth"} {
		t.Run(transport, func(t *testing.T) {
			c := start(t, app, "--server", base, "--transport", transport, "--inspect", "127.0.0.1:0")
			ready := c.next("ready")
			at := "--inspect=" + inspectorOf(t, ready)
			req, _ := http.NewRequest("POST", ready.URL+"/hook?x=1", strings.NewReader("hello\x1b[31m"))
			req.Header.Set("Authorization", "Bearer hush")
			res, err := visitor(t, base).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Fatal(res.Status)
			}
			eventually(t, "the request is recorded", func() bool {
				_, out, _ := once("requests", at, "--json", "--status", "200")
				return strings.Contains(out, `"state":"done"`)
			})
			// run gives what a command prints, and fails where it does.
			run := func(args ...string) string {
				t.Helper()
				code, out, errs := once(append(args, at)...)
				if code != 0 {
					t.Fatalf("%q: %d %s", args, code, errs)
				}
				return out
			}
			wantText(t, run("requests"), "ID", "POST", "/hook?x=1", "200")
			if out := run("requests", "--path", "/other"); strings.Contains(out, "hook") {
				t.Errorf("a filter shows %s", out)
			}
			out := run("requests", "1")
			wantText(t, out, "POST "+ready.URL+"/hook?x=1", "Authorization: "+inspect.Mask, `hello\x1b[31m`, "200 OK")
			if strings.Contains(out, "\x1b") {
				t.Error("the terminal gets what the visitor sent (S22)")
			}
			if out := run("requests"); strings.Contains(out, "replay") {
				t.Errorf("before a replay it shows %s", out)
			}
			wantText(t, run("requests", "1", "--secrets"), "Authorization: Bearer hush")
			wantText(t, run("requests", "--har"), `"version":"1.2"`, "/hook?x=1")
			if out := run("replay", "1"); out != "POST /hook?x=1 Bearer hush [] hello\x1b[31m" {
				t.Errorf("replayed %q", out)
			}
			if out := run("replay", "1", "--method", "PUT", "--path", "/b", "--body", "new", "--header", "x-try: a, b", "--header", "Authorization:"); out != "PUT /b  [a, b] new" {
				t.Errorf("replayed with an edit %q", out)
			}
			os.WriteFile("body", []byte("of a file"), 0o600)
			wantText(t, run("replay", "1", "--body", "@body", "--json"), "of a file", `"replay_of":1`)
			wantText(t, run("requests"), "/hook?x=1 (replay of 1)\n", "/b (replay of 1)\n")
			run("requests", "--clear")
			if out := run("requests", "--json"); !strings.Contains(out, `"requests":[]`) {
				t.Errorf("after --clear there is %s", out)
			}
			for want, args := range map[string][]string{
				"request 1 is not kept any more: it was cleared, or given up": {"replay", "1", at},
				"there is no request 99 so far":                               {"requests", "99", at}, `"abc" is no id of a request`: {"requests", "abc", at},
				"no inspector answers": {"requests", "--inspect", "127.0.0.1:1"},
			} {
				if code, _, errs := once(args...); code != int(exitRuntime) || !strings.Contains(errs, want) {
					t.Errorf("%q: %d %s", args, code, errs)
				}
			}
			for _, args := range [][]string{{"replay"}, {"requests", "1", "2"}, {"replay", "1", "--header", "none"}, {"requests", "--inspect", "here"}} {
				if code, _, errs := once(args...); code != int(exitUsage) {
					t.Errorf("%q: %d %s", args, code, errs)
				}
			}
		})
	}
}

// Two clients have an inspector each, and who wants none has none.
func TestInspectAddress(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := start(t, app, "--server", base, "--name", "next", "--inspect", taken.Addr().String())
	if addr := inspectorOf(t, c.next("ready")); addr == "" || addr == taken.Addr().String() {
		t.Errorf("beside a port that is taken the inspector is at %q", addr)
	}
	c = start(t, app, "--server", base, "--name", "without", "--no-inspect")
	if addr := inspectorOf(t, c.next("ready")); addr != "" {
		t.Errorf("with --no-inspect there is one at %s", addr)
	}
	// An address of another machine (RFC 5737).
	c = start(t, app, "--server", base, "--name", "nowhere", "--inspect", "192.0.2.1:4040")
	ready := c.next("ready")
	if addr := inspectorOf(t, ready); addr != "" {
		t.Errorf("there is an inspector at %s", addr)
	}
	if got := get(t, base, ready.URL); got != "hello" {
		t.Errorf("without an inspector the app answers %q", got)
	}
	wantText(t, c.stderr.String(), "there is no inspector", "--no-inspect")
	for _, args := range [][]string{{"--inspect", "here"}, {"--inspect-body", "lots"}, {"--inspect-body", "51MiB"}, {"--inspect-body", "0"}} {
		if code, _, errs := once(append([]string{"http", "3000"}, args...)...); code != int(exitUsage) || !strings.Contains(errs, args[0]) {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
}

// A folder has an inspector, too; and where there is a screen, it says so.
func TestInspectFolderAndScreen(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	os.WriteFile("a.txt", []byte("of a file"), 0o600)
	c := startCommand(t, "file", "--json", ".", "--server", base, "--inspect", "127.0.0.1:0")
	ready := c.next("ready")
	at := "--inspect=" + inspectorOf(t, ready)
	if got := get(t, base, ready.URL+"/a.txt"); got != "of a file" {
		t.Fatalf("got %q", got)
	}
	eventually(t, "it is recorded", func() bool {
		_, out, _ := once("requests", at, "1")
		return strings.Contains(out, "of a file")
	})
	v := view{endpoints: []*shown{{}}}
	v.change(change{event: "ready", url: "https://demo.test", target: "http://localhost:3000", inspect: "http://127.0.0.1:4040"}, time.Now())
	wantText(t, strings.Join(v.last(), "\n"), "Inspector    http://127.0.0.1:4040")
}
