package inspect

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// checkHAR holds a document to HAR 1.2: http://www.softwareishard.com/blog/har-12-spec/.
// What begins with _ is allowed everywhere, and nothing else beside what the format has.
func checkHAR(t *testing.T, document []byte) {
	t.Helper()
	var root any
	if err := json.Unmarshal(document, &root); err != nil {
		t.Fatal(err)
	}
	const pair = "name:string value:string comment?:string"
	log := harObject(t, "log", harObject(t, "", root, "log:object")["log"], "version:string creator:object entries:array browser?:object pages?:array comment?:string")
	if log["version"] != "1.2" {
		t.Errorf("version %v", log["version"])
	}
	harObject(t, "creator", log["creator"], "name:string version:string comment?:string")
	for _, one := range log["entries"].([]any) {
		e := harObject(t, "entry", one, "startedDateTime:string time:number request:object response:object cache:object timings:object pageref?:string serverIPAddress?:string connection?:string comment?:string")
		if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(e["startedDateTime"])); err != nil {
			t.Error(err)
		}
		q := harObject(t, "request", e["request"], "method:string url:string httpVersion:string cookies:array headers:array queryString:array postData?:object headersSize:number bodySize:number comment?:string")
		if u, err := url.Parse(fmt.Sprint(q["url"])); err != nil || !u.IsAbs() {
			t.Errorf("url %v", q["url"])
		}
		a := harObject(t, "response", e["response"], "status:number statusText:string httpVersion:string cookies:array headers:array content:object redirectURL:string headersSize:number bodySize:number comment?:string")
		content := harObject(t, "content", a["content"], "size:number mimeType:string compression?:number text?:string encoding?:string comment?:string")
		text, _ := content["text"].(string)
		if content["encoding"] == "base64" {
			raw, err := base64.StdEncoding.DecodeString(text)
			if text = string(raw); err != nil {
				t.Error(err)
			}
		}
		if content["size"] != float64(len(text)) {
			t.Errorf("content of %d bytes has the size %v", len(text), content["size"])
		}
		if q["postData"] != nil {
			harObject(t, "postData", q["postData"], "mimeType:string text:string params?:array comment?:string")
		}
		for _, half := range []map[string]any{q, a} {
			for _, list := range []string{"headers", "queryString"} {
				for _, f := range orNone(half[list]) {
					harObject(t, list, f, pair)
				}
			}
			for _, f := range half["cookies"].([]any) {
				harObject(t, "cookie", f, pair+" path?:string domain?:string expires?:string httpOnly?:boolean secure?:boolean")
			}
		}
		harObject(t, "cache", e["cache"], "beforeRequest?:object afterRequest?:object comment?:string")
		times := harObject(t, "timings", e["timings"], "send:number wait:number receive:number blocked?:number dns?:number connect?:number ssl?:number comment?:string")
		sum := 0.0
		for _, name := range []string{"send", "wait", "receive"} {
			part := times[name].(float64)
			if sum += part; part < 0 {
				t.Errorf("%s takes %v ms", name, part)
			}
		}
		if total := e["time"].(float64); sum > total+0.01 || sum < total-0.01 {
			t.Errorf("time is %v, and its parts %v", total, times)
		}
	}
}

func orNone(v any) []any { list, _ := v.([]any); return list }

// harObject checks an object's members: NAME:TYPE, or NAME?:TYPE where it may be left out.
func harObject(t *testing.T, what string, v any, members string) map[string]any {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%s is %T", what, v)
	}
	known := make(map[string]bool)
	for member := range strings.FieldsSeq(members) {
		name, kind, _ := strings.Cut(member, ":")
		name, optional := strings.CutSuffix(name, "?")
		known[name] = true
		value, there := object[name]
		if !there && optional {
			continue
		}
		got := "nothing"
		switch value.(type) {
		case string:
			got = "string"
		case float64:
			got = "number"
		case bool:
			got = "boolean"
		case []any:
			got = "array"
		case map[string]any:
			got = "object"
		}
		if got != kind {
			t.Fatalf("%s: %s is %s, want %s", what, name, got, kind)
		}
	}
	for name := range object {
		if !known[name] && !strings.HasPrefix(name, "_") {
			t.Errorf("%s: %s is not of the format", what, name)
		}
	}
	return object
}

// What was exported is a HAR, and says the same when it is imported.
func TestHAR(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Set-Cookie", "a=b")
		w.Write([]byte("\x89PNG\x00"))
	})
	ask(t, addr, "POST /form?q=a+b&q= HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Type: text/plain\r\nCookie: a=b\r\nContent-Length: 5\r\n\r\nhello")
	ask(t, addr, "PUT /bytes HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\n\xff\x00")
	ask(t, addr, "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
	one(t, store, 3, ended)
	var document json.RawMessage
	call(t, s, "GET", "/api/har", "", &document)
	checkHAR(t, document)

	var imported Imported
	if status := call(t, s, "POST", "/api/har", string(document), &imported); status != 200 || len(imported.IDs) != 3 {
		t.Fatalf("%d, %v", status, imported)
	}
	for i, id := range imported.IDs {
		was, now := store.find(int64(i+1)).show(false, 0), store.find(id).show(false, 0)
		text := func(r Request) string {
			return fmt.Sprint(r.Method, r.URL, r.Path, r.Status, r.Query, r.Request.Body, r.Response.Body, plain(r.Request.Headers), plain(r.Response.Headers), r.Started.UnixMicro())
		}
		if text(was) != text(now) || !now.Imported {
			t.Errorf("imported\n%s, want\n%s", text(now), text(was))
		}
	}
	var again Replayed
	call(t, s, "POST", fmt.Sprintf("/api/requests/%d/replay", imported.IDs[1]), "{}", &again)
	if r := store.find(again.ID).show(true, 0); r.Status != 200 || r.RequestBytes != 2 {
		t.Errorf("replayed %+v", r.Summary)
	}
	call(t, s, "GET", "/api/har?ids=1,3", "", &document)
	if n := strings.Count(string(document), "startedDateTime"); n != 2 {
		t.Errorf("%d of two are exported", n)
	}
	for _, bad := range []string{"", "{}", "[]", `{"log":{"version":"1.2","entries":[{"request":{"url":"/"}}]}}`,
		`{"log":{"version":"1.2","entries":[{"request":{"url":"http://a/"},"response":{"content":{"text":"?","encoding":"base64"}}}]}}`} {
		if status := call(t, s, "POST", "/api/har", bad, nil); status != 400 {
			t.Errorf("%s: %d", bad, status)
		}
	}
}

// The size of a content is that of what the HAR has, which was compressed as it passed.
func TestHARSize(t *testing.T) {
	var coded bytes.Buffer
	z := gzip.NewWriter(&coded)
	z.Write(make([]byte, 1000))
	z.Close()
	rec := newRecord(httptest.NewRequest("GET", "http://a.test/", nil), time.Now())
	rec.answer = []Field{{Name: "Content-Encoding", Value: "gzip"}}
	rec.answered = body{kept: coded.Bytes(), size: int64(coded.Len())}
	store := new(Store)
	store.add(rec)
	var document json.RawMessage
	call(t, listen(t, store), "GET", "/api/har", "", &document)
	checkHAR(t, document)
	if !strings.Contains(string(document), `"size":1000,`) {
		t.Errorf("of 1000 bytes %s is exported", document)
	}
}
