package inspect

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// listen serves store on a free port.
func listen(t *testing.T, store *Store) *Server {
	t.Helper()
	s, err := Listen(store, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// call makes a request of the API with its token, and reads the answer into out.
func call(t *testing.T, s *Server, method, path, body string, out any) (status int) {
	t.Helper()
	req := httptest.NewRequest(method, s.URL()+path, strings.NewReader(body))
	req.Header.Set(HeaderToken, s.token)
	w := httptest.NewRecorder()
	s.server.Handler.ServeHTTP(w, req)
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			t.Fatalf("%s %s: %d %q: %v", method, path, w.Code, w.Body, err)
		}
	}
	return w.Code
}

// What did not come from the page itself, or a program here, is refused (S19).
func TestGuard(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	store.add(newRecord(httptest.NewRequest("GET", "/", nil), time.Now()))
	host := strings.TrimPrefix(s.URL(), "http://")
	_, port, _ := net.SplitHostPort(host)
	ctx, end := context.WithCancel(t.Context())
	end() // a live stream ends at once where it is let in
	for name, c := range map[string]struct {
		method, path, host string
		header             string
		token              bool
		want               int
	}{
		"page":                  {"GET", "/", host, "", false, 200},
		"script":                {"GET", "/app.js", host, "Sec-Fetch-Site: same-origin", false, 200},
		"localhost":             {"GET", "/", "localhost:" + port, "", false, 200},
		"forwarded port":        {"GET", "/api/session", "localhost:9999", "Origin: http://localhost:9999", false, 200},
		"link":                  {"GET", "/", host, "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate", false, 200},
		"program":               {"GET", "/api/requests", host, "", false, 200},
		"rebinding":             {"GET", "/api/session", "evil.example:" + port, "", false, 403},
		"rebinding, page":       {"GET", "/", "evil.example", "", false, 403},
		"rebinding, localhost.": {"GET", "/", "localhost.evil.example", "", false, 403},
		"subdomain":             {"GET", "/", "demo.localhost:" + port, "", false, 403},
		"origin":                {"GET", "/api/session", host, "Origin: http://evil.example", false, 403},
		"null origin":           {"POST", "/api/requests/1/replay", host, "Origin: null", true, 403},
		"other port's page":     {"POST", "/api/requests/1/replay", host, "Origin: http://127.0.0.1:1", true, 403},
		"https origin":          {"POST", "/api/requests/1/replay", host, "Origin: https://" + host, true, 403},
		"cross-site script":     {"GET", "/api/requests", host, "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors", false, 403},
		"same-site frame":       {"GET", "/api/requests", host, "Sec-Fetch-Site: same-site\nSec-Fetch-Mode: navigate", false, 403},
		"websocket":             {"GET", "/api/live", host, "Origin: http://evil.example\nConnection: Upgrade\nUpgrade: websocket", false, 403},
		"replay, no token":      {"POST", "/api/requests/1/replay", host, "Origin: http://" + host, false, 403},
		"clear, no token":       {"DELETE", "/api/requests", host, "", false, 403},
		"import, no token":      {"POST", "/api/har", host, "", false, 403},
		"secrets, no token":     {"GET", "/api/requests/1?reveal=true", host, "", false, 403},
		"HAR, no token":         {"GET", "/api/har?reveal=true", host, "", false, 403},
		"secrets":               {"GET", "/api/requests/1?reveal=true", host, "Origin: http://" + host, true, 200},
		"no request":            {"GET", "/api/requests/99", host, "", false, 404},
		"no number":             {"GET", "/api/requests/x", host, "", false, 404},
		"status":                {"GET", "/api/requests?status=abc", host, "", false, 400},
		"edit":                  {"POST", "/api/requests/1/replay", host, "", true, 400},
	} {
		req := httptest.NewRequestWithContext(ctx, c.method, "http://"+host+c.path, strings.NewReader(`{"nothing":1}`))
		req.Host = c.host
		for line := range strings.SplitSeq(c.header, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				req.Header.Set(name, value)
			}
		}
		if c.token {
			req.Header.Set(HeaderToken, s.token)
		}
		w := httptest.NewRecorder()
		s.server.Handler.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%s: %d %.80s, want %d", name, w.Code, w.Body, c.want)
		}
		for header, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s: %q", name, header, got)
			}
		}
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy has no %s", part)
		}
	}
	if len(store.all()) != 1 {
		t.Error("somebody has changed what is kept")
	}
}

// Where the port is taken it is one of the next.
func TestNextPort(t *testing.T) {
	first := listen(t, new(Store))
	addr := strings.TrimPrefix(first.URL(), "http://")
	second, err := Listen(new(Store), addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if at := second.ln.Addr().(*net.TCPAddr); !at.IP.IsLoopback() {
		t.Errorf("other machines reach it, at %s", at)
	}
	if second.URL() == first.URL() || !strings.HasPrefix(second.URL(), "http://127.0.0.1:") {
		t.Errorf("%s beside %s", second.URL(), first.URL())
	}
	for _, bad := range []string{"", "4040", "127.0.0.1:x", "127.0.0.1:70000"} {
		if _, err := Listen(new(Store), bad, nil); err == nil {
			t.Errorf("%q is an address", bad)
		}
	}
}

func TestSecretsAndFilters(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "hush-5"})
		if r.Method == "POST" {
			w.WriteHeader(http.StatusTeapot)
		}
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "a Needle in the answer")
	})
	ask(t, addr, "GET /One?a=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer hush-1\r\nCookie: c=hush-2\r\nX-Api-Key: hush-3\r\nX-Plain: shown\r\n\r\n")
	ask(t, addr, "POST /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nother")
	ask(t, addr, "GET /cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	one(t, store, 3, ended)
	gone := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
	gone.state, gone.target = cut, "/left"
	store.add(gone)
	for _, path := range []string{"/api/requests/1", "/api/requests", "/api/har"} {
		var raw json.RawMessage
		call(t, s, "GET", path, "", &raw)
		if strings.Contains(string(raw), "hush-") {
			t.Errorf("%s tells %s", path, raw)
		}
		if path != "/api/requests" && !strings.Contains(string(raw), "shown") {
			t.Errorf("%s lacks what is no secret: %s", path, raw)
		}
	}
	var r Request
	call(t, s, "GET", "/api/requests/1?reveal=true", "", &r)
	if all := fmt.Sprint(r.Request, r.Response); !strings.Contains(all, "Bearer hush-1") || !strings.Contains(all, "hush-5") {
		t.Errorf("revealed: %s", all)
	}
	for query, want := range map[string]string{
		"": "[1 2 3 4]", "limit=1": "[4]", "method=post": "[2]", "path=ONE": "[1]", "path=a%3D1": "[1]", "status=418": "[2]", "status=2xx": "[1]",
		"status=error": "[3 4]", "status=5xx": "[3]", "status=50": "none", "text=needle": "[1 2]", "text=OTHER": "[2]", "text=x-plain": "[1]", "text=hush-1": "[]", "text=nothing": "[]",
	} {
		var all Requests
		if status := call(t, s, "GET", "/api/requests?"+query, "", &all); status != 200 {
			if want != "none" {
				t.Errorf("%q: %d", query, status)
			}
			continue
		}
		ids := []int64{}
		for _, r := range all.Requests {
			ids = append(ids, r.ID)
		}
		if fmt.Sprint(ids) != want {
			t.Errorf("%q chooses %v, want %s", query, ids, want)
		}
	}
}

func TestReplay(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%s %s %s auth=%s a=%q length=%d body=%s", r.Method, r.RequestURI, r.Host, r.Header.Get("Authorization"), r.Header["X-A"], r.ContentLength, body)
	})
	const first = "POST /a%2Fb?x=1 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nAuthorization: hush\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 5\r\n\r\nhello"
	_, was := ask(t, addr, first)
	ask(t, addr, "GET /cut HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
	replay := func(id int64, edit string) Request {
		t.Helper()
		var to Replayed
		if status := call(t, s, "POST", fmt.Sprintf("/api/requests/%d/replay", id), edit, &to); status != 200 {
			t.Fatalf("%s: %d", edit, status)
		}
		r := store.find(to.ID).show(true, 0)
		if r.ReplayOf != id || r.State == string(open) {
			t.Errorf("replayed %+v", r.Summary)
		}
		return r
	}
	for edit, want := range map[string]string{
		"":               was,
		`{}`:             was,
		`{"body":"new"}`: strings.Replace(was, "length=5 body=hello", "length=3 body=new", 1),
		`{"method":"PUT","url":"/c?y=%20","base64":"AAEC"}`:                                                                            `PUT /c?y=%20 app.test auth=hush a=["1" "2"] length=3 body=` + "\x00\x01\x02",
		`{"url":"http://app.test/d","headers":[{"name":"host","value":"other.test"},{"name":"authorization","value":"` + Mask + `"}]}`: `POST /d other.test auth=hush a=[] length=5 body=hello`,
		`{"method":"GET","body":""}`: `GET /a%2Fb?x=1 app.test auth=hush a=["1" "2"] length=0 body=`,
	} {
		got := replay(1, edit)
		text := got.Response.Body.Text
		if got.Response.Body.Base64 != "" {
			text = string(store.find(got.ID).answered.kept)
		}
		if text != want || got.Status != 200 {
			t.Errorf("%s: the app has answered %d %q, want %q", edit, got.Status, text, want)
		}
	}
	if r := replay(2, "{}"); r.Status != 502 {
		t.Errorf("a replay that is cut off has status %d", r.Status)
	}
	for edit, why := range map[string]string{
		`{"url":"http://elsewhere.test/"}`: "leads elsewhere",
		`{"url":"http://app.test.evil/"}`:  "leads elsewhere",
		`{"url":"//elsewhere.test/ x"}`:    "is no path",
		`{"method":"CONNECT"}`:             "no method",
		`{"method":"A B"}`:                 "no method",
		`{"headers":[{"name":"Host","value":"a"},{"name":"A","value":"1\r\nB: 2"}]}`:        "not valid",
		`{"headers":[{"name":"Host","value":"a"},{"name":"X-New","value":"` + Mask + `"}]}`: "no X-New",
		`{"headers":[{"name":"Host","value":"a"},{"name":"Upgrade","value":"websocket"}]}`:  "cannot be replayed",
		`{"headers":[]}`: "host",
	} {
		var said failure
		if status := call(t, s, "POST", "/api/requests/1/replay", edit, &said); status != 422 || !strings.Contains(said.Error, why) {
			t.Errorf("%s: %d %q", edit, status, said.Error)
		}
	}
}

// A replay is whole though whoever asked for it has gone, ends where the app's answer is cut
// off, and says of an edited body nothing that was true of the one before.
func TestReplayByItself(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %q", body, r.Header["Content-Encoding"])
		if strings.HasSuffix(r.URL.Path, "/cut") {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	ask(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello")
	replay := func(edit string) Request {
		t.Helper()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		req := httptest.NewRequestWithContext(gone, "POST", s.URL()+"/api/requests/1/replay", strings.NewReader(edit))
		req.Header.Set(HeaderToken, s.token)
		w := httptest.NewRecorder()
		s.server.Handler.ServeHTTP(w, req)
		var to Replayed
		if err := json.Unmarshal(w.Body.Bytes(), &to); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", edit, w.Code, w.Body)
		}
		return store.find(to.ID).show(true, 0)
	}
	for edit, want := range map[string]string{
		"{}": `done hello ["br"]`, `{"body":"new"}`: `done new []`, `{"url":"/cut"}`: `cut hello ["br"]`, `{"body":""}`: `done  []`,
	} {
		if r := replay(edit); r.State+" "+r.Response.Body.Text != want {
			t.Errorf("%s: it is %s with %q, want %q", edit, r.State, r.Response.Body.Text, want)
		}
	}
}

// A body that was not kept whole is not taken for the whole one.
func TestReplayNotWhole(t *testing.T) {
	store := &Store{MaxBody: 3}
	s := listen(t, store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	ask(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	var said failure
	if status := call(t, s, "POST", "/api/requests/1/replay", "{}", &said); status != 422 || !strings.Contains(said.Error, "only 3 of the body's 5 bytes") {
		t.Errorf("%d %q", status, said.Error)
	}
}

// The live stream has all that is there, and then each change.
func TestLive(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	for range liveBatch + 1 {
		store.add(newRecord(httptest.NewRequest("GET", "/old", nil), time.Now()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", s.URL()+"/api/live", nil)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	seen := make(map[int64]string)
	until := func(what string, ok func(change) bool) {
		t.Helper()
		for lines.Scan() {
			data, found := strings.CutPrefix(lines.Text(), "data: ")
			var c change
			if !found || json.Unmarshal([]byte(data), &c) != nil {
				continue
			}
			for _, r := range c.Requests {
				seen[r.ID] = r.State
			}
			if ok(c) {
				return
			}
		}
		t.Fatalf("no %s: %v", what, lines.Err())
	}
	until("requests", func(change) bool { return len(seen) == liveBatch+1 })
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {})
	ask(t, addr, "GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	until("new request", func(change) bool { return seen[liveBatch+2] == string(done) })
	call(t, s, "DELETE", "/api/requests", "", nil)
	until("end of them", func(c change) bool { return c.Oldest == liveBatch+3 })
}
