package files

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree makes files, by their path and content; what ends in a slash is a folder, and "-> "
// begins a link's target. It returns the folder "site" among them.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch target, link := strings.CutPrefix(content, "-> "); {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(path, 0o755))
		case link:
			must(t, os.Symlink(strings.ReplaceAll(target, "TMP", dir), path))
		default:
			must(t, os.WriteFile(path, []byte(content), 0o644))
		}
	}
	return filepath.Join(dir, "site")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// handler serves a folder to whom its files are old enough to have validators.
func handler(t testing.TB, o Options) *Handler {
	t.Helper()
	h, err := New(o)
	must(t, err)
	h.now = func() time.Time { return time.Now().Add(time.Minute) }
	return h
}

// ask makes a request with the target as it is, and header fields as "Name: value".
func ask(t testing.TB, h http.Handler, method, target string, fields ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(res *http.Response) string {
	var b bytes.Buffer
	b.ReadFrom(res.Body)
	return b.String()
}

func TestAnswers(t *testing.T) {
	dir := tree(t, map[string]string{
		"site/a.txt": "text", "site/b c#?.txt": "odd", "site/sub/file": "plain", "site/a:b/x": "colon",
		"site/page/index.html": "<p>page", "site/.env": "PASSWORD", "site/.git/config": "PASSWORD",
		"site/.well-known/x": "known", "site/sub/.well-known/x": "not at the top", "site/odd/index.html/x": "folder",
		"site/in": "-> sub/file", "site/sub/up": "-> ../a.txt", "site/indir": "-> page", "site/shown": "-> .env",
		"site/latin\xe9.txt": "latin", "site/empty": "",
	})
	plain, spa, all := handler(t, Options{Dir: dir}), (*Handler)(nil), handler(t, Options{Dir: dir, Hidden: true})
	must(t, os.WriteFile(filepath.Join(dir, "index.html"), []byte("home"), 0o644))
	spa = handler(t, Options{Dir: dir, SPA: true})
	for _, c := range []struct {
		h      *Handler
		target string
		status int
		want   string // of the body; of a redirect the Location
	}{
		{plain, "/", 200, "home"},
		{plain, "/index.html", 200, "home"},
		{plain, "/a.txt", 200, "text"},
		{plain, "/a.txt?query", 200, "text"},
		{plain, "/empty", 200, ""},
		{plain, "/%61.txt", 200, "text"},
		{plain, "/b%20c%23%3f.txt", 200, "odd"},
		{plain, "/latin%e9.txt", 200, "latin"},
		{plain, "/in", 200, "plain"},
		{plain, "/sub/up", 200, "text"},
		{plain, "/indir/", 200, "<p>page"},
		{plain, "/shown", 200, "PASSWORD"}, // who made the link wanted it
		{plain, "/page/", 200, "<p>page"},
		{plain, "/page", 302, "./page/"},
		{plain, "/page?a=b&c", 302, "./page/?a=b&c"},
		{plain, "/sub", 302, "./sub/"},
		{plain, "/a:b", 302, "./a:b/"},
		{plain, "/odd/index.html/x", 200, "folder"},
		{plain, "/a.txt/", 404, "no such file"},
		{plain, "/a.txt/x", 404, "no such file"},
		{plain, "/none", 404, "no such file"},
		{plain, "/none/", 404, "no such file"},
		{plain, "/A.TXT", 404, "no such file"},
		{plain, "//a.txt", 404, "no such file"},
		{plain, "/sub//file", 404, "no such file"},
		{plain, "/page//", 404, "no such file"},
		{plain, "/" + strings.Repeat("x", 300), 404, "no such file"},
		{plain, "/" + strings.Repeat("x/", 3000), 404, "no such file"},
		{plain, "/.env", 404, "no such file"},
		{plain, "/%2eenv", 404, "no such file"},
		{plain, "/.git", 404, "no such file"},
		{plain, "/.git/config", 404, "no such file"},
		{plain, "/.well-known/x", 200, "known"},
		{plain, "/sub/.well-known/x", 404, "no such file"},
		{all, "/.env", 200, "PASSWORD"},
		{all, "/.git", 302, "./.git/"},
		{spa, "/", 200, "home"},
		{spa, "/users/7", 200, "home"},
		{spa, "/users/7/", 200, "home"},
		{spa, "/sub", 200, "home"},
		{spa, "/sub/", 200, "home"},
		{spa, "/page/", 200, "<p>page"},
		{spa, "/sub/file", 200, "plain"},
		{spa, "/app.js", 404, "no such file"},
		{spa, "/.git/config", 404, "no such file"},
		{spa, "/../x", 404, "no such file"},
	} {
		res := ask(t, c.h, "GET", c.target)
		got := body(res)
		if res.StatusCode == http.StatusFound {
			got = res.Header.Get("Location")
		}
		if whole := res.StatusCode < 400; res.StatusCode != c.status || whole && got != c.want || !strings.Contains(got, c.want) {
			t.Errorf("%.60s: %s %.100q, want %d %q", c.target, res.Status, got, c.status, c.want)
		}
	}
}

// Nothing outside the folder can be had, or seen to be there (S17).
func TestNothingOutside(t *testing.T) {
	dir := tree(t, map[string]string{
		"secret.txt": "SECRET", "out/secret.txt": "SECRET", "site2/secret.txt": "SECRET",
		"site/sub/a.txt": "text",
		"site/link":      "-> ../secret.txt", "site/dir": "-> ../out", "site/abs": "-> TMP/secret.txt", "site/absdir": "-> TMP/out",
		"site/up": "-> ..", "site/sub/up": "-> ../../out", "site/far": "-> sub/../../secret.txt", "site/chain": "-> link",
		"site/loop": "-> loop", "site/root": "-> /", "site/bad": "-> none", "site/twin": "-> ../site2",
		"site/inner/index.html": "-> ../../secret.txt",
	})
	for _, h := range []*Handler{handler(t, Options{Dir: dir}), handler(t, Options{Dir: dir, Hidden: true})} {
		for _, target := range []string{
			"/link", "/dir", "/dir/", "/dir/secret.txt", "/abs", "/absdir/", "/absdir/secret.txt", "/up", "/up/", "/up/secret.txt",
			"/sub/up/secret.txt", "/far", "/chain", "/loop", "/loop/", "/root/", "/root/etc/passwd", "/bad", "/twin/secret.txt",
			"/../secret.txt", "/..", "/../", "/../site2/secret.txt", "/sub/../../secret.txt", "/sub/../a.txt", "/./sub/a.txt",
			"/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/..%2fsecret.txt", "/..%2Fsecret.txt", "/sub%2fa.txt", "/.%2e/secret.txt", "/%2E%2E/secret.txt",
			"/%252e%252e/secret.txt", "/..%5csecret.txt", `/..\secret.txt`, `/sub\..\..\secret.txt`, "/..%c0%afsecret.txt", "/%c0%ae%c0%ae/secret.txt",
			"/..;/secret.txt", "/sub/..;/..;/secret.txt", "/....//secret.txt", "/sub/...", "/..%00/secret.txt", "/link%00.txt", "/sub/a.txt%00",
			"//secret.txt", "///../secret.txt", "/%2fetc%2fpasswd", "//etc/passwd", "/C:/Windows/win.ini", "/sub/a.txt::$DATA",
		} {
			r := httptest.NewRequest("GET", "/", nil)
			r.RequestURI = target
			var err error
			if r.URL, err = url.ParseRequestURI(target); err != nil {
				continue // no server takes it
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if res := w.Result(); res.StatusCode != http.StatusNotFound || strings.Contains(w.Body.String(), "SECRET") {
				t.Errorf("%s: %s %.80q", target, res.Status, w.Body)
			}
		}
		// Nor is it listed.
		list := body(ask(t, h, "GET", "/"))
		for _, name := range []string{"link", "dir", "abs", "up", "far", "chain", "loop", "root", "bad", "twin"} {
			if strings.Contains(list, "./"+name+`"`) || strings.Contains(list, "./"+name+`/"`) {
				t.Errorf("%s is listed", name)
			}
		}
		// An index that leads outside is none.
		if got := body(ask(t, h, "GET", "/inner/")); strings.Contains(got, "SECRET") || !strings.Contains(got, "empty") {
			t.Errorf("an index that leads outside: %q", got)
		}
	}
}

func TestMethods(t *testing.T) {
	h := handler(t, Options{Dir: tree(t, map[string]string{"site/a.txt": "text", "site/sub/b": ""})})
	const allowed = "GET, HEAD, OPTIONS"
	for method, status := range map[string]int{"POST": 405, "PUT": 405, "DELETE": 405, "PROPFIND": 405, "TRACE": 405, "OPTIONS": 204} {
		for _, target := range []string{"/a.txt", "/none"} {
			res := ask(t, h, method, target)
			if res.StatusCode != status || res.Header.Get("Allow") != allowed {
				t.Errorf("%s %s: %s, Allow %q", method, target, res.Status, res.Header.Get("Allow"))
			}
		}
	}
	for _, target := range []string{"/a.txt", "/", "/sub/", "/none", "/sub"} {
		get, head := ask(t, h, "GET", target), ask(t, h, "HEAD", target)
		content, none := body(get), body(head)
		if none != "" || get.StatusCode != head.StatusCode {
			t.Errorf("HEAD %s: %s %q, and GET %s", target, head.Status, none, get.Status)
		}
		for _, name := range []string{"Content-Type", "Content-Length", "Etag", "Location", "Last-Modified"} {
			if get.Header.Get(name) != head.Header.Get(name) {
				t.Errorf("%s: %s is %q by HEAD, %q by GET", target, name, head.Header.Get(name), get.Header.Get(name))
			}
		}
		if content != "" && get.ContentLength != int64(len(content)) {
			t.Errorf("%s: Content-Length %d of %d", target, get.ContentLength, len(content))
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": "text"})
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Dir: filepath.Join(dir, "none")}, "does not exist"},
		{Options{Dir: filepath.Join(dir, "a.txt")}, "is a file: name the folder that it is in, " + dir},
		{Options{Dir: filepath.Join(dir, "a.txt", "x")}, "cannot be read"},
		{Options{Dir: dir, SPA: true}, "no index.html"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// A build removes the folder and makes it anew.
func TestFolderMadeAnew(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": "old"})
	h := handler(t, Options{Dir: dir})
	if got := body(ask(t, h, "GET", "/a.txt")); got != "old" {
		t.Fatalf("%q", got)
	}
	must(t, os.RemoveAll(dir))
	if res := ask(t, h, "GET", "/a.txt"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without the folder: %s", res.Status)
	}
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a.txt"), []byte("new"), 0o644))
	if got := body(ask(t, h, "GET", "/a.txt")); got != "new" {
		t.Errorf("the new folder has %q", got)
	}
}

// What cannot be read is told apart from what is not there, and is in the log.
func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{&fs.PathError{Op: "openat", Path: "x", Err: fs.ErrPermission}, http.StatusForbidden},
		{&fs.PathError{Op: "openat", Path: "x", Err: errors.New("i/o")}, http.StatusInternalServerError},
	} {
		var log bytes.Buffer
		h := handler(t, Options{Dir: t.TempDir(), Log: logTo(&log)})
		w := httptest.NewRecorder()
		(&answer{Handler: h, w: w, r: httptest.NewRequest("GET", "/x", nil)}).refuse(c.err)
		if w.Code != c.status || !strings.Contains(log.String(), c.err.Error()) {
			t.Errorf("%v: %d, log %q", c.err, w.Code, log.String())
		}
	}
}

// Who follows a link to a page gets a page, a program a line.
func TestErrorPage(t *testing.T) {
	h := handler(t, Options{Dir: t.TempDir()})
	res := ask(t, h, "GET", "/none", "Accept: text/html,*/*")
	if got := body(res); res.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(got, "<h1>404 Not Found</h1>") {
		t.Errorf("%v %s", res.Header, got)
	}
	res = ask(t, h, "GET", "/none", "Accept: application/json")
	if got := body(res); res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || got != "There is no such file here.\n" {
		t.Errorf("%v %s", res.Header, got)
	}
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
