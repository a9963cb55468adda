package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestExpose(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "app saw ", r.URL) })
	c := start(t, app, "--server", base, "--name", "demo")
	ready := c.next("ready")
	port := base[strings.LastIndex(base, ":"):]
	want := `{"event":"ready","url":"http://demo.localhost` + port + `","name":"demo","target":"` + app + `","inspect":"http://` + inspectorOf(t, ready) + `"}`
	if ready.line != want {
		t.Errorf("ready is %s, want %s", ready.line, want)
	}
	if got := get(t, base, ready.URL+"/a?b"); got != "app saw /a?b" {
		t.Errorf("body %q", got)
	}
	c.signal(syscall.SIGTERM)
	if got := c.next("draining").line; got != `{"event":"draining","cause":"signal: terminated"}` {
		t.Error(got)
	}
	if got := c.next("closed").line; got != `{"event":"closed","cause":"signal: terminated"}` {
		t.Error(got)
	}
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if e, ok := <-c.events; ok {
		t.Errorf("event %s after the end", e.line)
	}
}

func TestReadyDoesNotWaitForTheApp(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	c := start(t, rig.FreePort(t), "--server", base)
	ready := c.next("ready")
	resp, err := visitor(t, base).Get(ready.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Tunnel-Error"); resp.StatusCode != 502 || got != "app_refused" {
		t.Errorf("%s %s", resp.Status, got)
	}
}

func TestWarnsOfAnAppThatIsNotThere(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := rig.FreePort(t)
	c := start(t, app, "--server", base, "--json=false")
	eventually(t, "the client warns", func() bool {
		return strings.Contains(c.stderr.String(), "the local app does not answer yet") && strings.Contains(c.stderr.String(), app)
	})
}

func TestHostHeader(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	local := strings.TrimPrefix(app, "http://")
	for _, tt := range []struct{ mode, want string }{
		{"", local},
		{"rewrite", local},
		{"preserve", "PUBLIC"},
		{"app.example:8000", "app.example:8000"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c := start(t, "--server", base, "--host-header", tt.mode, app)
			ready := c.next("ready")
			want := strings.Replace(tt.want, "PUBLIC", strings.TrimPrefix(ready.URL, "http://"), 1)
			if got := get(t, base, ready.URL); got != want {
				t.Errorf("the app saw Host %q, want %q", got, want)
			}
		})
	}
}

func TestNameSticks(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	once := func(args ...string) string {
		c := start(t, append([]string{"--server", base}, args...)...)
		name := c.next("ready").Name
		c.signal(os.Interrupt)
		if code := c.exit(); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		return name
	}
	first := once("3000")
	if got := once("localhost:3000"); got != first {
		t.Errorf("the second start has %s, want %s", got, first)
	}
	if got := once("4000"); got == first {
		t.Errorf("another target has %s too", got)
	}
	if got := once("3000", "--name", "chosen"); got != "chosen" {
		t.Errorf("--name chosen has %s", got)
	}
	if got := once("3000"); got != first {
		t.Errorf("after a start with --name the kept name is %s, want %s", got, first)
	}
	t.Chdir(t.TempDir())
	if got := once("3000"); got == first {
		t.Errorf("another directory has %s too", got)
	}
}

func TestKeptNameTaken(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	c := start(t, "3000", "--server", base)
	first := c.next("ready").Name
	c.signal(os.Interrupt)
	c.exit()

	stranger := &tunnel.Client{Server: base, Token: "stranger"}
	l, err := stranger.Listen(t.Context(), tunnel.Options{Name: first})
	if err != nil {
		t.Fatal(err)
	}
	c = start(t, "3000", "--server", base)
	if got := c.next("ready").Name; got == first {
		t.Fatalf("got %s, which is a stranger's", got)
	}
	eventually(t, "the client says so", func() bool {
		return strings.Contains(c.stderr.String(), "the kept name is taken") && strings.Contains(c.stderr.String(), "kept="+first)
	})
	c.signal(os.Interrupt)
	c.exit()
	l.Close()

	c = start(t, "3000", "--server", base)
	if got := c.next("ready").Name; got != first {
		t.Errorf("the name is free again, and the client has %s instead of %s", got, first)
	}
}

func TestStartsAtTheSameTime(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	clients := make([]*running, 6)
	for i := range clients {
		// It does not wait for the server.
		clients[i] = start(t, "3000", "--server", base)
	}
	seen := make(map[string]bool)
	for _, c := range clients {
		name := c.next("ready").Name
		if seen[name] {
			t.Errorf("two clients have %s", name)
		}
		seen[name] = true
	}
	for _, c := range clients {
		c.signal(os.Interrupt)
		c.exit()
		if strings.Contains(c.stderr.String(), "cannot be") {
			t.Errorf("a client complains:\n%s", c.stderr)
		}
	}
	for range 2 {
		c := start(t, "3000", "--server", base)
		if name := c.next("ready").Name; !seen[name] {
			t.Errorf("%s is none of %v", name, seen)
		}
		c.signal(os.Interrupt)
		c.exit()
	}
}

func TestNameTaken(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	start(t, "3000", "--server", base, "--name", "demo").next("ready")
	c := start(t, "4000", "--server", base, "--name", "demo")
	if code := c.exit(); code != 4 {
		t.Errorf("exit code %d", code)
	}
	wantText(t, c.stderr.String(), "demo is taken", "(name_taken)", "--name")
}

func TestTokens(t *testing.T) {
	home(t)
	file := filepath.Join(t.TempDir(), "tokens")
	writeFile(t, file, "secret-token-1\n")
	tokens, err := auth.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	base := startServer(t, server.Config{Auth: tokens})

	c := start(t, "3000", "--server", base)
	if code := c.exit(); code != 3 {
		t.Errorf("without a token: exit code %d", code)
	}
	wantText(t, c.stderr.String(), "(unauthorized)", "without a token", "--token-file", "TUNNEL_TOKEN")

	t.Setenv("TUNNEL_TOKEN", "wrong-token-2")
	c = start(t, "3000", "--server", base)
	if code := c.exit(); code != 3 {
		t.Errorf("with a wrong token: exit code %d", code)
	}
	wantText(t, c.stderr.String(), "(unauthorized)", "does not know this token")
	hasNoToken(t, c)

	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	c = start(t, app, "--server", base, "--token-file", file, "--log-level", "debug")
	ready := c.next("ready") // the flag wins
	if got := get(t, base, ready.URL); got != "hello" {
		t.Errorf("body %q", got)
	}

	writeFile(t, file, "another-token\n")
	c.next("disconnected")
	closed := c.next("closed")
	if closed.Code != "token_revoked" && closed.Code != "unauthorized" {
		t.Errorf("closed with %s", closed.line)
	}
	if code := c.exit(); code != 3 {
		t.Errorf("when the token was taken away: exit code %d", code)
	}
	hasNoToken(t, c)
}

func hasNoToken(t *testing.T, c *running) {
	t.Helper()
	for _, secret := range []string{"secret-token", "wrong-token", "machine-"} {
		if strings.Contains(c.stderr.String(), secret) {
			t.Errorf("%s is in standard error:\n%s", secret, c.stderr)
		}
	}
}

// slowApp answers in two halves; the second one when release is closed.
func slowApp(t *testing.T) (url string, release chan struct{}) {
	release = make(chan struct{})
	url = startApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "8")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		select {
		case <-release:
			fmt.Fprint(w, "full")
		case <-r.Context().Done():
		}
	})
	return url, release
}

type answer struct {
	body string
	err  error
}

// getHalf returns when half of slowApp's answer is there.
func getHalf(t *testing.T, server, url string) (rest <-chan answer) {
	t.Helper()
	resp, err := visitor(t, server).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, half); err != nil {
		t.Fatal(err)
	}
	done := make(chan answer, 1)
	go func() {
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		done <- answer{string(half) + string(body), err}
	}()
	return done
}

func TestDrain(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app, release := slowApp(t)
	c := start(t, app, "--server", base)
	got := getHalf(t, base, c.next("ready").URL)
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGTERM) // timeout(1) sends its signal to the command, and to its group
	c.next("draining")
	close(release)
	if a := <-got; a.err != nil || a.body != "halffull" {
		t.Errorf("the visitor got %q, %v", a.body, a.err)
	}
	c.next("closed")
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestGraceIsOver(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app, _ := slowApp(t)
	c := start(t, app, "--server", base, "--grace", "0")
	got := getHalf(t, base, c.next("ready").URL)
	c.signal(syscall.SIGTERM)
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if a := <-got; a.err == nil {
		t.Errorf("the visitor got %q for whole", a.body)
	}
}

func TestSecondSignal(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app, _ := slowApp(t)
	file := filepath.Join(t.TempDir(), "url")
	c := start(t, app, "--server", base, "--grace", "1h", "--url-file", file)
	got := getHalf(t, base, c.next("ready").URL)
	c.signal(os.Interrupt)
	c.next("draining")
	c.signal(syscall.SIGTERM)
	if code := c.exit(); code != 128+15 {
		t.Errorf("exit code %d", code)
	}
	if a := <-got; a.err == nil {
		t.Errorf("the visitor got %q for whole", a.body)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the URL file is still there")
	}
}

func TestReconnect(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Hold: time.Minute})
	door := newDoor(t, base)
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	c := start(t, app, "--server", door.url)
	url := c.next("ready").URL
	door.slam()
	if e := c.next("disconnected"); e.Cause == "" {
		t.Errorf("no cause in %s", e.line)
	}
	c.next("reconnected")
	if got := get(t, base, url); got != "hello" {
		t.Errorf("the old URL gives %q", got)
	}
}

func TestNotTakenBack(t *testing.T) {
	home(t)
	door := newDoor(t, startServer(t, server.Config{}))
	c := start(t, "3000", "--server", door.url)
	c.next("ready")
	door.leadTo(startApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tunnel-Error", "not_found")
		w.WriteHeader(http.StatusNotFound)
	}))
	door.slam()
	if code := c.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if e := c.last(); e.Event != "closed" || e.Code != "not_found" || e.Cause == "" {
		t.Errorf("the last event is %s", e.line)
	}
	wantText(t, c.stderr.String(), "(not_found)")
}

func TestServerGoes(t *testing.T) {
	home(t)
	base, stop := startServerUntil(t, server.Config{})
	c := start(t, "3000", "--server", base)
	c.next("ready")
	stop()
	e := <-c.events
	if e.Event == "draining" { // unless both come at once
		e = c.next("disconnected")
	}
	if e.Event != "disconnected" || !strings.Contains(e.Cause, "server") {
		t.Errorf("event %s", e.line)
	}
	c.signal(syscall.SIGTERM) // while it tries to reconnect
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if e := c.last(); e.Event != "closed" || e.Cause != "signal: terminated" {
		t.Errorf("the last event is %s", e.line)
	}
}

// last returns the last event of a command that has ended.
func (c *running) last() (e event) {
	for one := range c.events {
		e = one
	}
	return e
}

func TestUnreachable(t *testing.T) {
	home(t)
	c := start(t, "3000", "--server", "http://"+rig.FreePort(t))
	if code := c.exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	wantText(t, c.stderr.String(), "(server_unreachable)", "refused", "--server", "--retry")
}

func TestServerIsFull(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{MaxSessions: 1})
	start(t, "3000", "--server", base).next("ready")
	c := start(t, "4000", "--server", base)
	if code := c.exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	wantText(t, c.stderr.String(), "(too_many_sessions)")
}

func TestNotTheServersOwnHost(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Domain: "tunnel.test"})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
	c := start(t, "3000", "--server", "http://sub.localhost:"+port, "--proxy", connectProxy(t, base))
	if code := c.exit(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	wantText(t, c.stderr.String(), "check --server")
}

func TestRetry(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	door := newDoor(t, base)
	door.refuse(2)
	c := start(t, "3000", "--server", door.url, "--retry")
	c.next("ready")
}

func TestStopWhileRetrying(t *testing.T) {
	home(t)
	c := start(t, "3000", "--server", "http://"+rig.FreePort(t), "--retry")
	eventually(t, "it retries", func() bool { return strings.Contains(c.stderr.String(), "retrying") })
	c.signal(syscall.SIGTERM)
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestURLFile(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	file := filepath.Join(t.TempDir(), "url")
	writeFile(t, file, "left by a client that was killed\n")

	c := start(t, "3000", "--server", base, "--url-file", file)
	url := c.next("ready").URL
	eventually(t, "the URL file has the new URL", func() bool { data, _ := os.ReadFile(file); return string(data) == url+"\n" })
	c.signal(syscall.SIGTERM)
	c.exit()
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	c = start(t, "3000", "--server", base, "--url-file", file)
	c.next("ready")
	eventually(t, "the URL file appears", func() bool { _, err := os.Stat(file); return err == nil })
	writeFile(t, file, "another client's\n")
	c.signal(syscall.SIGTERM)
	c.exit()
	if data, _ := os.ReadFile(file); string(data) != "another client's\n" {
		t.Errorf("the other client's URL file holds %q", data)
	}
}

// A client that gets no name leaves the file alone, as that may be another's who
// has it.
func TestURLFileOfAnotherClient(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	file := filepath.Join(t.TempDir(), "url")
	first := start(t, "3000", "--server", base, "--name", "demo", "--url-file", file)
	url := first.next("ready").URL
	eventually(t, "the URL file appears", func() bool { _, err := os.Stat(file); return err == nil })
	for code, args := range map[int][]string{
		4: {"--server", base, "--name", "demo"},
		5: {"--server", "http://" + rig.FreePort(t)},
	} {
		second := start(t, append(args, "3000", "--url-file", file)...)
		if got := second.exit(); got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
		if data, _ := os.ReadFile(file); string(data) != url+"\n" {
			t.Errorf("after exit code %d the file holds %q, want %q", code, data, url)
		}
	}
	first.signal(syscall.SIGTERM)
	first.exit()
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestURLFileCannotBeWritten(t *testing.T) {
	home(t)
	// A socket stands for what is no regular file: a device would be lost to the
	// whole machine, should the check ever fail.
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, file := range []string{"missing/url", ".", socket} {
		c := start(t, "3000", "--server", "http://"+rig.FreePort(t), "--url-file", file)
		if code := c.exit(); code != 2 {
			t.Errorf("%s: exit code %d", file, code)
		}
		wantText(t, c.stderr.String(), "--url-file "+file)
	}
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
