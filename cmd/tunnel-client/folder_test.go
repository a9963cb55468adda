package main

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/internal/server"
)

// startFolder serves a folder with a.txt, a secret beside it, and an index.html below.
func startFolder(t *testing.T, base string, args ...string) (c *running, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "my site")
	if err := os.MkdirAll(filepath.Join(dir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "a.txt"), "text")
	writeFile(t, filepath.Join(dir, "app", "index.html"), "<p>app")
	writeFile(t, filepath.Join(dir, ".env"), "PASSWORD")
	command := []string{"file"}
	for _, a := range args {
		switch a {
		case "http":
			command[0], a = a, "--json"
		case "DIR":
			a = dir
		case "URL":
			a = (&url.URL{Scheme: "file", Path: dir}).String()
		}
		command = append(command, a)
	}
	return startCommand(t, append(command, "--json", "--server", base)...), dir
}

func TestFile(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	for name, args := range map[string][]string{
		"raw":         {"DIR", "--transport", "raw"},
		"websocket":   {"DIR", "--transport", "websocket"},
		"ptth":        {"DIR", "--transport", "ptth"},
		"http by URL": {"http", "URL"},
		"file by URL": {"URL"},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := startFolder(t, base, args...)
			ready := c.next("ready")
			if want := (&url.URL{Scheme: "file", Path: dir}).String(); ready.Target != want {
				t.Errorf("target %q, want %q", ready.Target, want)
			}
			eventually(t, "the file is there", func() bool { return get(t, base, ready.URL+"/a.txt") == "text" })
			wantText(t, get(t, base, ready.URL), `href="./a.txt"`, `href="./app/"`)
			if got := get(t, base, ready.URL+"/app/"); got != "<p>app" {
				t.Errorf("index.html is %q", got)
			}
			for _, hidden := range []string{"/.env", "/%2eenv", "/app/..%2f.env", "/app/%2e%2e/.env"} {
				if got := get(t, base, ready.URL+hidden); strings.Contains(got, "PASSWORD") {
					t.Errorf("%s gives %q", hidden, got)
				}
			}
			c.signal(syscall.SIGTERM)
			c.next("draining")
			c.next("closed")
			if code := c.exit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestFileFlags(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	t.Setenv("TUNNEL_HOST_HEADER", "preserve") // it is not of file
	t.Setenv("TUNNEL_HIDDEN", "true")
	c, _ := startFolder(t, base, "DIR")
	if got := get(t, base, c.next("ready").URL+"/.env"); got != "PASSWORD" {
		t.Errorf("with --hidden: %q", got)
	}
	c, dir := startFolder(t, base, "DIR", "--name", "demo", "--log-level", "debug")
	ready := c.next("ready")
	writeFile(t, filepath.Join(dir, "new.txt"), "new")
	if got := get(t, base, ready.URL+"/new.txt"); got != "new" {
		t.Errorf("a new file is %q", got)
	}
	eventually(t, "the request is in the log", func() bool { return strings.Contains(c.stderr.String(), "path=/new.txt status=200 bytes=3") })
	if ready.Name != "demo" || strings.Contains(c.stderr.String(), "does not answer yet") {
		t.Errorf("name %s, log\n%s", ready.Name, c.stderr)
	}
}

func TestFileSPA(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "index.html"), "<p>home")
	c := startCommand(t, "http", "--json", "--server", base, "--spa", "file://"+filepath.ToSlash(dir))
	public := c.next("ready").URL
	if got := get(t, base, public+"/users/7"); got != "<p>home" {
		t.Errorf("a route is %q", got)
	}
	if got := get(t, base, public+"/app.js"); got == "<p>home" {
		t.Error("a script that is not there is the home page")
	}
}

// A file that is cut while it is sent is an error to the visitor, over all transports.
func TestFileCut(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	for _, transport := range []string{"raw", "ptth"} {
		t.Run(transport, func(t *testing.T) {
			c, dir := startFolder(t, base, "DIR", "--transport", transport)
			public := c.next("ready").URL
			path := filepath.Join(dir, "large")
			const size = 128 << 20 // more than what is on the way
			writeFile(t, path, "")
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the tunnel is there", func() bool { return get(t, base, public+"/a.txt") == "text" })
			res, err := visitor(t, base).Get(public + "/large")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 1000)); err != nil || res.StatusCode != 200 || res.ContentLength != size {
				t.Fatalf("%s, length %d: %v", res.Status, res.ContentLength, err)
			}
			if err := os.Truncate(path, 2000); err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, res.Body); err == nil || n >= size-1000 {
				t.Errorf("%d bytes, and %v", n, err)
			}
			eventually(t, "the log says why", func() bool {
				return strings.Contains(c.stderr.String(), "the file changed while it was sent")
			})
		})
	}
}
