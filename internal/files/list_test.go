package files

import (
	"fmt"
	"html"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	xhtml "golang.org/x/net/html"
)

// hrefs are the links of a page, in their order.
func hrefs(t *testing.T, page string) (all []string) {
	t.Helper()
	root, err := xhtml.Parse(strings.NewReader(page))
	must(t, err)
	for n := range root.Descendants() {
		if n.Type == xhtml.ElementNode && (n.Data == "script" || n.Data == "link" || n.Data == "img" || n.Data == "iframe") {
			t.Errorf("the page has a <%s>", n.Data)
		}
		for _, a := range n.Attr {
			if a.Key == "href" {
				all = append(all, a.Val)
			}
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" {
				t.Errorf("the page has an attribute %s", a.Key)
			}
		}
	}
	return all
}

func TestList(t *testing.T) {
	dir := tree(t, map[string]string{
		"site/sub/b.txt": strings.Repeat("x", 1234567), "site/sub/A.txt": "12345", "site/sub/zz/": "", "site/sub/Dir/x": "",
		"site/sub/<script>alert(1)<": "odd", `site/sub/"onload="x`: "odd", "site/sub/a:b?c#d%41": "odd", "site/sub/javascript:alert(1)": "odd",
		"site/sub/.hidden": "", "site/sub/latin\xe9": "odd", "site/sub/in": "-> ../up.txt", "site/up.txt": "up", "site/sub/é ü": "odd",
	})
	when := time.Date(2026, 11, 5, 6, 7, 8, 0, time.UTC)
	must(t, os.Chtimes(filepath.Join(dir, "sub", "A.txt"), when, when))
	h := handler(t, Options{Dir: dir})
	res := ask(t, h, "GET", "/sub/")
	page := body(res)
	links := hrefs(t, page)
	want := "../ ./Dir/ ./zz/ ./%22onload=%22x ./%3Cscript%3Ealert%281%29%3C ./A.txt ./a:b%3Fc%23d%2541 ./b.txt ./in ./javascript:alert%281%29 ./latin%E9 ./%C3%A9%20%C3%BC"
	if got := strings.Join(links, " "); got != want {
		t.Errorf("links\n%s\nwant\n%s", got, want)
	}
	for _, want := range []string{"1.2 MB", `title="1234567 bytes"`, "5 B", `<time datetime="2026-11-05T06:07:08Z">2026-11-05 06:07</time>`, html.EscapeString("<script>alert(1)<"), "color-scheme"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	for _, bad := range []string{"<script", "hidden", "://"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in\n%s", bad, page)
		}
	}
	if got := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Errorf("policy %q", got)
	}
	for _, link := range links[1:] {
		if res := ask(t, h, "GET", "/sub/"+strings.TrimPrefix(link, "./")); res.StatusCode != http.StatusOK {
			t.Errorf("%s is listed, and gives %s", link, res.Status)
		}
	}
	if page := body(ask(t, handler(t, Options{Dir: dir, Hidden: true}), "GET", "/sub/")); !strings.Contains(page, "./.hidden") {
		t.Error("--hidden lists no hidden file")
	}
	if links := hrefs(t, body(ask(t, h, "GET", "/sub/Dir/"))); strings.Join(links, " ") != "../../ ../ ./x" {
		t.Errorf("links from two folders down: %q", links)
	}
	if links := hrefs(t, body(ask(t, h, "GET", "/"))); strings.Join(links, " ") != "./sub/ ./up.txt" {
		t.Errorf("links from the top: %q", links)
	}
}

// A folder of very many is shown in part, and says so.
func TestListIsBounded(t *testing.T) {
	dir := t.TempDir()
	const most = 100
	for i := range most {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", i)), nil, 0o600))
	}
	h := handler(t, Options{Dir: dir})
	h.most = most
	const says = "There are more than 100 names here"
	rows := regexp.MustCompile(`<tr><td>`)
	page := body(ask(t, h, "GET", "/"))
	if n := len(rows.FindAllString(page, -1)); n != most || strings.Contains(page, says) {
		t.Errorf("%d rows, cut: %v", n, strings.Contains(page, says))
	}
	must(t, os.WriteFile(filepath.Join(dir, "one-more"), nil, 0o600))
	page = body(ask(t, h, "GET", "/"))
	if n := len(rows.FindAllString(page, -1)); n != most || !strings.Contains(page, says) {
		t.Errorf("%d rows, cut: %v", n, strings.Contains(page, says))
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 5e9: "5.0 GB", 1<<63 - 1: "9.2 EB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
