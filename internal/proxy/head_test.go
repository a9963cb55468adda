package proxy

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// readPlain reads in as an exchange does, or returns nil; left is what follows.
func readPlain(in, method string) (res *http.Response, left string) {
	r := bufio.NewReaderSize(strings.NewReader(in), bufferSize)
	r.Peek(1)
	e := &exchange{c: &conn{r: r, t: new(Transport)}, req: &http.Request{Method: method}}
	res = e.plainHead()
	rest, _ := io.ReadAll(r)
	return res, string(rest)
}

// sameAsNetHTTP checks that what was read as plain is what http.ReadResponse reads.
func sameAsNetHTTP(t *testing.T, in, method string) (plain bool) {
	t.Helper()
	got, left := readPlain(in, method)
	if got == nil {
		if left != in {
			t.Errorf("%q: not plain, but %q is left", in, left)
		}
		return false
	}
	r := bufio.NewReader(strings.NewReader(in))
	want, err := http.ReadResponse(r, got.Request)
	if err != nil {
		t.Fatalf("%q: plain, but net/http says: %v", in, err)
	}
	if noBody := want.Body == http.NoBody; noBody != (got.Body == http.NoBody) {
		t.Errorf("%q: body is %v, net/http has %v", in, got.Body, want.Body)
	}
	got.Body, want.Body = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q:\ngot  %+v\nwant %+v", in, got, want)
	}
	if rest, _ := io.ReadAll(r); left != string(rest) {
		t.Errorf("%q: left %q, net/http leaves %q", in, left, rest)
	}
	return true
}

const plainOK = "HTTP/1.1 200 OK\r\n"

func TestPlainHead(t *testing.T) {
	for _, in := range []string{
		plainOK + "Content-Length: 3\r\n\r\nabc",
		plainOK + "content-length:0\r\nX-A: \t1 \t\r\nx-a: 2\r\nX-Empty:\r\nX_Odd!: \xff\r\n\r\nHTTP/1.1",
		plainOK + "Content-Length: 007\r\nConnection: close, X-A\r\n\r\n",
		plainOK + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 404 \r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 999 a  b\r\nContent-Length: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nSet-Cookie: c\r\n\r\n",
	} {
		if !sameAsNetHTTP(t, in, "GET") {
			t.Errorf("%q is not read as plain", in)
		}
	}
	long := strings.Repeat("x", bufferSize)
	for _, in := range notPlain(long) {
		if sameAsNetHTTP(t, in, "GET") {
			t.Errorf("%q is read as plain", in)
		}
	}
	if sameAsNetHTTP(t, plainOK+"Content-Length: 3\r\n\r\n", "HEAD") {
		t.Error("an answer to HEAD is read as plain")
	}
}

// notPlain are heads that are malformed, or that parsers do not agree on.
func notPlain(long string) []string {
	return []string{
		"", "\r\n\r\n", "HTTP/1.1\r\n\r\n",
		plainOK + "Content-Length: 3\r\n",
		plainOK + "\r\n", // to the connection's end
		"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1  200 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 +20 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 O\rK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
		plainOK + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
		plainOK + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
		plainOK + "Content-Length: 3, 3\r\n\r\n",
		plainOK + "Content-Length: +3\r\n\r\n",
		plainOK + "Content-Length: -3\r\n\r\n",
		plainOK + "Content-Length: 3 3\r\n\r\n",
		plainOK + "Content-Length: \r\n\r\n",
		plainOK + "Content-Length: 9223372036854775808\r\n\r\n",
		plainOK + "Content-Length : 3\r\n\r\n",
		plainOK + " Content-Length: 3\r\n\r\n",
		plainOK + "Content-Length: 3\r\n folded\r\n\r\n",
		plainOK + "Content-Length: 3\nX-A: 1\r\n\r\n",
		plainOK + "Content-Length: 3\n\nX-A: 1\r\n\r\n",
		plainOK + "Content-Length: 3\r\nX-A: a\rb\r\n\r\n",
		plainOK + "Content-Length: 3\r\nX-A: a\x00\r\n\r\n",
		plainOK + "Content-Length: 3\r\nX A: a\r\n\r\n",
		plainOK + "Content-Length: 3\r\n: a\r\n\r\n",
		plainOK + "Content-Length: 3\r\nX-A\r\n\r\n",
		plainOK + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		plainOK + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		plainOK + "Transfer-Encoding: gzip, chunked\r\n\r\n",
		plainOK + "Transfer-Encoding: Chunked\r\n\r\n",
		plainOK + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n",
		plainOK + "Content-Length: 3\r\nPragma: no-cache\r\n\r\n",
		plainOK + "Content-Length: 3\r\nX-A: " + long + "\r\n\r\n",
	}
}

func FuzzPlainHead(f *testing.F) {
	f.Add(plainOK+"Content-Length: 3\r\nX-a: 1\r\nX-A: 2\r\n\r\nabc", "GET")
	f.Add(plainOK+"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", "POST")
	for _, in := range notPlain("x") {
		f.Add(in, "GET")
	}
	f.Fuzz(func(t *testing.T, in, method string) { sameAsNetHTTP(t, in, method) })
}
