package files

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRangesAndConditions(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": "0123456789"})
	when := time.Date(2026, 11, 5, 6, 7, 8, 9, time.UTC)
	must(t, os.Chtimes(filepath.Join(dir, "a.txt"), when, when))
	h := handler(t, Options{Dir: dir})
	res := ask(t, h, "GET", "/a.txt")
	tag, modified := res.Header.Get("Etag"), res.Header.Get("Last-Modified")
	if modified != "Thu, 05 Nov 2026 06:07:08 GMT" || res.Header.Get("Accept-Ranges") != "bytes" || res.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%v", res.Header)
	}
	if _, known := changeTime(stat(t, filepath.Join(dir, "a.txt"))); known == strings.HasPrefix(tag, "W/") || !strings.HasSuffix(tag, `"`) {
		t.Errorf("tag %s", tag)
	}
	for _, c := range []struct {
		fields []string
		status int
		want   string
	}{
		{[]string{"Range: bytes=2-4"}, 206, "234"},
		{[]string{"Range: bytes=-3"}, 206, "789"},
		{[]string{"Range: bytes=7-"}, 206, "789"},
		{[]string{"Range: bytes=10-"}, 416, "overlap"},
		{[]string{"Range: bytes=2-4", "If-Range: " + tag}, 206, "234"},
		{[]string{"Range: bytes=2-4", "If-Range: \"other\""}, 200, "0123456789"},
		{[]string{"Range: bytes=2-4", "If-Range: " + modified}, 206, "234"},
		{[]string{"If-None-Match: " + tag}, 304, ""},
		{[]string{"If-None-Match: \"other\", W/" + tag}, 304, ""},
		{[]string{"If-None-Match: \"other\""}, 200, "0123456789"},
		{[]string{"If-Modified-Since: " + modified}, 304, ""},
		{[]string{"If-Match: \"other\""}, 412, ""},
	} {
		res := ask(t, h, "GET", "/a.txt", c.fields...)
		if got := body(res); res.StatusCode != c.status || !strings.Contains(got, c.want) || c.status < 300 && got != c.want {
			t.Errorf("%q: %s %q, want %d %q", c.fields, res.Status, got, c.status, c.want)
		}
	}
	res = ask(t, h, "GET", "/a.txt", "Range: bytes=0-1,5-6")
	_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	must(t, err)
	parts := ""
	for r := multipart.NewReader(res.Body, params["boundary"]); ; {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		}
		must(t, err)
		data, _ := io.ReadAll(p)
		parts += p.Header.Get("Content-Range") + " " + string(data) + "; "
	}
	if want := "bytes 0-1/10 01; bytes 5-6/10 56; "; res.StatusCode != 206 || parts != want {
		t.Errorf("%s %q, want %q", res.Status, parts, want)
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info
}

// A file that may still change unseen has nothing that says it did not.
func TestNoValidatorsOfAFreshFile(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": "one", "site/future.txt": "one"})
	future := time.Now().Add(time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, "future.txt"), future, future))
	h := handler(t, Options{Dir: dir})
	last := stat(t, filepath.Join(dir, "a.txt")).ModTime()
	for _, c := range []struct {
		name string
		now  time.Time
		has  bool
	}{{"a.txt", last.Add(time.Second), false}, {"a.txt", last.Add(-time.Hour), false}, {"a.txt", last.Add(time.Minute), true}, {"future.txt", last.Add(time.Minute), false}} {
		h.now = func() time.Time { return c.now }
		res := ask(t, h, "GET", "/"+c.name)
		if got := res.Header.Get("Etag") != "" || res.Header.Get("Last-Modified") != ""; got != c.has {
			t.Errorf("%s at %s: %v", c.name, c.now, res.Header)
		}
		if res.StatusCode != 200 || body(res) != "one" {
			t.Errorf("%s: %s", c.name, res.Status)
		}
	}
}

// Another content of the same size and time, as tar and rsync make it, has another tag
// where that is a strong one.
func TestETagOfSameSizeAndTime(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": "one"})
	path := filepath.Join(dir, "a.txt")
	_, known := changeTime(stat(t, path))
	if !known {
		t.Skip("the system does not tell when a file was changed")
	}
	when := time.Unix(1e9, 0)
	must(t, os.Chtimes(path, when, when))
	h := handler(t, Options{Dir: dir})
	first, _ := changeTime(stat(t, path))
	before := ask(t, h, "HEAD", "/a.txt").Header.Get("Etag")
	for end := time.Now().Add(10 * time.Second); ; { // a tick of the file system's clock
		must(t, os.WriteFile(path, []byte("two"), 0o644))
		must(t, os.Chtimes(path, when, when))
		if now, _ := changeTime(stat(t, path)); !now.Equal(first) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the file system's clock stands still")
		}
	}
	if after := ask(t, h, "HEAD", "/a.txt").Header.Get("Etag"); before == after || before == "" || strings.HasPrefix(after, "W/") {
		t.Errorf("tags %s and %s", before, after)
	}
}

// during calls then at the first part of the body.
type during struct {
	*httptest.ResponseRecorder
	then func()
	fail bool
}

func (d *during) Write(p []byte) (int, error) {
	if d.then != nil {
		d.then()
		d.then = nil
	}
	if d.fail {
		return 0, io.ErrClosedPipe
	}
	return d.ResponseRecorder.Write(p)
}

// What changes while it is sent is not ended as if it were whole (R1).
func TestFileChangesWhileItIsSent(t *testing.T) {
	const size = 300_000
	for _, c := range []struct {
		name  string
		then  func(t *testing.T, path string)
		whole bool
	}{
		{"nothing", func(*testing.T, string) {}, true},
		{"shorter", func(t *testing.T, path string) { must(t, os.Truncate(path, 100_000)) }, false},
		{"emptied", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, false},
		{"one byte shorter", func(t *testing.T, path string) { must(t, os.Truncate(path, size-1)) }, false},
		{"another of its size", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("~", size)), 0o644))
		}, false},
		{"removed", func(t *testing.T, path string) { must(t, os.Remove(path)) }, true},
		{"replaced", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", []byte("new"), 0o644))
			must(t, os.Rename(path+".new", path))
		}, true},
		{"added to", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			f.WriteString("more")
			must(t, f.Close())
		}, true},
	} {
		for _, ranges := range []string{"", "bytes=1000-299998", "bytes=0-99999,200000-299998"} {
			t.Run(fmt.Sprintf("%s %q", c.name, ranges), func(t *testing.T) {
				dir := tree(t, map[string]string{"site/a.bin": strings.Repeat("x", size)})
				path := filepath.Join(dir, "a.bin")
				when := time.Unix(1e9, 0)
				must(t, os.Chtimes(path, when, when))
				w := &during{ResponseRecorder: httptest.NewRecorder(), then: func() { c.then(t, path) }}
				r := httptest.NewRequest("GET", "/a.bin", nil)
				if ranges != "" {
					r.Header.Set("Range", ranges)
				}
				panicked := catch(func() { handler(t, Options{Dir: dir}).ServeHTTP(w, r) })
				length := w.Result().ContentLength
				switch {
				case c.whole && (panicked != nil || int64(w.Body.Len()) != length):
					t.Errorf("%d of %d bytes, panic %v", w.Body.Len(), length, panicked)
				case !c.whole && (panicked != http.ErrAbortHandler || int64(w.Body.Len()) >= length):
					t.Errorf("%d of %d bytes, panic %v", w.Body.Len(), length, panicked)
				case c.whole && strings.Contains(w.Body.String(), "~"):
					t.Error("it is mixed")
				}
			})
		}
	}
}

// What was added between the look at a file and its sending is of the next answer.
func TestFileGrowsBeforeItIsSent(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.log": "0123456789"})
	h := handler(t, Options{Dir: dir})
	root, err := os.OpenRoot(dir)
	must(t, err)
	w := httptest.NewRecorder()
	a := &answer{Handler: h, root: root, w: w, r: httptest.NewRequest("GET", "/a.log", nil)}
	f, info, err := a.open("a.log")
	must(t, err)
	defer f.Close()
	must(t, os.WriteFile(filepath.Join(dir, "a.log"), []byte("0123456789more"), 0o644))
	a.send("a.log", f, info)
	if got := w.Body.String(); got != "0123456789" || w.Result().ContentLength != 10 {
		t.Errorf("%q of length %d", got, w.Result().ContentLength)
	}
}

// A visitor who has gone is no file that changed.
func TestVisitorGoes(t *testing.T) {
	var log strings.Builder
	dir := tree(t, map[string]string{"site/a.bin": strings.Repeat("x", 100_000)})
	h := handler(t, Options{Dir: dir, Log: logTo(&log)})
	w := &during{ResponseRecorder: httptest.NewRecorder(), fail: true}
	if p := catch(func() { h.ServeHTTP(w, httptest.NewRequest("GET", "/a.bin", nil)) }); p != http.ErrAbortHandler || log.Len() > 0 {
		t.Errorf("panic %v, log %s", p, log.String())
	}
}

func catch(f func()) (panicked any) {
	defer func() { panicked = recover() }()
	f()
	return nil
}

func TestContentTypes(t *testing.T) {
	dir := tree(t, map[string]string{
		"site/a.js": "1", "site/a.mjs": "1", "site/a.css": "", "site/a.HTML": "x", "site/a.json": "{}", "site/a.svg": "<svg/>", "site/a.wasm": "",
		"site/a.ts": "let a", "site/a.md": "# a", "site/README": "plain words", "site/page": "<!doctype html><p>x", "site/data": "\x00\x01\x02", "site/a.png": "",
	})
	h := handler(t, Options{Dir: dir})
	for name, want := range map[string]string{
		"a.js": "text/javascript; charset=utf-8", "a.mjs": "text/javascript; charset=utf-8", "a.css": "text/css; charset=utf-8",
		"a.HTML": "text/html; charset=utf-8", "a.json": "application/json", "a.svg": "image/svg+xml", "a.wasm": "application/wasm", "a.ts": "text/plain; charset=utf-8",
		"a.md": "text/plain; charset=utf-8", "README": "text/plain; charset=utf-8", "page": "text/html; charset=utf-8", "data": "application/octet-stream", "a.png": "image/png",
	} {
		res := ask(t, h, "GET", "/"+name)
		if got := res.Header.Get("Content-Type"); got != want || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
