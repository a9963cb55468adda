//go:build unix

package inspect

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

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

// page is the inspector in a browser, with what it shows.
type page struct {
	*tab
	store *Store
	addr  string // where visitors call
}

func (p *page) get(path string) {
	p.t.Helper()
	ask(p.t, p.addr, "GET "+path+" HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nAuthorization: Bearer hush\r\n\r\n")
}

func (p *page) post(body string) {
	p.t.Helper()
	ask(p.t, p.addr, fmt.Sprintf("POST /hook?a=1 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// rows waits until the list has the requests with these ids, from its top.
func (p *page) rows(ids string) {
	p.t.Helper()
	p.await(fmt.Sprintf(`[...document.querySelectorAll(".row")].map((r) => r.dataset.id).join() === %q`, ids))
}

// TestPage is one visit of the page: each part begins where the one before it has ended.
func TestPage(t *testing.T) {
	p := &page{store: new(Store)}
	s := listen(t, p.store)
	p.addr, _ = tunnel(t, p.store, pageApp)
	p.tab = browse(t, s.URL())
	for _, part := range []struct {
		name string
		test func(*testing.T, *page)
	}{
		{"live", testLiveList}, {"filter", testPageFilters}, {"pause", testPause}, {"detail", testDetail}, {"replay with an edit", testEdit},
		{"WebSocket", testPageWebSocket}, {"copy as curl", testCurl}, {"endpoints", testPageEndpoints}, {"narrow and dark", testNarrowAndDark},
		{"10,000 requests", testManyRequests}, {"HAR", testPageHAR},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			p.t = t
			part.test(t, p)
		}) {
			return
		}
	}
}

func testLiveList(t *testing.T, b *page) {
	b.shows("#count", "No requests")
	b.get("/%3Cimg%20src=x%20onerror=alert(1)%3E")
	b.get("/missing")
	b.post(`{"n":1}`)
	b.shows("#count", "3 requests")
	b.rows("3,2,1")
	b.shows(`[data-id="3"]`, "POST")
	b.shows(`[data-id="2"]`, "404")
}

func testPageFilters(t *testing.T, b *page) {
	for _, c := range [][3]string{{"#status", "4xx", "2"}, {"#method", "post", "3"}, {"#path", "HOOK", "3"}, {"#text", "deep", "3"}, {"#text", "no such text", ""}} {
		b.fill(c[0], c[1])
		b.rows(c[2])
		b.fill(c[0], "")
		b.rows("3,2,1")
	}
}

func testPause(t *testing.T, b *page) {
	b.press("p")
	b.await(`document.querySelector("#pause").getAttribute("aria-pressed") === "true"`)
	b.get("/while-paused")
	b.shows("#connection", "1 new")
	b.shows("#count", "3 requests")
	b.press("p")
	b.shows("#count", "4 requests")
}

func testDetail(t *testing.T, b *page) {
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
}

func testEdit(t *testing.T, b *page) {
	b.press("e")
	b.await(`document.querySelector("[name=body]")?.value === '{"n":1}'`)
	b.fill("[name=body]", `{"n":2}`)
	b.fill("[name=url]", "/hook?a=2")
	b.click("#send")
	b.await(`[...document.querySelectorAll(".compared mark")].some((e) => e.innerText.includes('"n": 2'))`)
	b.shows(".compared", `"n": 1`)
	b.shows("#count", "5 requests")
	if r := b.store.find(5).show(true, 0); r.Request.Body.Text != `{"n":2}` || r.Path != "/hook?a=2" || r.ReplayOf != 3 {
		t.Errorf("replayed %+v", r)
	}
	b.press("Escape")
	b.press("r")
	b.shows("#compared", "The answers")
	b.shows("#count", "6 requests")
}

func testPageWebSocket(t *testing.T, b *page) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+b.addr+"/chat", nil)
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
}

// testPageEndpoints sees that a filter by endpoint is there where there are several, and works
// as the others do.
func testPageEndpoints(t *testing.T, b *page) {
	const filter = `document.querySelector("#endpoint")`
	hidden := func(want bool) {
		t.Helper()
		b.await(fmt.Sprintf(`(%s.getClientRects().length === 0) === %v`, filter, want))
	}
	web, api := named(b.store, "web", "the site"), named(b.store, "api", "the API")
	visit(web, "/of-web")
	b.shows(".row", "/of-web")
	hidden(true) // there is no other one
	if b.is(`document.querySelector(".row").innerText.includes("web ")`) {
		t.Error("the only endpoint is told of each request")
	}
	visit(api, "/of-api")
	b.shows(".row", "api /of-api")
	hidden(false)
	if !b.is(filter + `.labels[0].textContent.startsWith("Endpoint") && ` + filter + `.tabIndex === 0`) {
		t.Error("the filter has no label, or cannot be reached by keyboard")
	}
	records := b.store.all()
	all := records[len(records)-1].id
	for i, endpoint := range []string{"web", "api"} {
		b.fill("#endpoint", endpoint)
		b.rows(fmt.Sprint(all - 1 + int64(i)))
		b.await(fmt.Sprintf(`document.querySelector(".row").innerText.includes("%s /of-")`, endpoint))
	}
	visit(web, "/of-web-later")
	b.shows("#count", fmt.Sprintf("1 of %d requests", all+1))
	b.click(".row")
	b.shows("#detail", "endpoint api")
	b.press("r")
	b.shows("#count", fmt.Sprintf("2 of %d requests", all+2))
	if r := b.store.find(all+2).show(true, 0); r.Endpoint != "api" || r.Response.Body.Text != "the API" {
		t.Errorf("replayed by %s: %s", r.Endpoint, r.Response.Body.Text)
	}
	b.fill("#endpoint", "")
	b.shows("#count", fmt.Sprintf("%d requests", all+2))
}

// testCurl sees that a command for a shell reads no file and has nothing that a terminal obeys.
func testCurl(t *testing.T, b *page) {
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

func testNarrowAndDark(t *testing.T, b *page) {
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
func testManyRequests(t *testing.T, b *page) {
	b.click("#clear")
	b.shows("#count", "No requests")
	for i := range maxRecords {
		rec := newRecord(httptest.NewRequest("GET", fmt.Sprintf("/item/%d", i), nil), time.Now())
		rec.target, rec.status, rec.state = fmt.Sprintf("/item/%d", i), 200, done
		b.store.add(rec)
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
}

// testPageHAR sees that what the list shows can be exported by the button, as a HAR, and be
// imported.
func testPageHAR(t *testing.T, b *page) {
	dir := b.downloads()
	b.fill("#path", "/item/777")
	b.shows("#count", "11 of")
	b.click("#export")
	b.shows("#said", "exported 11 requests")
	file := filepath.Join(dir, "tunnel.har")
	var document []byte
	for end := time.Now().Add(patience); document == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is downloaded")
		}
		document, _ = os.ReadFile(file) // it has its name when it is whole
	}
	checkHAR(t, document)
	if n := strings.Count(string(document), `"url":"http://example.com/item/777`); n != 11 {
		t.Errorf("%d requests of 11 are exported: %.300s", n, document)
	}
	b.fill("#path", "")
	b.click("#clear")
	b.shows("#count", "No requests")
	if err := chromedp.Do(b.ctx, chromedp.SetUploadFiles("#file", []string{file})); err != nil {
		t.Fatal(err)
	}
	b.shows("#count", "11 requests")
}
