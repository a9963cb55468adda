package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// several is a start with many endpoints, whose events come in any order.
type several struct {
	*running
	seen []event
}

// startConfig runs "tunnel-client start --json" with the configuration, without its
// version.
func startConfig(t *testing.T, config string, args ...string) *several {
	t.Helper()
	writeConfig(t, config)
	return &several{running: startCommand(t, append([]string{"start", "--json"}, args...)...)}
}

// writeConfig replaces tunnel.yaml as editors do.
func writeConfig(t *testing.T, config string) {
	t.Helper()
	writeFile(t, "new.yaml", "version: 1\n"+config)
	if err := os.Rename("new.yaml", "tunnel.yaml"); err != nil {
		t.Fatal(err)
	}
}

// of waits for the next change of an endpoint that is a kind. What comes before it, of
// others, is kept.
func (s *several) of(endpoint, kind string) event {
	s.t.Helper()
	end := time.After(patience)
	for {
		if i := slices.IndexFunc(s.seen, func(e event) bool { return e.Endpoint == endpoint && e.Event == kind }); i >= 0 {
			e := s.seen[i]
			s.seen = slices.Delete(s.seen, i, i+1)
			return e
		}
		select {
		case e, ok := <-s.events:
			if !ok {
				s.t.Fatalf("the output ended, want %s of %s, and there were %v; standard error:\n%s", kind, endpoint, s.seen, s.stderr)
			}
			s.seen = append(s.seen, e)
		case <-end:
			s.t.Fatalf("no event %s of %s, but %v; standard error:\n%s", kind, endpoint, s.seen, s.stderr)
		}
	}
}

// none fails where an endpoint had a change that was not waited for.
func (s *several) none(endpoint string) {
	s.t.Helper()
	for len(s.events) > 0 {
		s.seen = append(s.seen, <-s.events)
	}
	for _, e := range s.seen {
		if e.Endpoint == endpoint {
			s.t.Errorf("there was %s", e.line)
		}
	}
}

func says(t *testing.T, word string) string {
	return startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, word) })
}

func TestStart(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	writeFile(t, "site/index.html", "the site")
	c := startConfig(t, fmt.Sprintf(`
server: %s
endpoints:
  web: {target: %q, host_header: preserve}
  docs: {kind: file, target: site, name: papers}
  db: {kind: tcp, target: 127.0.0.1:1, private: true}
`, base, says(t, "the app")))
	if got := get(t, base, c.of("web", "ready").URL); got != "the app" {
		t.Errorf("web answers %q", got)
	}
	docs := c.of("docs", "ready")
	if got := get(t, base, docs.URL); got != "the site" || docs.Name != "papers" {
		t.Errorf("%s answers %q", docs.Name, got)
	}
	if got := c.of("db", "ready"); got.URL != "private:db" {
		t.Errorf("db is at %s", got.URL)
	}
	c.signal(os.Interrupt)
	if got := c.exit(); got != 0 {
		t.Errorf("exit code %d", got)
	}
	for _, name := range []string{"web", "docs", "db"} {
		if e := c.of(name, "closed"); e.Cause != "signal: interrupt" {
			t.Errorf("%s closed because of %q", name, e.Cause)
		}
	}
}

func TestStartChosen(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	config := fmt.Sprintf("server: %s\nendpoints: {web: {target: 1}, docs: {target: 2}, api: {target: 3}}", base)
	c := startConfig(t, config, "web", "api")
	c.of("web", "ready")
	c.of("api", "ready")
	c.signal(os.Interrupt)
	c.exit()
	c.none("docs")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"wbe"}, `tunnel.yaml has no endpoint "wbe": did you mean web?`},
		{[]string{"xyzzy"}, `tunnel.yaml has no endpoint "xyzzy": the file has web, docs, api`},
		{[]string{"--all", "web"}, "--all starts all endpoints: leave web out"},
		{[]string{"--config", "none.yaml"}, "open none.yaml"},
	} {
		c := startConfig(t, config, tt.args...)
		if code := c.exit(); code != 2 || !strings.Contains(c.stderr.String(), tt.want) {
			t.Errorf("%q: exit code %d, and it says %s", tt.args, code, c.stderr)
		}
	}
}

// TestStartEnvironment: a variable counts for all endpoints where the files say nothing,
// but one for what is of one endpoint for none.
func TestStartEnvironment(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	t.Setenv("TUNNEL_SERVER", base)
	t.Setenv("TUNNEL_NAME", "mine")
	t.Setenv("TUNNEL_URL_FILE", "url.txt")
	t.Setenv("TUNNEL_GRACE", "later")
	startConfig(t, "endpoints: {a: {target: 1, grace: 1s}}").of("a", "ready")
	c := startConfig(t, "endpoints: {c: {target: 1, grace: 1s}, b: {target: 2}}")
	if code := c.exit(); code != 2 || !strings.Contains(c.stderr.String(), `"later"`) {
		t.Errorf("exit code %d, and it says %s", code, c.stderr)
	}
	t.Setenv("TUNNEL_GRACE", "2s")
	c = startConfig(t, "endpoints: {b: {target: 1}, c: {target: 2}}")
	if b, c := c.of("b", "ready"), c.of("c", "ready"); b.Name != "b" || c.Name != "c" {
		t.Errorf("the names are %s and %s", b.Name, c.Name)
	}
	if _, err := os.Stat("url.txt"); err == nil {
		t.Error("TUNNEL_URL_FILE is an endpoint's")
	}
}

// TestStartOneFails: the name of one is taken, and the other is there. It gets its name
// when that is free, and so it is with a port.
func TestStartOneFails(t *testing.T) {
	home(t)
	port := rig.FreePorts(t, 1)
	base := startServer(t, server.Config{TCPPorts: server.Ports{First: port, Last: port}})
	startCommand(t, "tcp", "--json", "1", "--server", base, "--name", "first").next("ready")
	app := says(t, "hello")
	first := start(t, app, "--server", base, "--name", "taken")
	first.next("ready")
	c := startConfig(t, fmt.Sprintf("server: %s\nendpoints: {taken: {target: %q}, free: {target: %[2]q}, bad: {target: %[2]q, transport: ptth, origin: 'http://else.example'}, port: {kind: tcp, target: 1, remote_port: %d}}", base, app, port))
	if got := get(t, base, c.of("free", "ready").URL); got != "hello" {
		t.Errorf("free answers %q", got)
	}
	e := c.of("taken", "failed")
	if e.Code != "name_taken" || !strings.Contains(e.Cause, "trying again in 2s") {
		t.Errorf("it failed with %s: %s", e.Code, e.Cause)
	}
	wantText(t, c.stderr.String(), "endpoint=taken", "name_taken", "change `name:` of endpoint taken, or stop the client that has it")
	if e := c.of("port", "failed"); e.Code != "port_unavailable" || !strings.Contains(e.Cause, "trying again in 2s") || !strings.Contains(e.Cause, "`remote_port:`") || strings.Contains(e.Cause, "--") {
		t.Errorf("the port failed with %s: %s", e.Code, e.Cause)
	}
	if e := c.of("bad", "failed"); strings.Contains(e.Cause, "trying again") {
		t.Errorf("what the server will not have is tried again: %s", e.line)
	}
	first.signal(os.Interrupt)
	first.exit()
	if got := get(t, base, c.of("taken", "ready").URL); got != "hello" {
		t.Errorf("taken answers %q", got)
	}
	c.none("free")
}

func TestStartAllFail(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	first := start(t, "1", "--server", base, "--name", "taken")
	first.next("ready")
	c := startConfig(t, fmt.Sprintf("endpoints: {taken: {target: 1, server: %q}, away: {target: 2, server: 'http://%s'}}", base, rig.FreePort(t)))
	if got := c.exit(); got != 4 {
		t.Errorf("exit code %d, want that of the first, 4; standard error:\n%s", got, c.stderr)
	}
	if e := c.of("away", "failed"); e.Code != "server_unreachable" {
		t.Errorf("it failed with %s", e.line)
	}
}

// TestStartPatient: with retry, a server that is not there yet is no failure.
func TestStartPatient(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	d := newDoor(t, rig.FreePort(t))
	for _, servers := range []string{d.url, "http://" + rig.FreePort(t) + ", " + d.url} {
		d.leadTo(rig.FreePort(t))
		c := startConfig(t, fmt.Sprintf("retry: true\nserver: [%s]\nendpoints: {web: {target: 1}}", servers))
		eventually(t, "an attempt fails", func() bool { return strings.Contains(c.stderr.String(), "level=") })
		d.leadTo(base)
		c.of("web", "ready")
		c.signal(os.Interrupt)
		c.exit()
	}
}

// download is a body that ends when the test says so.
type download struct {
	body io.ReadCloser
	end  chan struct{}
}

func (d *download) app(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "first ")
	w.(http.Flusher).Flush()
	if r.URL.Path == "/long" {
		<-d.end
	}
	fmt.Fprint(w, "last")
}

func (d *download) begin(t *testing.T, base, url string) {
	t.Helper()
	resp, err := visitor(t, base).Get(url + "/long")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if _, err := io.ReadFull(resp.Body, make([]byte, len("first "))); err != nil {
		t.Fatal(err)
	}
	d.body = resp.Body
}

func (d *download) finish(t *testing.T) {
	t.Helper()
	close(d.end)
	if rest, err := io.ReadAll(d.body); string(rest) != "last" || err != nil {
		t.Errorf("the download ended with %q, %v", rest, err)
	}
}

// TestStartReload: others are added, changed and removed while a download runs through a,
// which notices nothing.
func TestStartReload(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Hold: time.Hour})
	d := &download{end: make(chan struct{})}
	a := fmt.Sprintf("server: %s\nendpoints:\n  a: {target: %q}\n", base, startApp(t, d.app))
	old, fresh := says(t, "old"), says(t, "fresh")
	c := startConfig(t, a+fmt.Sprintf("  b: {target: %q}\n", old))
	d.begin(t, base, c.of("a", "ready").URL)
	if got := get(t, base, c.of("b", "ready").URL); got != "old" {
		t.Errorf("b answers %q", got)
	}

	writeConfig(t, a+fmt.Sprintf("  b: {target: %q}\n  c: {target: %q}\n", fresh, old))
	c.signal(syscall.SIGHUP)
	if got := get(t, base, c.of("c", "ready").URL); got != "old" {
		t.Errorf("c, which was added, answers %q", got)
	}
	if got := get(t, base, c.of("b", "ready").URL); got != "fresh" {
		t.Errorf("b, which was changed, answers %q", got)
	}
	if e := c.of("b", "draining"); e.Cause != errChanged.Error() {
		t.Errorf("b drains because of %q", e.Cause)
	}
	wantText(t, c.stderr.String(), "configuration applied", "added=1 changed=1 removed=0 endpoints=3")

	writeConfig(t, a+"  b: {target: 1, grace: soon}\n") // and nobody says so
	eventually(t, "the mistake is told", func() bool {
		return strings.Contains(c.stderr.String(), "tunnel.yaml:5: endpoint b: grace must be a time")
	})
	wantText(t, c.stderr.String(), "the new configuration is not used, the old one goes on")
	if got := get(t, base, "http://b.localhost:"+portOf(base)); got != "fresh" {
		t.Errorf("b answers %q after a mistake in the file", got)
	}

	writeConfig(t, a)
	for _, name := range []string{"b", "c"} {
		c.of(name, "draining")
		if e := c.of(name, "closed"); e.Cause != errRemoved.Error() {
			t.Errorf("%s closed because of %q", name, e.Cause)
		}
	}
	c.none("a")
	c.none("b") // its end as it was is none of b
	d.finish(t)
	c.none("a")
	if n := strings.Count(c.stderr.String(), "is not used"); n != 1 {
		t.Errorf("the mistake is told %d times", n)
	}
	c.signal(os.Interrupt)
	if got := c.exit(); got != 0 {
		t.Errorf("exit code %d", got)
	}
}

func portOf(base string) string { return base[strings.LastIndexByte(base, ':')+1:] }

// TestStartChangeLetsFinish: what is changed has its new form while a request of the old
// one goes on, to its end.
func TestStartChangeLetsFinish(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Hold: time.Hour})
	d := &download{end: make(chan struct{})}
	config := "server: %s\nendpoints: {web: {target: %q}}"
	c := startConfig(t, fmt.Sprintf(config, base, startApp(t, d.app)))
	url := c.of("web", "ready").URL
	d.begin(t, base, url)
	writeConfig(t, fmt.Sprintf(config, base, says(t, "fresh")))
	c.signal(syscall.SIGHUP)
	if again := c.of("web", "ready"); again.URL != url || get(t, base, url) != "fresh" {
		t.Errorf("changed, it is at %s, not %s", again.URL, url)
	}
	d.finish(t)
	c.of("web", "draining")
	c.none("web") // a name that is taken for a moment is no failure
}

// TestSourcesSettle: what is being written is not looked at before it is complete.
func TestSourcesSettle(t *testing.T) {
	home(t)
	writeFile(t, "a", "one")
	writeFile(t, "b", "two")
	s, err := openSources([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		b    string
		want bool
	}{{"two", false}, {"t", false}, {"three", false}, {"three", true}, {"two", false}, {"two", false}} {
		writeFile(t, "b", step.b)
		if got := s.look(); got != step.want {
			t.Errorf("look %d, with %q: %v", i+1, step.b, got)
		}
	}
}

// TestStartWithoutFile: an editor may be amid replacing the file, and what is gone is not
// what the user wants to have ended.
func TestStartWithoutFile(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	config := fmt.Sprintf("server: %s\nendpoints: {web: {target: %q}}", base, says(t, "hello"))
	c := startConfig(t, config)
	url := c.of("web", "ready").URL
	if err := os.Remove("tunnel.yaml"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is missed", func() bool { return strings.Contains(c.stderr.String(), "open tunnel.yaml") })
	writeFile(t, "tunnel.yaml", "")
	eventually(t, "it is found empty", func() bool { return strings.Contains(c.stderr.String(), "the file is empty") })
	if got := get(t, base, url); got != "hello" {
		t.Errorf("web answers %q", got)
	}
	writeConfig(t, config+"\n# a comment")
	eventually(t, "it is back", func() bool { return strings.Contains(c.stderr.String(), "added=0 changed=0 removed=0") })
	c.none("web")
}

// TestStartTriesAgain: SIGHUP tries what had failed for good.
func TestStartTriesAgain(t *testing.T) {
	home(t)
	base := startTokenServer(t, "good-token\n")
	open := startServer(t, server.Config{})
	writeFile(t, "token", "better-token\n")
	c := startConfig(t, fmt.Sprintf("endpoints:\n  open: {target: 1, server: %q}\n  web: {target: 2, server: %q, token_file: token}", open, base))
	if e := c.of("web", "failed"); e.Code != "unauthorized" || strings.Contains(e.Cause, "trying again") {
		t.Errorf("it failed with %s", e.line)
	}
	c.of("open", "ready")
	writeFile(t, "token", "good-token\n")
	c.signal(syscall.SIGHUP)
	c.of("web", "ready")
	c.none("open")
}

// TestStartStays: a server that is away for a moment is not left.
func TestStartStays(t *testing.T) {
	home(t)
	d := newDoor(t, startServer(t, server.Config{}))
	c := startConfig(t, fmt.Sprintf("server: [%s, %s]\nfailover_after: 1h\nendpoints: {web: {target: 1}}", d.url, startServer(t, server.Config{})))
	c.of("web", "ready")
	d.slam()
	c.of("web", "disconnected")
	c.of("web", "reconnected")
	c.none("web")
}

func TestStartFailover(t *testing.T) {
	home(t)
	first, second := startServer(t, server.Config{}), startServer(t, server.Config{})
	d := newDoor(t, first)
	app := says(t, "hello")
	c := startConfig(t, fmt.Sprintf("server: [http://%s, %s, %s]\nfailover_after: 300ms\nendpoints: {web: {target: %q}}", rig.FreePort(t), d.url, second, app))
	ready := c.of("web", "ready")
	if got := get(t, first, ready.URL); got != "hello" {
		t.Errorf("the first that can be reached has %q", got)
	}
	d.leadTo(rig.FreePort(t))
	d.slam()
	c.of("web", "disconnected")
	if e := c.of("web", "closed"); e.Cause != "the server is away for 300ms" {
		t.Errorf("the first closed because of %q", e.Cause)
	}
	moved := c.of("web", "ready")
	if moved.URL == ready.URL {
		t.Errorf("the URL is still %s", moved.URL)
	}
	if got := get(t, second, moved.URL); got != "hello" {
		t.Errorf("the second has %q", got)
	}
	c.none("web")
}

// TestStartSignalEndsAtOnce: the second signal cuts what is under way off, visibly.
func TestStartSignalEndsAtOnce(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	d := &download{end: make(chan struct{})}
	c := startConfig(t, fmt.Sprintf("server: %s\nendpoints: {web: {target: %q}}", base, startApp(t, d.app)))
	d.begin(t, base, c.of("web", "ready").URL)
	defer close(d.end)
	c.signal(os.Interrupt)
	c.of("web", "draining")
	if got := c.insist(os.Interrupt); got != 130 {
		t.Errorf("exit code %d", got)
	}
	if _, err := io.ReadAll(d.body); err == nil {
		t.Error("what was cut off looks complete")
	}
}

// TestStartPickedName: an endpoint without a name has one of the server's, the same each
// time.
func TestStartPickedName(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	var names []string
	for range 2 {
		c := startConfig(t, fmt.Sprintf("server: %s\nendpoints: {web: {target: 1, name: ''}}", base))
		names = append(names, c.of("web", "ready").Name)
		c.signal(os.Interrupt)
		c.exit()
	}
	if names[0] == "web" || names[0] != names[1] {
		t.Errorf("the names are %q", names)
	}
}

// TestStartLog: without --json, the log's lines have the endpoint.
func TestStartLog(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	writeConfig(t, fmt.Sprintf("server: %s\nendpoints: {web: {target: %q}}", base, says(t, "hello")))
	var stderr rig.Buffer
	signals := make(chan chan<- os.Signal, 1)
	code := make(chan int)
	go func() {
		code <- run(context.Background(), process{
			args: []string{"tunnel-client", "start", "--log-level", "debug"}, stdout: io.Discard, stderr: &stderr,
			notify: func(c chan<- os.Signal) { signals <- c },
		})
	}()
	stop := <-signals
	eventually(t, "it is ready", func() bool {
		return strings.Contains(stderr.String(), "msg=ready endpoint=web url=http://web.localhost")
	})
	get(t, base, "http://web.localhost:"+portOf(base)+"/path")
	eventually(t, "the request is logged", func() bool {
		return strings.Contains(stderr.String(), "msg=request endpoint=web method=GET path=/path status=200")
	})
	stop <- os.Interrupt
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, &stderr)
	}
}

// startTokenServer runs a server that lets those in whose token is in tokens.
func startTokenServer(t *testing.T, tokens string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	writeFile(t, file, tokens)
	known, err := auth.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return startServer(t, server.Config{Auth: known})
}
