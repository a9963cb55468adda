//go:build unix

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

// keptBody is the bound of the bodies that TestHARValid's inspector keeps, in bytes.
const keptBody = 4 << 10

// TestHARValid: whatever passes, the export is a HAR to a validator that is not ours, by the
// API and by the page's button, and lists the same when it is imported.
func TestHARValid(t *testing.T) {
	project := installProject(t, "har")
	devtools := startChromium(t)
	v := newVisits(t)
	v.all(t)

	exported := v.inspector.call(t, "GET", "har", nil)
	byAPI, byPage := filepath.Join(t.TempDir(), "api.har"), v.exportByPage(t, devtools)
	writeFile(t, byAPI, string(exported))
	if code, out, errors := run(t, project.command("validate.js", byAPI, byPage)); code != 0 {
		t.Errorf("the export is not valid:\n%s%s", out, errors)
	}
	if n := bytes.Count(exported, []byte("startedDateTime")); n != v.count {
		t.Errorf("%d of %d requests are exported", n, v.count)
	}
	if bytes.Contains(exported, []byte("hush")) {
		t.Error("a secret is exported")
	}

	before := v.inspector.list(t)
	v.inspector.call(t, "POST", "har", exported)
	after := v.inspector.list(t)
	if len(after) != 2*len(before) {
		t.Fatalf("after an import of %d requests there are %d", len(before), len(after))
	}
	for i, was := range before {
		now := after[len(before)+i]
		if now["imported"] != true {
			t.Errorf("%v is not marked as imported", now)
		}
		delete(now, "imported")
		delete(now, "id")
		delete(was, "id")
		if a, b := fmt.Sprint(was), fmt.Sprint(now); a != b {
			t.Errorf("imported\n%s, want\n%s", b, a)
		}
	}
	// Exported once more it is valid, too.
	writeFile(t, byAPI, string(v.inspector.call(t, "GET", "har", nil)))
	if code, out, errors := run(t, project.command("validate.js", byAPI)); code != 0 {
		t.Errorf("the export of what was imported is not valid:\n%s%s", out, errors)
	}
}

// inspectorAPI is that of docs/inspector.md.
type inspectorAPI struct{ url, token string }

// inspectorOf is the inspector that c has told of.
func inspectorOf(t *testing.T, c *tunnelClient) inspectorAPI {
	t.Helper()
	var ready struct{ Event, Inspect string }
	if _, err := c.out.find(func(line string) (string, bool) {
		return "", json.Unmarshal([]byte(line), &ready) == nil && ready.Event == "ready"
	}); err != nil || ready.Inspect == "" {
		t.Fatalf("there is no inspector: %v", err)
	}
	i := inspectorAPI{url: ready.Inspect}
	var session struct{ Token string }
	if err := json.Unmarshal(i.call(t, "GET", "session", nil), &session); err != nil {
		t.Fatal(err)
	}
	i.token = session.Token
	return i
}

func (i inspectorAPI) call(t *testing.T, method, path string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(bounded(t, patience), method, i.url+"/api/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if i.token != "" {
		req.Header.Set("Inspect-Token", i.token)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %.300s %v", method, path, res.StatusCode, got, err)
	}
	return got
}

// list is what the list of requests says of each.
func (i inspectorAPI) list(t *testing.T) []map[string]any {
	t.Helper()
	var all struct{ Requests []map[string]any }
	if err := json.Unmarshal(i.call(t, "GET", "requests", nil), &all); err != nil {
		t.Fatal(err)
	}
	return all.Requests
}

// visits are requests of all kinds, one after the other.
type visits struct {
	public    string
	local     *httptest.Server
	begun     chan struct{} // a request that is not answered has come
	inspector inspectorAPI
	count     int
}

func newVisits(t *testing.T) *visits {
	v := &visits{begun: make(chan struct{}, 1)}
	v.local = httptest.NewUnstartedServer(v)
	v.local.Config.DisableGeneralOptionsHandler = true
	v.local.Start()
	t.Cleanup(v.local.Close)
	s := startServer(t)
	c := startClient(t, v.local.Listener.Addr().String(), "--server", s.url, "--name", "app", "--inspect", "127.0.0.1:0", "--inspect-body", fmt.Sprint(keptBody))
	v.public, v.inspector = c.url, inspectorOf(t, c)
	return v
}

// ServeHTTP is the local app.
func (v *visits) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, c := w.Header(), http.NewResponseController(w)
	switch r.URL.Path {
	case "/socket":
		echoMessages(w, r)
	case "/switch":
		conn, rw, err := c.Hijack()
		if err == nil {
			io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n\x00bytes")
			rw.Flush()
			conn.Close()
		}
	case "/events":
		h.Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: first\n\n")
		c.Flush()
		io.WriteString(w, "event: last\ndata: second\n\n")
	case "/held":
		v.begun <- struct{}{}
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case "/cut":
		h.Set("Content-Length", "100")
		io.WriteString(w, "the first half")
		c.Flush()
		panic(http.ErrAbortHandler)
	case "/unchanged":
		h.Set("Etag", `"1"`)
		w.WriteHeader(http.StatusNotModified)
	case "/coded":
		h.Set("Content-Type", "text/plain")
		h.Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, strings.Repeat("compressed ", 1000))
		z.Close()
	case "/image":
		h.Set("Content-Type", "image/png")
		io.WriteString(w, "\x89PNG\r\n\x1a\n\x00\xff")
	case "/large":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, strings.Repeat("ä€", keptBody))
	case "/moved":
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "hush", Path: "/", MaxAge: 60, HttpOnly: true})
		h.Add("Set-Cookie", "odd")
		http.Redirect(w, r, "/elsewhere?a=b", http.StatusFound)
	default:
		io.Copy(io.Discard, r.Body)
		h.Set("Trailer", "Sum")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hello")
		h.Set("Sum", "5")
	}
}

// echoMessages answers a WebSocket until it is closed.
func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // Host is the app's own
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		c.Write(r.Context(), kind, data)
	}
}

// all makes them. The last finds the local app gone.
func (v *visits) all(t *testing.T) {
	v.ask(t, "GET /?q=a+b&q=%FF&=&x", "Authorization: hush\r\nX-Latin: \xe4\r\nX-Empty:\r\n", "")
	v.post(t, "/form", "application/x-www-form-urlencoded", "a=1&b=%C3%A4&a=2")
	v.post(t, "/files", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n\x00\xff\r\n--x--\r\n")
	v.post(t, "/json", "application/json", `{"n":12345678901234567890,"s":"\u0000 </script>"}`)
	v.post(t, "/bytes", "application/octet-stream", "\x00\x01\xfe\xff")
	v.ask(t, "PUT /chunked", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n") // of no type
	v.ask(t, "POST /coded", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n", "none")
	v.ask(t, "GET /moved", "Cookie: a=hush; b; c=\"d\"\r\nCookie: e=f\r\n", "")
	v.ask(t, "GET /image", "", "")
	v.ask(t, "GET /coded", "Accept-Encoding: gzip\r\n", "")
	v.ask(t, "GET /large", "", "")
	v.post(t, "/upload", "text/plain; charset=utf-8", strings.Repeat("ä€", keptBody))
	v.ask(t, "GET /unchanged", "If-None-Match: \"1\"\r\n", "")
	v.ask(t, "HEAD /", "", "")
	v.ask(t, "OPTIONS *", "", "")
	v.ask(t, "GET /a|b^c\"d<e>`{f}\\g[h]//i;j=1?k=|\"'%27&l=\xc3\xa4", "", "")
	v.ask(t, "GET /switch", "Connection: Upgrade\r\nUpgrade: other\r\n", "")
	v.ask(t, "GET /events", "", "")
	v.ask(t, "POST /cut", "Content-Length: 0\r\n", "") // which is not sent again
	v.socket(t)
	v.abort(t)
	v.local.Close()
	v.ask(t, "GET /nobody", "", "")
	v.ask(t, "POST /nobody", "Content-Length: 5\r\n", "hello")
}

func (v *visits) post(t *testing.T, path, kind, body string) {
	t.Helper()
	v.ask(t, "POST "+path, fmt.Sprintf("Content-Type: %s\r\nContent-Length: %d\r\n", kind, len(body)), body)
}

// ask makes a request and waits until it is recorded.
func (v *visits) ask(t *testing.T, line, header, body string) {
	t.Helper()
	conn := dialPublic(t, v.public)
	if !strings.Contains(header, "Connection:") {
		header += "Connection: close\r\n"
	}
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", line, hostOf(t, v.public), header, body)
	if answer, err := io.ReadAll(conn); len(answer) == 0 { // one that is cut ends with an error
		t.Fatalf("%s: %v", line, err)
	}
	conn.Close() // a connection that switched has two halves
	v.recorded(t, line)
}

func (v *visits) recorded(t *testing.T, what string) {
	t.Helper()
	v.count++
	eventually(t, what+" is recorded", func() bool {
		all := v.inspector.list(t)
		return len(all) == v.count && all[v.count-1]["state"] != "open"
	})
}

// socket has messages of all kinds pass.
func (v *visits) socket(t *testing.T) {
	ctx, pinged := bounded(t, patience), make(chan bool, 1)
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(v.public, "http")+"/socket", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: loopback}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, m := range []string{"text, <b>ä</b>", "abcd", "\x00\xff"} {
		kind := websocket.MessageBinary
		if strings.HasPrefix(m, "text") {
			kind = websocket.MessageText
		}
		if err := c.Write(ctx, kind, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != m {
			t.Fatalf("%q came back as %q, %v", m, got, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { c.Read(ctx); pinged <- true }() // which takes the pong
	err = c.Ping(ctx)
	cancel()
	<-pinged
	if err != nil {
		t.Fatal(err)
	}
	v.recorded(t, "a WebSocket")
}

// abort takes a request back before it is answered.
func (v *visits) abort(t *testing.T) {
	conn := dialPublic(t, v.public)
	fmt.Fprintf(conn, "GET /held HTTP/1.1\r\nHost: %s\r\n\r\n", hostOf(t, v.public))
	awaitOn(t, v.begun, "the request")
	conn.Close()
	v.recorded(t, "a request that was taken back")
}

// exportByPage presses the page's button and returns the file.
func (v *visits) exportByPage(t *testing.T, devtools string) string {
	dir, tab := t.TempDir(), openTab(t, devtools)
	to := browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir}
	if _, err := chromedp.Call(tab.ctx, browser.SetDownloadBehavior, to); err != nil {
		t.Fatal(err)
	}
	tab.run(t, chromedp.Navigate(v.inspector.url))
	tab.await(t, fmt.Sprintf(`document.querySelector("#count").textContent === "%d requests"`, v.count))
	tab.run(t, chromedp.Evaluate[chromedp.Void](`document.querySelector("#export").click()`))
	file := filepath.Join(dir, "tunnel.har")
	eventually(t, "the page's export", func() bool {
		_, err := os.Stat(file) // it has its name when it is whole
		return err == nil
	})
	return file
}
