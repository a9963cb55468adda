//go:build unix

package e2e

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

// TestVite opens a page of a Vite development server in a browser, edits a
// source file, and sees the page change without being loaded again.
func TestVite(t *testing.T) {
	project := installProject(t, "vite")
	vite := start(t, project.command(filepath.Join("node_modules", "vite", "bin", "vite.js"), "--host", "127.0.0.1", "--port", "0"))
	target, err := vite.out.find(func(line string) (string, bool) {
		_, after, ok := strings.Cut(line, "http://")
		return strings.TrimSuffix(strings.TrimSpace(after), "/"), ok && strings.Contains(line, "Local:")
	})
	if err != nil {
		t.Fatalf("vite did not start: %v", err)
	}
	devtools := startChromium(t)
	message := "as it was"
	eachTransport(t, func(t *testing.T, transport string) {
		// Vite lets any host below localhost in, unlike others.
		s := startServer(t, "--domain", "preview.test")
		public := startClient(t, target, "--server", s.url, "--name", "app", "--transport", transport).url
		tab := openTab(t, devtools)
		tab.run(t, chromedp.Navigate(public))
		tab.await(t, `document.querySelector("#message").textContent === "`+message+`"`)
		tab.awaitFrame(t, `"connected"`)
		tab.run(t, chromedp.Evaluate[chromedp.Void](`window.stillTheSamePage = true`))

		// Edited once for each transport, and not back: Vite's watcher leaves out a change
		// within 50 ms of another, and the page has shown the first by then.
		before := message
		message = "edited for " + transport
		replaceIn(t, filepath.Join(project.dir, "message.js"), before, message)
		tab.await(t, `document.querySelector("#message").textContent === "`+message+`"`)
		tab.awaitFrame(t, `"update"`)
		same, err := chromedp.Run(tab.ctx, chromedp.Evaluate[bool](`window.stillTheSamePage === true`))
		if err != nil || !same || tab.navigations() != 1 {
			t.Errorf("the page was loaded again: %d times in all", tab.navigations())
		}
		// Where the socket through the page's host fails, Vite opens one to the local
		// app, which would work here, too.
		for _, socket := range tab.sockets() {
			if u, err := url.Parse(socket); err != nil || u.Host != hostOf(t, public) {
				t.Errorf("a WebSocket leads to %s and not to %s", socket, hostOf(t, public))
			}
		}
	})
}

// replaceIn edits a file.
func replaceIn(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), from) {
		t.Fatalf("%s: %q, %v", file, b, err)
	}
	writeFile(t, file, strings.ReplaceAll(string(b), from, to))
}

// startChromium runs a headless Chromium and returns the URL of its DevTools.
func startChromium(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(need(t, "chromium", "chromium"),
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
		"--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync",
		"--disable-background-networking", "--disable-component-update", "--disable-domain-reliability",
		"--no-proxy-server", "--host-resolver-rules=MAP *.preview.test 127.0.0.1",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", "about:blank")
	cmd.Env = environment("HOME=" + home)
	p := start(t, cmd)
	devtools, err := p.errors.find(func(line string) (string, bool) {
		return strings.CutPrefix(line, "DevTools listening on ")
	})
	if err != nil {
		t.Fatalf("chromium did not start: %v", err)
	}
	return devtools
}

// tab is a page of the browser, with what it did.
type tab struct {
	ctx context.Context

	mu     sync.Mutex
	loads  int      // of documents
	opened []string // URLs of WebSockets
	frames []string // messages that came over them
}

func openTab(t *testing.T, devtools string) *tab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	ctx, cancel = remote.NewAllocator(ctx, devtools, remote.NoModifyURL)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{ctx: ctx}
	err := chromedp.Listen(ctx, func(happened any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := happened.(type) {
		case *page.EventDomContentEventFired:
			b.loads++
		case *network.EventWebSocketCreated:
			b.opened = append(b.opened, e.URL)
		case *network.EventWebSocketFrameReceived:
			b.frames = append(b.frames, string(e.Response.PayloadData))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) run(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// await waits until an expression of JavaScript is true.
func (b *tab) await(t *testing.T, expression string) {
	t.Helper()
	poll := chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience))
	if err := chromedp.Do(b.ctx, poll); err != nil {
		t.Fatalf("%s: %v; WebSockets %q got %q", expression, err, b.sockets(), b.received())
	}
}

// awaitFrame waits for a WebSocket's message with text in it.
func (b *tab) awaitFrame(t *testing.T, text string) {
	t.Helper()
	eventually(t, "a WebSocket's message with "+text, func() bool { return strings.Contains(b.received(), text) })
}

func (b *tab) received() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.frames, "\n")
}

func (b *tab) sockets() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.opened...)
}

// navigations is how many documents were loaded.
func (b *tab) navigations() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loads
}
