package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// startServer runs a server until the test ends and returns its URL.
func startServer(t testing.TB, c server.Config) string {
	url, _ := startServerUntil(t, c)
	return url
}

// startServerUntil is startServer with a function that ends it earlier.
func startServerUntil(t testing.TB, c server.Config) (url string, stop func()) {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Auth == nil {
		c.Auth = auth.Anonymous{}
	}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("server:", err)
		}
	})
	t.Cleanup(stop)
	return "http://" + s.Addr().String(), stop
}

// client is a command that runs in this process.
type running struct {
	t       *testing.T
	signals chan<- os.Signal
	events  chan event
	stderr  *rig.Buffer
	code    chan int
}

// event is a line of --json.
type event struct {
	Event, Endpoint, URL, Name, Target, Listen, Code, Cause string

	line string
}

// home gives the test a directory and a state of its own.
func home(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
}

// start runs "tunnel-client http --json ARGS" until it ends, at the latest when
// the test does.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	return startCommand(t, append([]string{"http", "--json"}, args...)...)
}

// startCommand is start of any command.
func startCommand(t *testing.T, args ...string) *running {
	t.Helper()
	r, w := io.Pipe()
	c := &running{t: t, events: make(chan event, 100), stderr: new(rig.Buffer), code: make(chan int, 1)}
	registered := make(chan chan<- os.Signal, 1)
	p := process{
		args:   append([]string{"tunnel-client"}, args...),
		stdout: w, stderr: c.stderr,
		notify: func(s chan<- os.Signal) { registered <- s },
	}
	go func() {
		code := run(context.Background(), p)
		w.Close()
		close(registered)
		c.code <- code
	}()
	go c.read(r)
	c.signals = <-registered // nil where it ended before
	t.Cleanup(func() {
		c.signal(syscall.SIGTERM)
		c.signal(syscall.SIGTERM)
		c.exit()
		if t.Failed() {
			t.Logf("standard error of %q:\n%s", args, c.stderr)
		}
	})
	return c
}

func (c *running) read(r io.Reader) {
	defer close(c.events)
	for s := bufio.NewScanner(r); s.Scan(); {
		e := event{line: s.Text()}
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			c.t.Errorf("line %q: %v", s.Text(), err)
		}
		c.events <- e
	}
}

// signal may come when the command has ended.
func (c *running) signal(s os.Signal) {
	select {
	case c.signals <- s:
	default:
	}
}

// next waits for the next change, which must be a kind.
func (c *running) next(kind string) event {
	c.t.Helper()
	select {
	case e, ok := <-c.events:
		if !ok {
			c.t.Fatalf("the output ended, want %s; standard error:\n%s", kind, c.stderr)
		}
		if e.Event != kind {
			c.t.Fatalf("event %s, want %s", e.line, kind)
		}
		return e
	case <-time.After(patience):
		c.t.Fatalf("no event %s", kind)
	}
	return event{}
}

// exit waits for the end and returns the code.
func (c *running) exit() int {
	c.t.Helper()
	select {
	case code := <-c.code:
		c.code <- code
		return code
	case <-time.After(patience):
		c.t.Fatalf("the command does not end")
	}
	return -1
}

// insist sends s until the command has ended: one that comes at once is taken for the same.
func (c *running) insist(s os.Signal) int {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		c.signal(s)
		select {
		case code := <-c.code:
			c.code <- code
			return code
		case <-tick.C:
		case <-late:
			c.t.Fatal("the command does not end")
		}
	}
}

// visitor makes requests to public URLs of the server at base.
func visitor(t *testing.T, base string) *http.Client {
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, u.Host)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: patience, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get returns the body behind a public URL.
func get(t *testing.T, server, url string) string {
	t.Helper()
	resp, err := visitor(t, server).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func startApp(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// wantText fails where text lacks one of the words.
func wantText(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not happen that %s", what)
		}
	}
}
