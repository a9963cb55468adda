package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// hostile are heads that are no requests, and the status that says so.
var hostile = []struct {
	name   string
	head   string
	status string
}{
	{"no request", "x\r\n\r\n", "400"},
	{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"tab in the line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"zero byte in the target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"CR in the target", "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"no version", "GET /\r\nHost: a\r\n\r\n", "400"},
	{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "505"},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"},
	{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\n", "505"},
	{"http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", "400"},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "400"},
	{"no host", "GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", "400"},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"},
	{"host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
	{"bare LF after the line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n", "400"},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n\r\n", "400"},
	{"two CR", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "400"},
	{"folded", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", "400"},
	{"folded with tab", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\t2: 3\r\n\r\n", "400"},
	{"folded first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n", "400"},
	{"no name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", "400"},
	{"space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx", "400"},
	{"name", "GET / HTTP/1.1\r\nHost: a\r\nX[A: 1\r\n\r\n", "400"},
	{"name above ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: 1\r\n\r\n", "400"},
	{"zero byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n", "400"},
	{"both framings", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "400"},
	{"one length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "400"},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", "400"},
	{"length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", "400"},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", "400"},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx", "400"},
	{"length in hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", "400"},
	{"length with an underscore", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nx", "400"},
	{"length beyond 63 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nx", "400"},
	{"gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501"},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "501"},
	{"no coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "501"},
	{"vertical tab in the coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"},
	{"trailer that frames", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-A, content-length\r\n\r\n0\r\n\r\n", "400"},
	{"long", "GET / HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "431"},
	{"many", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-A: 1\r\n", 20<<10) + "\r\n", "431"},
	{"long line", "GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "431"},
	{"long without an end", strings.Repeat("x", 100<<10), "431"},
}

// What can be read in two ways is not served, and nothing that follows it (S1).
func TestServeHostile(t *testing.T) {
	served := make(chan string, 100)
	addr := serveTCP(t, &Server{MaxHeader: 64 << 10, Handler: func(w http.ResponseWriter, r *http.Request) {
		served <- r.RequestURI
	}})
	for _, test := range hostile {
		t.Run(test.name, func(t *testing.T) {
			v := visit(t, addr, test.head+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			res := v.head("GET")
			if m := read(res); m.line != test.status || !res.Close || m.body != "" {
				t.Errorf("%v, close %v", m, res.Close)
			}
			v.CloseWrite()
			if b, err := io.ReadAll(v.r); len(b) > 0 || err != nil {
				t.Errorf("then came %q, %v", b, err)
			}
		})
	}
	if len(served) > 0 {
		t.Errorf("the handler got %s", <-served)
	}
}

// What Server takes is what http.ReadRequest makes of it.
func checkHead(t *testing.T, head string) {
	got := new(http.Request)
	if err := parseHead(got, head); err != nil {
		var refused *refusal
		if !errors.As(err, &refused) || refused.status < 400 {
			t.Errorf("%q: %v", head, err)
		}
		return
	}
	want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n")))
	if err != nil {
		t.Fatalf("%q was taken, and http.ReadRequest says %v", head, err)
	}
	if want.Header["Pragma"] != nil {
		delete(want.Header, "Cache-Control")
		delete(got.Header, "Cache-Control")
	}
	want.Body, got.Body = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q:\n%+v, want\n%+v", head, got, want)
	}
}

var heads = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n",
	"get /a;b%2f//../?x;y=%zz HTTP/1.1\r\nhost: A:80 \r\nX-a: 1\r\nx-A:\t2, 3 \r\nEMPTY:\r\n",
	"OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: x, Close\r\n",
	"GET http://u@b.example:81/x HTTP/1.1\r\nHost: a\r\n",
	"CONNECT a:1 HTTP/1.1\r\nHost: b\r\n",
	"CONNECT /a HTTP/1.1\r\nHost: b\r\n",
	"POST /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nTrailer: X\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTe: trailers\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nTrailer: x-a, X-B,,\r\nTrailer: x-c\r\nExpect: 100-continue\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer:\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\nCookie: a=1\r\nCookie: b=\xff\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
}

func TestParseHead(t *testing.T) {
	for _, head := range heads {
		checkHead(t, head)
		if err := parseHead(new(http.Request), head); err != nil {
			t.Errorf("%q: %v", head, err)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	for _, head := range heads {
		f.Add(head)
	}
	for _, h := range hostile {
		if head, _, _ := strings.Cut(h.head, "\r\n\r\n"); len(head) < 1<<10 {
			f.Add(head + "\r\n")
		}
	}
	f.Fuzz(func(t *testing.T, head string) {
		if strings.Contains(head, "\r\n\r\n") || !strings.HasSuffix(head, "\r\n") || strings.HasPrefix(head, "\r\n") {
			return // readHead would have cut it
		}
		checkHead(t, head)
	})
}
