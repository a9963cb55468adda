package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// exchanges are requests and answers that must arrive as on a direct connection.
// The request's Host stands in every one.
var exchanges = []struct{ name, request, answer string }{
	{"semicolon", "GET /a;b?x;y=1&z HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
	{"encoded slash", "GET /a%2Fb%2f%41 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"two slashes", "GET //a//b/ HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"bar", "GET /a|b HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"caret", "GET /a^b HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"quote", "GET /a\"b?\"c' HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"raw UTF-8", "GET /grüße?ü=\xff HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"dots", "GET /a/../../b/./c/%2e%2e HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"empty query", "GET /? HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"fragment", "GET /a#b HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"asterisk", "OPTIONS * HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n"},
	{"custom method", "SPLICE /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"lower case method", "get /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"method with punctuation", "M-SEARCH /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"PUT", "PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"},
	{"PATCH in chunks", "PATCH /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"DELETE", "DELETE /x HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"},
	{"GET with a body", "GET /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"empty body", "POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"empty body in chunks", "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"no body, no length", "POST /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"repeated fields", "GET /x HTTP/1.1\r\nX-A: 1\r\nx-b: q\r\nX-A: 2, 3\r\nx-a: 1\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nSet-Cookie: b=2\r\nSet-Cookie: a=1\r\nX-C: \r\nX-C: z\r\nContent-Length: 0\r\n\r\n"},
	{"what clients name", "GET /x HTTP/1.1\r\nUser-Agent: x/1\r\nAccept-Encoding: br, gzip\r\nAccept: */*\r\n\r\n",
		"HTTP/1.1 200 OK\r\nServer: y/2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nz"},
	{"empty User-Agent", "GET /x HTTP/1.1\r\nUser-Agent:\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"gzip", "GET /x HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8bxx"},
	{"gzip not asked for", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x1f\x8bxx\r\n0\r\n\r\n"},
	{"looks like HTML", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"},
	{"HEAD", "HEAD /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: a/b\r\n\r\n"},
	{"HEAD of nothing known", "HEAD /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"},
	{"HEAD of nothing", "HEAD /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"204", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"},
	{"304", "GET /x HTTP/1.1\r\nIf-None-Match: \"a\"\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\nCache-Control: no-cache\r\n\r\n"},
	{"range", "GET /x HTTP/1.1\r\nRange: bytes=1-2\r\n\r\n", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc"},
	{"many ranges", "GET /x HTTP/1.1\r\nRange: bytes=0-0,2-2\r\n\r\n", "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: 5\r\n\r\n--b--"},
	{"416", "GET /x HTTP/1.1\r\nRange: bytes=9-\r\n\r\n", "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n"},
	{"chunks", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"},
	{"redirect", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /a|b//c\r\nContent-Length: 0\r\n\r\n"},
	{"401", "GET /x HTTP/1.1\r\nAuthorization: Basic eA==\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\nWww-Authenticate: Basic realm=\"x\"\r\nWww-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n"},
	{"unknown status", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 799 Whatever\r\nContent-Length: 1\r\n\r\nx"},
	{"no reason", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx"},
	{"bytes above ASCII", "GET /x HTTP/1.1\r\nX-A: \xe4\xff\r\n\r\n", "HTTP/1.1 200 OK\r\nX-B: \xfc\xfe\r\nContent-Length: 0\r\n\r\n"},
	{"request trailers", "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"request trailers, not announced", "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{"trailers", "GET /x HTTP/1.1\r\nTE: trailers\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"},
	{"trailers, not announced", "GET /x HTTP/1.1\r\nTE: trailers\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n"},
	{"trailers, some announced", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n1\r\na\r\n0\r\nX-B: 1\r\nX-A: 2\r\n\r\n"},
	{"trailers of an empty body", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n"},
	{"long trailers", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: " + strings.Repeat("s", 3000) + "\r\n\r\n"},
}

func TestAsDirect(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for _, e := range exchanges {
			t.Run(e.name, func(t *testing.T) { asDirect(t, way, e.request, e.answer) })
		}
	})
}

func asDirect(t *testing.T, way func(testing.TB, string) *path, request, answer string) {
	line, rest, _ := strings.Cut(request, "\r\n")
	request = line + "\r\nHost: app.example:81\r\n" + rest
	method, _, _ := strings.Cut(line, " ")
	seen := make(chan message, 1)
	app := newApp(t, func(c *appConn) {
		m, ok := c.request()
		if !ok {
			return
		}
		seen <- m
		c.send(answer)
		c.request()
	})
	call := func(addr string) (saw, got message) {
		v := visit(t, addr, request)
		defer v.Close()
		got = v.message(method)
		return within(t, "request", seen), got
	}
	wantRequest, wantAnswer := call(app.addr())
	gotRequest, gotAnswer := call(way(t, app.addr()).addr)
	if !reflect.DeepEqual(gotRequest, wantRequest) {
		t.Errorf("app saw\n%v, directly\n%v", gotRequest, wantRequest)
	}
	if !reflect.DeepEqual(gotAnswer, wantAnswer) {
		t.Errorf("visitor saw\n%v, directly\n%v", gotAnswer, wantAnswer)
	}
}

// An HTTP/1.0 visitor gets no chunks, no trailers, and the end of the connection.
func TestOldVisitor(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for _, test := range []struct{ name, request, answer, want string }{
			{"length", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
			{"chunks", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhi"},
			{"upload", "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 204 No Content\r\n\r\n"},
		} {
			t.Run(test.name, func(t *testing.T) {
				app := newApp(t, func(c *appConn) {
					for {
						if _, ok := c.request(); !ok {
							return
						}
						c.send(test.answer)
					}
				})
				v := visit(t, way(t, app.addr()).addr, strings.Replace(test.request, "\r\n", "\r\nHost: a\r\n", 1))
				got, err := io.ReadAll(v.r)
				if test.name == "chunks" { // a length is welcome, if it could be known
					got = bytes.Replace(got, []byte("Content-Length: 2\r\n"), nil, 1)
				}
				if err != nil || string(got) != test.want {
					t.Errorf("got %q, %v; want %q", got, err, test.want)
				}
			})
		}
	})
}

func TestOldVisitorKeepsAlive(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			if _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		}
	})
	v := visit(t, oneHop(t, app.addr()).addr, "")
	for range 3 {
		v.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
		if m := v.message("GET"); m.body != "hi" {
			t.Fatal(m)
		}
	}
}

// An app of HTTP/1.0 ends its answer with the connection.
func TestOldApp(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			if _, ok := c.request(); ok {
				c.send("HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nto the end")
			}
		})
		v := visit(t, way(t, app.addr()).addr, "")
		for range 2 {
			v.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			m := v.message("GET")
			if m.body != "to the end" || m.err != nil {
				t.Error(m)
			}
		}
		if n := app.accepted(); n != 2 {
			t.Errorf("%d connections to the app, want 2", n)
		}
	})
}

func TestLargeBodies(t *testing.T) {
	body := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{1}).Read(body)
	sum := fmt.Sprintf("%x", sha256.Sum256(body))
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			w.Header().Set("Received", fmt.Sprintf("%x %d %v %d", h.Sum(nil), n, err, r.ContentLength))
			if r.URL.Path == "/length" {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			w.Write(body)
		}))
		addr := way(t, app).addr
		for _, version := range []int{1, 2} {
			client := clientOf(t, version)
			for _, length := range []bool{true, false} {
				t.Run(fmt.Sprintf("HTTP/%d length %v", version, length), func(t *testing.T) {
					var upload io.Reader = bytes.NewReader(body)
					p, want := "/length", len(body)
					if !length {
						upload, p, want = struct{ io.Reader }{upload}, "/chunks", -1
					}
					res, err := client.Post("http://"+addr+p, "", upload)
					if err != nil {
						t.Fatal(err)
					}
					m := read(res)
					if got := fmt.Sprintf("%x", sha256.Sum256([]byte(m.body))); got != sum || m.err != nil {
						t.Errorf("got %d bytes, sum %s, %v", len(m.body), got, m.err)
					}
					if got, want := res.Header.Get("Received"), fmt.Sprintf("%s %d %v %d", sum, len(body), nil, want); got != want {
						t.Errorf("app received %s, want %s", got, want)
					}
				})
			}
		}
	})
}

// clientOf is a visitor of net/http that adds and takes away nothing.
func clientOf(t testing.TB, version int) *http.Client {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), ExpectContinueTimeout: patience}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 3 * patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// An HTTP/2 request always has a Body; the app must see none where there is none.
func TestHTTP2Visitor(t *testing.T) {
	seen := make(chan message, 1)
	app := newApp(t, func(c *appConn) {
		for {
			m, ok := c.request()
			if !ok {
				return
			}
			seen <- m
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nhi")
		}
	})
	p := oneHop(t, app.addr())
	client := clientOf(t, 2)
	for _, test := range []struct {
		method, body string
		want         message
	}{
		{"GET", "", message{line: "GET /a;b?c|d HTTP/1.1", fields: []string{"Host: a.example", "X-A: 1"}}},
		{"POST", "", message{line: "POST /a;b?c|d HTTP/1.1", fields: []string{"Content-Length: 0", "Host: a.example", "X-A: 1"}}},
		{"POST", "abc", message{line: "POST /a;b?c|d HTTP/1.1", fields: []string{"Content-Length: 3", "Host: a.example", "X-A: 1"}, body: "abc"}},
	} {
		req, err := http.NewRequest(test.method, "http://"+p.addr+"/a;b?c|d", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.example"
		req.Header = http.Header{"X-A": {"1"}, "User-Agent": nil}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if m := read(res); m.body != "hi" || !slices.Equal(m.fields, []string{"Content-Length: 2"}) {
			t.Errorf("answer %v", m)
		}
		if got := within(t, "request", seen); !reflect.DeepEqual(got, test.want) {
			t.Errorf("app saw\n%v, want\n%v", got, test.want)
		}
	}
	if n := app.accepted(); n != 1 {
		t.Errorf("%d connections to the app, want 1", n)
	}
}

// What an HTTP/2 visitor may put into a request line does not fit HTTP/1.1.
func TestInvalidRequest(t *testing.T) {
	app := newApp(t, func(c *appConn) { t.Errorf("the app was bothered with %q", c.head()) })
	tr := &Transport{Dial: dialer(app.addr())}
	for name, change := range map[string]func(*http.Request){
		"space in the target":     func(r *http.Request) { r.RequestURI = "/a b" },
		"line end in the target":  func(r *http.Request) { r.RequestURI = "/a\r\nX: 1" },
		"line end in the query":   func(r *http.Request) { r.RequestURI, r.URL.RawQuery = "", "a\nb" },
		"line end in the method":  func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX: 1\r\n" },
		"line end in the host":    func(r *http.Request) { r.Host = "a\r\nX: 1" },
		"line end in a value":     func(r *http.Request) { r.Header.Set("X-A", "1\r\nX-B: 2") },
		"zero byte in a value":    func(r *http.Request) { r.Header.Set("X-A", "1\x00") },
		"line end in a name":      func(r *http.Request) { r.Header["X-A: 1\r\nX-B"] = []string{"2"} },
		"colon in a name":         func(r *http.Request) { r.Header["X-A:"] = []string{"2"} },
		"CONNECT":                 func(r *http.Request) { r.Method, r.RequestURI = "CONNECT", "a:1" },
		"body, then line end":     func(r *http.Request) { r.Body, r.Host = io.NopCloser(strings.NewReader("x")), "\n" },
		"method that is no token": func(r *http.Request) { r.Method = "" },
	} {
		r, _ := http.NewRequest("GET", "http://a/", nil)
		r.RequestURI = "/"
		change(r)
		if _, err := tr.RoundTrip(r); nameOf(err) != ErrInvalidRequest.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := app.accepted(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Fields of one hop end there, whatever they are called (S3).
func TestHopByHop(t *testing.T) {
	seen := make(chan message, 1)
	app := newApp(t, func(c *appConn) {
		m, _ := c.request()
		seen <- m
		c.send("HTTP/1.1 200 OK\r\nConnection: X-Mine ,keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n")
	})
	l := &path{tried: make(chan error, 1)}
	tr := &Transport{Dial: dialer(app.addr())}
	addr := listen(t, hop(tr, Options{Request: func(out *http.Request) {
		out.Header.Set("X-Forwarded-For", "192.0.2.1")
	}}, l.tried))
	v := visit(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Foo, x-forwarded-for,keep-alive\r\nConnection: close, TE\r\n"+
		"X-Foo: 1\r\nX-Forwarded-For: 6.6.6.6\r\nTE: gzip\r\nKeep-Alive: 1\r\nProxy-Authorization: x\r\nProxy-Connection: y\r\nX-Kept: 1\r\n\r\n")
	m := v.message("GET")
	if want := []string{"Content-Length: 0", "X-Kept: 1"}; !slices.Equal(m.fields, want) {
		t.Errorf("visitor saw %q, want %q", m.fields, want)
	}
	want := []string{"Host: a", "X-Forwarded-For: 192.0.2.1", "X-Kept: 1"}
	if m := within(t, "request", seen); !slices.Equal(m.fields, want) {
		t.Errorf("app saw %q, want %q", m.fields, want)
	}
}

// Trailers may not frame, route or authenticate.
func TestForbiddenTrailers(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		seen := make(chan message, 1)
		app := newApp(t, func(c *appConn) {
			m, _ := c.request()
			seen <- m
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nConnection: y\r\nX-A: 1\r\n\r\n")
		})
		v := visit(t, way(t, app.addr()).addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\nContent-Length: 9\r\nAuthorization: x\r\nX-A: 1\r\n\r\n")
		if m := v.message("POST"); !slices.Equal(m.trailer, []string{"X-A: 1"}) {
			t.Errorf("visitor got the trailers %q", m.trailer)
		}
		if m := within(t, "request", seen); !slices.Equal(m.trailer, []string{"X-A: 1"}) {
			t.Errorf("app got the trailers %q", m.trailer)
		}
	})
}

func TestLastChunk(t *testing.T) {
	trailer := http.Header{"X-A": {"1", "2"}, "X-B": {"1\r\nX-C: 2"}, "X:D": {"1"}, "X\nE": {"1"}, "Te": {"x"}, "If-Match": {"x"}}
	if got, want := string(lastChunk(trailer)), "0\r\nX-A: 1\r\nX-A: 2\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
