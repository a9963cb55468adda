package edge

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

// statuses are those that the project promises.
var statuses = map[protocol.Code]int{
	protocol.BadRequest: 400, protocol.NameUnknown: 404, protocol.URITooLong: 414, protocol.WrongHost: 421,
	protocol.HeadersTooLarge: 431, protocol.AppRefused: 502, protocol.AppBadResponse: 502, protocol.SessionLost: 502,
	protocol.Overloaded: 503, protocol.ClientOffline: 503, protocol.AppTimeout: 504,
	protocol.VisitorRefused: 403, protocol.LoginRequired: 401, protocol.LoginThrottled: 429,
	protocol.LinkRequired: 403, protocol.LinkExpired: 403, protocol.Ended: 410,
	protocol.AppStarting: 503,
}

func fail(r *http.Request, code protocol.Code) *http.Response {
	w := httptest.NewRecorder()
	new(HTTP).fail(w, r, code)
	return w.Result()
}

func TestErrorAnswers(t *testing.T) {
	if len(explanations) != len(statuses) {
		t.Errorf("%d codes are explained, %d promised", len(explanations), len(statuses))
	}
	for code, status := range statuses {
		e := explanations[code]
		if e.title == "" || e.cause == "" || e.hint == "" {
			t.Errorf("%s is not explained", code)
		}
		for _, c := range []struct{ accept, kind string }{
			{"text/html", "text/html; charset=utf-8"}, {"application/json", "application/json"}, {"", "text/plain; charset=utf-8"},
		} {
			r := httptest.NewRequest("GET", "/request-path?request-query", nil)
			r.Host = "request-host.example.com"
			r.Header.Set("Accept", c.accept)
			r.Header.Set("X-Request", "request-header")
			res := fail(r, code)
			body := new(strings.Builder)
			res.Write(body)
			head, text, _ := strings.Cut(body.String(), "\r\n\r\n")
			if res.StatusCode != status || res.Header.Get(protocol.HeaderError) != string(code) || res.Header.Get("Content-Type") != c.kind {
				t.Errorf("%s: got %s", code, head)
			}
			if got := res.Header.Get("Content-Length"); got != strconv.Itoa(len(text)) {
				t.Errorf("%s: Content-Length is %s of %d bytes", code, got, len(text))
			}
			if got := res.Header.Get("Retry-After"); (got != "") != (status == 503) {
				t.Errorf("%s: Retry-After is %q", code, got)
			}
			if res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: a cache may keep it", code)
			}
			for _, part := range []string{string(code), e.cause, e.hint} {
				if !strings.Contains(text, strings.ReplaceAll(part, "'", quote[c.kind])) {
					t.Errorf("%s as %s does not say %q: %s", code, c.kind, part, text)
				}
			}
			if strings.Contains(body.String(), "request-") {
				t.Errorf("%s as %s repeats what the request said", code, c.kind)
			}
			if regexp.MustCompile(`(?i)https?:|//|src=|href=|url\(|@import|<script`).MatchString(text) {
				t.Errorf("%s as %s has an outside resource: %s", code, c.kind, text)
			}
		}
	}
}

// quote is how an apostrophe is written.
var quote = map[string]string{"text/html; charset=utf-8": "&#39;", "application/json": "'", "text/plain; charset=utf-8": "'"}

func TestErrorAsJSON(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", "application/json")
	var got protocol.Refusal
	if err := json.NewDecoder(fail(r, protocol.AppRefused).Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Error.Code != protocol.AppRefused || got.Error.Message == "" || got.Error.Hint == "" {
		t.Errorf("got %+v", got.Error)
	}
}

func TestAccepted(t *testing.T) {
	for _, c := range []struct {
		accept string // fields are parted by "|"
		want   string
	}{
		{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8", "html"}, // Chromium
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"},                                  // Firefox, Safari
		{"*/*", "text"}, // fetch, curl
		{"", "text"},
		{"application/json, text/plain, */*", "json"},              // axios
		{"application/json, text/javascript, */*; q=0.01", "json"}, // jQuery
		{"image/avif,image/webp,image/*,*/*;q=0.8", "text"},
		{"text/css,*/*;q=0.1", "text"},
		{"text/event-stream", "text"},
		{"application/grpc", "text"},
		{"application/json", "json"},
		{"APPLICATION/JSON ; charset=utf-8", "json"},
		{"application/problem+json", "json"},
		{"application/vnd.api+json", "json"},
		{"application/*", "json"},
		{"TEXT/HTML", "html"},
		{"text/html;level=1", "html"},
		{"text/plain, text/html", "html"},
		{"text/html, application/json", "html"},
		{"text/html;q=0", "text"},
		{"text/html;q=0, */*", "text"},
		{"text/html;q=0.0, application/json;q=0.1", "json"},
		{"text/html;q=0.5, application/json", "json"},
		{"text/html;q=0.5, */*;q=0.4", "html"},
		{"text/html;q=0.5, */*", "text"},
		{"text/html;q=0.5, text/*;q=0.6", "text"},
		{"application/json;q=0.5, text/plain;q=0.6", "text"},
		{"text/html; q=2", "text"},
		{"text/html; q=-1", "text"},
		{"text/html; q=nan", "text"},
		{"text/html; q=", "text"},
		{"text/html ; Q=0.9 , application/json;q=0.95", "json"},
		{"*/*|text/html", "html"},
		{"application/json;q=0.5|text/html;q=0.4", "json"},
		{"image/text/html", "text"},
		{"text/html-not", "text"},
		{",;,;q=1", "text"},
	} {
		if got := accepted(strings.Split(c.accept, "|")); got != c.want {
			t.Errorf("%q: got %s, want %s", c.accept, got, c.want)
		}
	}
	if got := accepted(nil); got != "text" {
		t.Errorf("no Accept: got %s, want text", got)
	}
}

func FuzzAccepted(f *testing.F) {
	f.Add("text/html;q=0.5, */*")
	f.Fuzz(func(t *testing.T, accept string) {
		if got := accepted([]string{accept}); !slices.Contains([]string{"html", "json", "text"}, got) {
			t.Errorf("%q: got %q", accept, got)
		}
	})
}

// docs/errors.md lists exactly the codes of package protocol, each with its
// status and an anchor.
func TestDocumentedCodes(t *testing.T) {
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| <a id="([a-z_]+)"></a>` + "`([a-z_]+)`" + ` \| (\d+) \| [^|]{10,} \| [^|]{10,} \|$`)
	var got []string
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		if m[1] != m[2] {
			t.Errorf("the anchor of %s is %s", m[2], m[1])
		}
		got = append(got, m[2]+" "+m[3])
	}
	if rows := strings.Count(string(doc), "\n| <a id="); rows != len(got) {
		t.Errorf("%d of %d rows are well-formed", len(got), rows)
	}
	var want []string
	for _, code := range codesOfProtocol(t) {
		want = append(want, fmt.Sprintf("%s %d", code, code.Status()))
		if code.Status() == http.StatusInternalServerError {
			t.Errorf("%s has no status", code)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("documented: %s\nin the code: %s", got, want)
	}
}

// codesOfProtocol reads them in the source, where none can be forgotten.
func codesOfProtocol(t *testing.T) (codes []protocol.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../pkg/protocol/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, protocol.Code(value))
		}
		return true
	})
	return codes
}
