package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// Over PTTH the app sees, and its visitors get back, what they do over the other
// transports.
func TestPTTHIsAsTheOthers(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/next")
		w.Header().Set("Content-Location", "http://"+r.Host+"/here")
		w.Header().Set("Access-Control-Allow-Origin", "http://"+r.Host)
		w.Header().Add("Set-Cookie", "a=b; Domain=127.0.0.1; Path=/")
		w.WriteHeader(http.StatusFound)
		for _, name := range []string{"Origin", "Referer", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix"} {
			io.WriteString(w, name+"="+r.Header.Get(name)+"\n")
		}
		io.WriteString(w, r.Host+" "+r.RequestURI)
	})
	for _, mode := range []string{"rewrite", "preserve", "app.example:8000"} {
		seen := make(map[string]string)
		for _, transport := range []string{"raw", "ptth"} {
			c := start(t, "--server", base, "--name", "same", "--host-header", mode, "--transport", transport, app)
			ready := c.next("ready")
			if transport == "ptth" {
				wantText(t, ready.line, `"transport":"ptth"`, `"protocol":"h2"`)
			}
			eventually(t, "the app answers", func() bool {
				req, _ := http.NewRequest("GET", ready.URL+"/a?b", nil)
				req.Header.Set("Origin", ready.URL)
				req.Header.Set("Referer", ready.URL+"/page")
				res, err := visitor(t, base).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				seen[transport] = res.Status + string(body)
				for _, name := range []string{"Location", "Content-Location", "Access-Control-Allow-Origin", "Set-Cookie"} {
					seen[transport] += "\n" + name + ": " + res.Header.Get(name)
				}
				return res.StatusCode == http.StatusFound
			})
			c.signal(syscall.SIGTERM)
			c.next("draining")
			c.next("closed")
			if code := c.exit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}
		if seen["raw"] != seen["ptth"] {
			t.Errorf("--host-header %s: by raw\n%s\nby ptth\n%s", mode, seen["raw"], seen["ptth"])
		}
	}
}

// An app that is not there is told of as over the other transports.
func TestPTTHAppRefused(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	c := start(t, "--server", base, "--transport", "ptth", rig.FreePort(t))
	url := c.next("ready").URL
	eventually(t, "the visitor gets app_refused", func() bool { return strings.Contains(get(t, base, url), "app_refused") })
}

// The name that was made up is kept, and the URL is in the file.
func TestPTTHNameSticks(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	first := ""
	for range 2 {
		c := start(t, "3000", "--server", base, "--transport", "ptth", "--url-file", "url")
		ready := c.next("ready")
		if first != "" && ready.Name != first {
			t.Errorf("the second start has %s, want %s", ready.Name, first)
		}
		first = ready.Name
		eventually(t, "the URL is in the file", func() bool {
			text, _ := os.ReadFile("url")
			return strings.TrimSpace(string(text)) == ready.URL
		})
		c.signal(os.Interrupt)
		if code := c.exit(); code != 0 {
			t.Fatalf("exit code %d", code)
		}
	}
}

func TestPTTHUsage(t *testing.T) {
	home(t)
	for _, c := range []struct{ args, want string }{
		{"tcp 22 --transport ptth", "--transport ptth carries HTTP alone, not tcp"},
		{"udp 53 --transport ptth", "--transport ptth carries HTTP alone, not udp"},
		{"tls 8443 --transport ptth", "--transport ptth carries HTTP alone, not tls"},
		{"connect db --transport ptth", "PTTH has no streams"},
		{"http 3000 --transport ptth --private", "--private needs streams"},
		{"http 3000 --transport ptth --proxy-protocol v2", "--proxy-protocol needs a server"},
		{"http 3000 --origin https://app.example", "add --transport ptth"},
		{"http 3000 --transport ptth --name demo --origin https://app.example", "leave --name out"},
		{"http 3000 --transport ptth --origin app.example", "is not http:// or https://"},
	} {
		got := startCommand(t, strings.Fields(c.args)...)
		if code := got.exit(); code != int(exitUsage) {
			t.Errorf("%s: exit code %d", c.args, code)
		}
		wantText(t, got.stderr.String(), c.want)
	}
}
