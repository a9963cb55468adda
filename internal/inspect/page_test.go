//go:build unix

package inspect

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
	"github.com/coder/websocket"
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

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// pageApp is what the page's tests look at.
func pageApp(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/chat":
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			c.Write(r.Context(), kind, append([]byte("echo of "), data...))
		}
	case r.URL.Path == "/missing":
		http.NotFound(w, r)
	case r.Method == "POST":
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"got":%s,"large":12345678901234567890,"list":[1,2,{"deep":true}]}`, body)
	default:
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Evil", "<img src=x onerror=alert(1)>")
		fmt.Fprint(w, "<script>alert(1)</script><h1>hello</h1>")
	}
}

func TestPage(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, pageApp)
	b := browse(t, s.URL())
	get := func(path string) {
		ask(t, addr, "GET "+path+" HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nAuthorization: Bearer hush\r\n\r\n")
	}
	post := func(body string) {
		ask(t, addr, fmt.Sprintf("POST /hook?a=1 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}
	t.Run("live", func(t *testing.T) {
		b.t = t
		b.shows("#count", "No requests")
		get("/%3Cimg%20src=x%20onerror=alert(1)%3E")
		get("/missing")
		post(`{"n":1}`)
		b.shows("#count", "3 requests")
		b.await(`[...document.querySelectorAll(".row")].map((r) => r.dataset.id).join() === "3,2,1"`)
		b.shows(`[data-id="3"]`, "POST")
		b.shows(`[data-id="2"]`, "404")
	})
	t.Run("filter", func(t *testing.T) {
		b.t = t
		rows := func(want string) {
			t.Helper()
			b.await(fmt.Sprintf(`[...document.querySelectorAll(".row")].map((r) => r.dataset.id).join() === %q`, want))
		}
		for _, c := range [][3]string{{"#status", "4xx", "2"}, {"#method", "post", "3"}, {"#path", "HOOK", "3"}, {"#text", "deep", "3"}, {"#text", "no such text", ""}} {
			b.fill(c[0], c[1])
			rows(c[2])
			b.fill(c[0], "")
			rows("3,2,1")
		}
	})
	t.Run("pause", func(t *testing.T) {
		b.t = t
		b.press("p")
		b.await(`document.querySelector("#pause").getAttribute("aria-pressed") === "true"`)
		get("/while-paused")
		b.shows("#connection", "1 new")
		b.shows("#count", "3 requests")
		b.press("p")
		b.shows("#count", "4 requests")
	})
	t.Run("detail", func(t *testing.T) {
		b.t = t
		b.do(`document.querySelector("#list").focus()`)
		b.press("Home") // the newest
		b.shows("#detail", "/while-paused")
		b.shows("#detail", "<img src=x onerror=alert(1)>") // as text
		b.shows("#detail pre", "<script>alert(1)</script>")
		if !b.is(`document.querySelectorAll("#detail img, #detail script").length === 0`) {
			t.Error("what was recorded has become HTML (S19)")
		}
		b.shows("#detail", Mask)
		if b.is(`document.body.innerText.includes("hush")`) {
			t.Error("a secret is shown unasked")
		}
		b.press("s")
		b.shows("#detail", "Bearer hush")
		b.press("ArrowDown")
		b.shows("#detail h2", "/hook")
		b.shows("#response ~ .body .tree", "12345678901234567890") // more than a double has
		b.shows("#response ~ .body .tree", "deep")
		b.press("c")
		b.shows("#detail pre", "curl 'http://app.test/hook?a=1'")
		b.shows("#detail pre", `--data-raw '{"n":1}'`)
	})
	t.Run("replay with an edit", func(t *testing.T) {
		b.t = t
		b.press("e")
		b.await(`document.querySelector("[name=body]")?.value === '{"n":1}'`)
		b.fill("[name=body]", `{"n":2}`)
		b.fill("[name=url]", "/hook?a=2")
		b.click("#send")
		b.await(`[...document.querySelectorAll(".compared .differs")].some((e) => e.innerText.includes('"n": 2'))`)
		b.shows(".compared", `"n": 1`)
		b.shows("#count", "5 requests")
		if r := store.find(5).show(true, 0); r.Request.Body.Text != `{"n":2}` || r.Path != "/hook?a=2" || r.ReplayOf != 3 {
			t.Errorf("replayed %+v", r)
		}
		b.press("Escape")
		b.press("r")
		b.shows("#compared", "The answers")
		b.shows("#count", "6 requests")
	})
	t.Run("WebSocket", func(t *testing.T) {
		b.t = t
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, "ws://"+addr+"/chat", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		send := func(text string) {
			c.Write(ctx, websocket.MessageText, []byte(text))
			c.Read(ctx)
		}
		send("first")
		b.shows("#count", "7 requests")
		b.click(`[data-id="7"]`)
		b.shows("#detail table", "echo of first")
		send("second, <b>while it is looked at</b>")
		b.shows("#detail table", "echo of second, <b>while it is looked at</b>")
		c.Close(websocket.StatusNormalClosure, "")
		b.shows("#detail table", "close 1000")
	})
	t.Run("copy as curl", func(t *testing.T) { testCurl(t, b) })
	t.Run("narrow and dark", func(t *testing.T) { testNarrowAndDark(t, b) })
	t.Run("10,000 requests", func(t *testing.T) { testManyRequests(t, b, s, store) })
}

// testCurl sees that a command for a shell reads no file and has nothing that a terminal obeys.
func testCurl(t *testing.T, b *tab) {
	b.t = t
	b.do(`import("./curl.js").then(({ command }) => { window.curl = (text) => command({ url: "http://a/", method: "POST",
		request: { headers: [], body: { text } } }) })`)
	b.await(`window.curl`)
	for text, want := range map[string]string{
		"@/etc/passwd": "--data-raw '@/etc/passwd'", "a\n\tb": "--data-raw 'a\n\tb'", "\x1b[31m": "printf %s G1szMW0= | base64 -d", "a\r\n": "printf %s YQ0K |",
	} {
		if !b.is(fmt.Sprintf(`curl(%s).includes(%s)`, quoted(text), quoted(want))) {
			t.Errorf("the command for %q has no %q", text, want)
		}
	}
}

func testNarrowAndDark(t *testing.T, b *tab) {
	b.t = t
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(360, 640)); err != nil {
		t.Fatal(err)
	}
	b.await(`innerWidth === 360 && document.documentElement.scrollWidth <= 360`)
	b.click("#back")
	b.await(`document.querySelector("#list").getBoundingClientRect().height > 0 && document.querySelector("#detail").getBoundingClientRect().height === 0`)
	b.click(`[data-id="3"]`)
	b.await(`document.querySelector("#detail").getBoundingClientRect().height > 0 && document.documentElement.scrollWidth <= 360`)
	for _, scheme := range []string{"dark", "light"} {
		features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
			t.Fatal(err)
		}
		b.await(fmt.Sprintf(`(getComputedStyle(document.body).backgroundColor === "rgb(255, 255, 255)") === %v`, scheme == "light"))
	}
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(1300, 800)); err != nil {
		t.Fatal(err)
	}
}

// testManyRequests sees that what the page does for ten thousand is what it does for those
// in sight.
func testManyRequests(t *testing.T, b *tab, s *Server, store *Store) {
	b.t = t
	b.click("#clear")
	b.shows("#count", "No requests")
	for i := range maxRecords {
		rec := newRecord(httptest.NewRequest("GET", fmt.Sprintf("/item/%d", i), nil), time.Now())
		rec.target, rec.status, rec.state = fmt.Sprintf("/item/%d", i), 200, done
		store.add(rec)
	}
	b.shows("#count", fmt.Sprintf("%d requests", maxRecords))
	b.await(`document.querySelectorAll(".row").length > 10 && document.querySelectorAll(".row").length < 100`)
	b.do(`document.querySelector("#list").focus()`)
	b.press("End")
	b.shows(`[aria-selected="true"]`, "/item/0")
	b.shows("#detail h2", "/item/0")
	b.press("Home")
	b.shows(`[aria-selected="true"]`, fmt.Sprintf("/item/%d", maxRecords-1))
	b.fill("#path", "/item/777")
	b.shows("#count", fmt.Sprintf("11 of %d", maxRecords))
	b.fill("#path", "")

	// What was exported can be imported.
	var document json.RawMessage
	call(t, s, "GET", "/api/har?path=/item/777", "", &document)
	file := filepath.Join(t.TempDir(), "some.har")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		t.Fatal(err)
	}
	b.click("#clear")
	b.shows("#count", "No requests")
	if err := chromedp.Do(b.ctx, chromedp.SetUploadFiles("#file", []string{file})); err != nil {
		t.Fatal(err)
	}
	b.shows("#count", "11 requests")
}
