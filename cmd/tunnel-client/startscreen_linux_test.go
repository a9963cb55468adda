package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hinshun/vt10x"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// unseen fails where a line is seen that begins so.
func (w *window) unseen(line string) {
	w.t.Helper()
	if text := w.text(); regexp.MustCompile("(?m)^" + line).MatchString(text) {
		w.t.Errorf("%q is seen:\n%s", line, text)
	}
}

// The endpoints of start have one screen, which follows requests, connections, the
// configuration and the window.
func TestStartScreen(t *testing.T) {
	home(t)
	first, second := startServer(t, server.Config{}), startServer(t, server.Config{})
	door := newDoor(t, first)
	app := says(t, "hello")
	top := fmt.Sprintf("server: %s\ninspect: 127.0.0.1:0\nendpoints:\n  web: {target: %q}\n", door.url, app)
	writeConfig(t, top+fmt.Sprintf("  api: {target: %q, share_link: 24h}\n", app))
	w := openWindow(t, 100, 30, "xterm", "tunnel-client", "start")
	web, api := "http://web.localhost:"+portOf(first), "http://api.localhost:"+portOf(first)
	w.sees("Status       online$", "web          online  0  "+web+" -> "+app+"$", "api          online  0  "+api+" -> "+app+"$", "             Share link  "+api,
		"Inspector    http://127.0.0.1:", "Requests     0$", "Server       "+door.url+"$", `Latency      \S+s$`, "Stop         Ctrl-C$")
	if !w.alternate() || w.term.CursorVisible() {
		t.Error("the screen is not the other one, without a cursor")
	}
	get(t, first, web+"/the-path")
	w.sees("web          online  1 ", "api          online  0 ", `Requests     1; p50 \S+, p90 \S+, p99 \S+$`, `[0-9:]{8}  web  GET     /the-path  200  \S+$`)
	door.slam()
	w.sees(`[0-9:]{8}  web  disconnected: `, `[0-9:]{8}  api  reconnected$`, `[0-9:]{8}  web  reconnected$`, "Status       online$")

	writeConfig(t, top+fmt.Sprintf("  db: {kind: tcp, target: 1, private: true, server: %q}\n", second))
	w.sees("db           online  0  private:db -> ", "Served       1;", "Server       "+door.url+", 1 of 1 online", "Server       "+second+", 1 of 1 online",
		`[0-9:]{8}  api  draining: it was taken out`, `[0-9:]{8}  api  closed: it was taken out`, ".*added=1 changed=0 removed=1", "web          online  1 ")
	w.unseen("api ")
	writeConfig(t, top+"  db: {kind: tcp}\n")
	w.sees("Config       not used: tunnel.yaml:6: endpoint db: it takes a target", "db           online  0 ")
	writeConfig(t, top+fmt.Sprintf("  db: {kind: tcp, target: 2, private: true, server: %q}\n", second))
	w.sees("db           online  0  private:db -> .*2$", `.*added=0 changed=1 removed=0`)
	w.unseen("Config")

	w.size(40, 12)
	w.sees("Status online$", "web online 1 http://web.*…$", "db  online 0 private:db -> .*…$", "Inspector http", "Served 1;", "Server ")
	for line := range strings.Lines(w.text()) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 40 {
			t.Errorf("%q is too long", line)
		}
	}
	w.size(40, 5)
	w.sees("Status online$", "web online 1 http://web", "db  online 0 private:db", "Inspector http", "Served 1;")
	w.size(100, 30)
	w.sees("Status       online$", "web          online  1  "+web+" -> "+app+"$", ".*/the-path  200", "Stop         Ctrl-C$")

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
	w.sees("Status       0 of 2 online$", "web          closed  1  "+web+" -> "+app, "db           closed  0  private:db", "Served       1; p50",
		`[0-9:]{8}  web  disconnected: `, ".*is not used", ".*web  closed: signal: interrupt$", ".*db   closed: signal: interrupt$")
}

// Ctrl-Z gives the terminal back to the shell, and fg takes it again.
func TestStartScreenStops(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	writeConfig(t, fmt.Sprintf("server: %s\nno_inspect: true\nendpoints: {web: {target: %q}}", base, says(t, "hello")))
	w := openWindow(t, 100, 30, "xterm", "sh", "-m", "-c", `tunnel-client start; echo "the shell"; read line; fg; exit`)
	w.sees("Status       online$")
	w.press("\x1a")
	w.sees("the shell$")
	if w.alternate() || !w.term.CursorVisible() {
		t.Error("the shell has the screen")
	}
	w.press("\n")
	w.sees("Status       online$", "Stop         Ctrl-C$")
	if !w.alternate() {
		t.Error("the screen is not taken again")
	}
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.sees("web          closed  0 ")
}

// What fails is seen while the others go on, and stays where all do.
func TestStartScreenFails(t *testing.T) {
	home(t)
	t.Setenv("NO_COLOR", "1")
	base := startServer(t, server.Config{})
	app := says(t, "hello")
	first := start(t, app, "--server", base, "--name", "taken")
	first.next("ready")
	free, taken := fmt.Sprintf("  free: {target: %q}\n", app), fmt.Sprintf("  taken: {target: %q}\n", app)
	writeConfig(t, "server: "+base+"\nendpoints:\n"+free+taken)
	w := openWindow(t, 160, 30, "xterm", "tunnel-client", "start")
	w.sees("Status       1 of 2 online$", "free         online  0 ", "taken        failed  0  .*taken.*trying again in .*")
	first.signal(os.Interrupt)
	first.exit()
	w.sees("Status       online$", "taken        online  0  http://taken", "[0-9:]{8}  taken  ready$")
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	start(t, app, "--server", base, "--name", "taken").next("ready")
	all := openWindow(t, 160, 30, "xterm", "tunnel-client", "start", "taken")
	if code := all.exit(); code != int(exitTaken) {
		t.Errorf("where all fail the exit code is %d", code)
	}
	all.sees("Status       0 of 1 online$", "taken        failed  0  .*taken", "Server       "+base+"$", "[0-9:]{8}  taken  failed: ")
	if text := w.raw.String() + all.raw.String(); strings.Contains(text, "\x1b[3") {
		t.Error("there is color with NO_COLOR")
	}
}

// A terminal without control sequences gets lines, in which paths give way where it is
// narrow.
func TestStartDumbTerminal(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	writeConfig(t, fmt.Sprintf("server: %s\nno_inspect: true\nendpoints: {web: {target: %q}, api: {target: %q}}", base, app, rig.FreePort(t)))
	w := openWindow(t, 50, 24, "dumb", "tunnel-client", "start")
	w.sees(".*web          http://web", ".*api          http://api")
	get(t, base, "http://web.localhost:"+portOf(base)+"/a/path/of/some/length/that/has/no/room")
	w.sees(`web GET /a/path/of/\S+…  200  \S+s$`)
	w.press("\x03")
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(w.raw.String(), "\x1b") {
		t.Error("there are control sequences")
	}
}
