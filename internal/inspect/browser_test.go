//go:build unix

package inspect

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

// browse opens url in a headless Chromium. What goes wrong in the page, and what its
// policy forbids, fails the test.
func browse(t *testing.T, url string) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is missing: apt-get install chromium")
		}
		t.Skip("chromium is missing: apt-get install chromium")
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-sync", "--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--window-size=1300,800",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	errors, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	devtools, read := make(chan string, 1), make(chan bool)
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(errors); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), "DevTools listening on "); ok {
				devtools <- at
			}
		}
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-read
		cmd.Wait()
	})
	select {
	case at := <-devtools:
		return openTab(t, at, url)
	case <-time.After(patience):
		t.Fatal("chromium does not start")
	}
	return nil
}

// tab is the page in the browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	wrong []string
}

func openTab(t *testing.T, devtools, url string) *tab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	t.Cleanup(cancel)
	ctx, cancel = remote.NewAllocator(ctx, devtools, remote.NoModifyURL)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(happened any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := happened.(type) {
		case *runtime.EventExceptionThrown:
			b.wrong = append(b.wrong, e.ExceptionDetails.Text)
		case *cdplog.EventEntryAdded:
			b.wrong = append(b.wrong, e.Entry.Text+" "+e.Entry.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, cdplog.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.wrong) > 0 {
			t.Errorf("the page says %q", b.wrong)
		}
	})
	b.await(`document.querySelector("#connection").textContent === "live"`)
	return b
}

// forgive takes back what went wrong and has text in it.
func (b *tab) forgive(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = slices.DeleteFunc(b.wrong, func(one string) bool { return strings.Contains(one, text) })
}

// is evaluates an expression of JavaScript.
func (b *tab) is(expression string) bool {
	b.t.Helper()
	ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return ok
}

// do runs JavaScript.
func (b *tab) do(script string) {
	b.t.Helper()
	b.is("(() => {" + script + "; return true })()")
}

// await waits until an expression is true.
func (b *tab) await(expression string) {
	b.t.Helper()
	for end := time.Now().Add(patience); !b.is(expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 3000)"))
			b.t.Fatalf("it does not come that %s; the page shows:\n%s", expression, text)
		}
	}
}

// shows waits until an element has text in it.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.await(fmt.Sprintf("document.querySelector(%s)?.innerText.includes(%s)", quoted(selector), quoted(text)))
}

// fill writes into an input as a person does.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.do(fmt.Sprintf(`const e = document.querySelector(%s); e.value = %s; e.dispatchEvent(new Event("input", { bubbles: true }))`, quoted(selector), quoted(text)))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.await(fmt.Sprintf("document.querySelector(%s)", quoted(selector)))
	b.do(fmt.Sprintf("document.querySelector(%s).click()", quoted(selector)))
}

// press presses a key where the focus is.
func (b *tab) press(key string) {
	b.t.Helper()
	b.do(fmt.Sprintf(`document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: %s, bubbles: true, cancelable: true }))`, quoted(key)))
}

// downloads has the browser put what the page gives into a folder, which it returns.
func (b *tab) downloads() (dir string) {
	b.t.Helper()
	dir = b.t.TempDir()
	to := browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir}
	if _, err := chromedp.Call(b.ctx, browser.SetDownloadBehavior, to); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
