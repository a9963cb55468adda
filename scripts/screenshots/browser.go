package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

// A picture is a state of the page.
type picture struct {
	name          string
	width, height int64
	steps         []step
}

// A step is JavaScript, and an expression that is true when it has had its effect.
type step struct{ do, until string }

const (
	newest    = `document.querySelector("#list").dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }))`
	failed    = `document.querySelector('[data-id="11"]').click()` // the webhook, the last of visitShop
	hasFailed = `document.querySelector("#detail h2")?.innerText.includes("422") && document.querySelector("#request ~ .body .tree")`
)

// pictures are those that are taken, one after the other in one page.
func pictures() []picture {
	return []picture{
		{name: "inspector", width: 1200, height: 800, steps: []step{
			{failed, hasFailed},
		}},
		{name: "replay", width: 1200, height: 800, steps: []step{
			{failed, hasFailed},
			{`document.querySelector("#do-edit").click();
			  const body = document.querySelector("[name=body]"); body.value = body.value.replace("USD", "EUR");
			  document.querySelector("#send").click()`, `document.querySelector(".compared mark")`},
			{`document.querySelector("#said").textContent = ""`, `true`},
		}},
		{name: "websocket", width: 1200, height: 560, steps: []step{
			{`document.querySelector("#path").value = "/socket"; document.querySelector("#path").dispatchEvent(new Event("input"))`, `document.querySelectorAll(".row").length === 1`},
			{newest, `document.querySelector("#detail h2")?.innerText.includes("/socket") && document.querySelectorAll("#detail tbody tr").length > 5`},
		}},
	}
}

// browser is the inspector's page.
type browser struct {
	ctx context.Context
	url string
}

// browse starts Chromium.
func (s *stage) browse() (*browser, error) {
	_, stderr, err := s.start("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-extensions", "--disable-sync", "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
		"--hide-scrollbars", "--user-data-dir="+s.home+"/chromium", "--remote-debugging-port=0", "about:blank")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install chromium", err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		devtools, ok := strings.CutPrefix(lines.Text(), "DevTools listening on ")
		if !ok {
			continue
		}
		go io.Copy(io.Discard, stderr)
		ctx, _ := remote.NewAllocator(s.ctx, devtools, remote.NoModifyURL) // ends with the stage's
		ctx, _ = chromedp.NewContext(ctx)
		return &browser{ctx: ctx, url: s.inspector}, nil
	}
	return nil, errors.New("chromium did not start")
}

// take loads the page anew and takes a picture of it.
func (b *browser) take(p picture, scheme string) ([]byte, error) {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		return nil, err
	}
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(p.width, p.height), chromedp.Navigate(b.url)); err != nil {
		return nil, err
	}
	for _, s := range append([]step{{`true`, `document.querySelectorAll(".row").length > 5`}}, p.steps...) {
		if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("(() => { "+s.do+"; return true })()")); err != nil {
			return nil, fmt.Errorf("%s: %w", s.do, err)
		}
		if err := b.await(s.until); err != nil {
			return nil, err
		}
	}
	return chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
}

func (b *browser) await(expression string) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("it does not come that %s", expression)
}
