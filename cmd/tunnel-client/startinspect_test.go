package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
)

// asked runs a command that asks the inspector of c at addr, until it says what is wanted.
func asked(t *testing.T, addr, want string, args ...string) string {
	t.Helper()
	var out string
	eventually(t, fmt.Sprintf("%q says %q", args, want), func() bool {
		_, stdout, stderr := once(append(args, "--inspect="+addr)...)
		out = stdout + stderr
		return strings.Contains(out, want)
	})
	return out
}

// applied has c take a configuration.
func (s *several) applied(config, want string) {
	s.t.Helper()
	writeConfig(s.t, config)
	s.signal(syscall.SIGHUP)
	eventually(s.t, "it is applied: "+want, func() bool { return strings.Contains(s.stderr.String(), want) })
}

// TestStartInspector: the endpoints of start have one inspector, which tells them apart.
func TestStartInspector(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := says(t, "hello")
	c := startConfig(t, fmt.Sprintf(`
server: %s
inspect: 127.0.0.1:0
endpoints:
  web: {target: %q}
  api: {target: %[2]q}
  quiet: {target: %[2]q, no_inspect: true}
  db: {kind: tcp, target: 1, private: true}
`, base, app))
	at := inspectorOf(t, c.of("", "inspector"))
	for _, name := range []string{"web", "api", "quiet", "db"} {
		ready := c.of(name, "ready")
		if addr := inspectorOf(t, ready); addr != "" {
			t.Errorf("the one inspector is told once more, as %s's: %s", name, addr)
		}
		if name != "db" {
			get(t, base, ready.URL+"/of-"+name)
		}
		if name == "web" {
			if out := asked(t, at, "/of-web", "requests"); strings.Contains(out, "ENDPOINT") {
				t.Errorf("with one endpoint there is %s", out)
			}
		}
	}
	c.none("")
	out := asked(t, at, "/of-api", "requests")
	wantText(t, out, "ENDPOINT", "web", "/of-web")
	if strings.Contains(out, "quiet") {
		t.Errorf("what is not to be recorded is: %s", out)
	}
	if out := asked(t, at, "/of-web", "requests", "--endpoint", "web"); strings.Contains(out, "/of-api") {
		t.Errorf("of one endpoint there is %s", out)
	}
	asked(t, at, "of endpoint web", "requests", "1")
	c.signal(os.Interrupt)
	c.exit()
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("the inspector outlives its endpoints")
	}
}

// TestStartInspectorReload: what was recorded stays, a replay goes to the app that the
// endpoint leads to now, and where the inspector is makes no difference to the endpoints.
func TestStartInspectorReload(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Hold: time.Hour})
	old, fresh := says(t, "old"), says(t, "fresh")
	config := func(inspect, web string) string {
		return fmt.Sprintf("server: %s\n%s\nendpoints:\n  api: {target: %q}\n%s", base, inspect, old, web)
	}
	c := startConfig(t, config("inspect: 127.0.0.1:0", fmt.Sprintf("  web: {target: %q}", old)))
	at := inspectorOf(t, c.of("", "inspector"))
	get(t, base, c.of("web", "ready").URL+"/first")
	get(t, base, c.of("api", "ready").URL+"/second")
	asked(t, at, "/second", "requests")
	if out := asked(t, at, "old", "replay", "1"); strings.Contains(out, "fresh") {
		t.Errorf("the replay is %q", out)
	}

	c.applied(config("inspect: 127.0.0.1:0", fmt.Sprintf("  web: {target: %q}", fresh)), "changed=1")
	c.of("web", "ready")
	asked(t, at, "fresh", "replay", "1")
	asked(t, at, "old", "replay", "2")
	wantText(t, asked(t, at, "/first", "requests"), "/second")

	c.applied(config("inspect: 127.0.0.1:0", ""), "removed=1")
	asked(t, at, "endpoint web is not there", "replay", "1")

	c.applied(config("inspect: localhost:0\ninspect_body: 5KiB", ""), "added=0 changed=0 removed=0")
	moved := inspectorOf(t, c.of("", "inspector"))
	wantText(t, asked(t, moved, "/first", "requests"), "/second")
	wantText(t, c.stderr.String(), "inspect_body stays what it was")
	if conn, err := net.Dial("tcp", at); err == nil && moved != at {
		conn.Close()
		t.Error("the inspector is where it was, too")
	}
	c.none("api")

	c.applied(config("no_inspect: true", ""), "changed=1 removed=0 endpoints=1")
	eventually(t, "the inspector has ended", func() bool {
		conn, err := net.Dial("tcp", moved)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	c.applied(config("inspect: 127.0.0.1:0", "# again"), "changed=1 removed=0 endpoints=1")
	asked(t, inspectorOf(t, c.of("", "inspector")), `"requests":[]`, "requests", "--json")
	c.none("")
}

// TestStartInspectorBody: who changes inspect_body is told that it waits, and who changes it
// back, or something else, is not.
func TestStartInspectorBody(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	config := func(body, target string) string {
		return fmt.Sprintf("server: %s\ninspect: 127.0.0.1:0\n%s\nendpoints: {web: {target: %q}}\n", base, body, target)
	}
	app, other := says(t, "hello"), says(t, "other")
	c := startConfig(t, config("inspect_body: 1MiB", app))
	c.of("web", "ready")
	applied := 0
	for _, step := range []struct {
		body, target string
		warned       int // so often so far
	}{
		{"inspect_body: 2MiB", app, 1}, {"inspect_body: 2MiB", other, 1}, {"inspect_body: 1MiB", other, 1},
		{"inspect_body: 3MiB", other, 2}, {"", other, 2}, // 1MiB by default
		{"inspect_body: 2MiB", other, 3},
	} {
		applied++
		writeConfig(t, config(step.body, step.target))
		c.signal(syscall.SIGHUP)
		eventually(t, "the configuration is applied", func() bool { return strings.Count(c.stderr.String(), "endpoints=1") == applied })
		if n := strings.Count(c.stderr.String(), "inspect_body stays what it was"); n != step.warned {
			t.Errorf("after %q there are %d warnings, want %d:\n%s", step.body, n, step.warned, c.stderr.String())
		}
	}
}

// TestStartInspectorMended: an address that cannot be had ends nothing, and is mended while
// the endpoints go on.
func TestStartInspectorMended(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	config := fmt.Sprintf("server: %s\nendpoints: {web: {target: %q}}\n", base, says(t, "hello"))
	c := startConfig(t, config+"inspect: 192.0.2.1:4040\n") // another machine's (RFC 5737)
	url := c.of("web", "ready").URL
	get(t, base, url+"/before")
	wantText(t, c.stderr.String(), "there is no inspector")
	c.applied(config+"inspect: 127.0.0.1:0\n", "added=0 changed=0 removed=0")
	asked(t, inspectorOf(t, c.of("", "inspector")), "/before", "requests")
	c.none("web")
}
