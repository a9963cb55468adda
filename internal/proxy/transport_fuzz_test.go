package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// What a fuzzed exchange is like.
const (
	asHead    = 1 << iota // of HEAD, not GET
	asPost                // with a body
	asExpect              // which waits for 100 (Continue)
	asUpgrade             // asks to switch
	bytewise              // the answer comes byte by byte
)

const fuzzBody = "the body of the request"

func fuzzRequest(mode byte) *http.Request {
	method, body := http.MethodGet, io.Reader(nil)
	switch {
	case mode&asPost != 0:
		method, body = http.MethodPost, strings.NewReader(fuzzBody)
	case mode&asHead != 0:
		method = http.MethodHead
	}
	req, _ := http.NewRequest(method, "http://app/path", body)
	if mode&asExpect != 0 {
		req.Header.Set("Expect", "100-continue")
	}
	if mode&asUpgrade != 0 {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "made-up")
	}
	return req
}

// FuzzAnswers holds the answers on a connection, two in a row, to net/http's reader:
// none is complete that is not so there, with the same status and body, and what
// the second request gets is the second answer (R1, S2).
func FuzzAnswers(f *testing.F) {
	const two = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
	const inChunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, in := range []string{
		two + two, two[:len(two)-1], inChunks + "3\r\none\r\n0\r\n\r\n" + two, inChunks + "3\r\none\r\n0\r\nX-A: 1\r\n\r\n" + two,
		inChunks + "3\r\none\r\n0\r\n", inChunks + "3\none\n0\n\n", inChunks + "3\r\none!\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nto the end", "HTTP/1.0 200 OK\r\n\r\nto the end",
		"HTTP/1.1 100 Continue\r\n\r\n" + two, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + two + two, "HTTP/1.1 204 No Content\r\n\r\n" + two,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n" + two, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: made-up\r\n\r\nbytes",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n" + two,
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nfour", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none" + two,
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none" + two, "HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n" + two,
		"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 99 X\r\n\r\n", "\x15\x03\x01", "", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
	} {
		for _, mode := range []byte{0, asHead, asPost, asPost | asExpect, asUpgrade} {
			f.Add([]byte(in), mode)
			f.Add([]byte(in), mode|bytewise)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, mode byte) {
		x := &answersCheck{t: t, came: bytes.NewReader(in), again: bytes.NewReader(in), mode: mode}
		x.want = bufio.NewReaderSize(x.again, 1<<20)
		script := io.Reader(x.came)
		if mode&bytewise != 0 {
			script = iotest.OneByteReader(script)
		}
		conn := &scripted{in: script}
		dials := 0
		transport := &Transport{Dial: func(context.Context) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("no second connection")
			}
			return conn, nil
		}}
		defer transport.CloseIdle()
		for x.exchange(transport) {
			x.exchanges++
		}
		x.bodies.Wait() // each is closed, whatever became of it
		if mode&asPost != 0 && mode&asExpect != 0 && !x.continued && strings.Contains(conn.written(), fuzzBody) {
			t.Errorf("the body went out, and no 100 (Continue) came in %q", in) // R28
		}
	})
}

// answersCheck compares two readers of the same answers.
type answersCheck struct {
	t         *testing.T
	came      *bytes.Reader // what the transport reads
	again     *bytes.Reader // the same, for want
	want      *bufio.Reader
	mode      byte
	exchanges int  // that are over
	continued bool // net/http read a 100
	wantClose bool // the last answer was not to be followed by another
	bodies    sync.WaitGroup
}

// bodyOf tells when a request's body is closed.
type bodyOf struct {
	io.Reader
	closed func()
}

func (b *bodyOf) Close() error {
	b.closed()
	return nil
}

// exchange does one, and reports whether the connection is good for another.
func (x *answersCheck) exchange(transport *Transport) bool {
	x.t.Helper()
	req := fuzzRequest(x.mode)
	if req.Body != nil {
		x.bodies.Add(1)
		req.Body = &bodyOf{req.Body, sync.OnceFunc(x.bodies.Done)}
	}
	surplus := x.again.Len() + x.want.Buffered() - x.came.Len()
	res, err := transport.RoundTrip(req)
	switch {
	case errors.Is(err, ErrNotSent):
		return false // the connection was not kept
	case x.wantClose:
		x.t.Fatal("a connection was used again that is to be closed")
	case x.exchanges > 0 && surplus != 0:
		x.t.Fatalf("a connection was used again of which %d bytes were read and belong to no answer", surplus)
	}
	want, wantErr := x.final(req)
	if err != nil {
		return false // stricter is fine, but nothing may follow
	}
	if wantErr != nil {
		x.t.Fatalf("got %+v, and net/http says %v", res, wantErr)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		x.switched(res)
		return false
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	wantBody, wantErr := io.ReadAll(want.Body)
	x.wantClose = want.Close
	switch {
	case err != nil:
		return false
	case wantErr != nil, res.StatusCode != want.StatusCode, !bytes.Equal(body, wantBody):
		x.t.Fatalf("%d %q is complete; net/http has %d %q, %v", res.StatusCode, body, want.StatusCode, wantBody, wantErr)
	case res.ContentLength != want.ContentLength, len(res.Trailer)+len(want.Trailer) > 0 && !reflect.DeepEqual(res.Trailer, want.Trailer):
		x.t.Fatalf("length %d, trailers %v; net/http has %d, %v", res.ContentLength, res.Trailer, want.ContentLength, want.Trailer)
	}
	return true
}

// final reads the final answer with net/http.
func (x *answersCheck) final(req *http.Request) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(x.want, req)
		if err != nil || res.StatusCode/100 != 1 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, err
		}
		x.continued = x.continued || res.StatusCode == http.StatusContinue
	}
}

// switched checks that all behind the head of a 101 arrives.
func (x *answersCheck) switched(res *http.Response) {
	x.t.Helper()
	if x.mode&asUpgrade == 0 || !strings.EqualFold(res.Header.Get("Upgrade"), "made-up") {
		x.t.Fatalf("switched to %q", res.Header["Upgrade"])
	}
	got, err := io.ReadAll(res.Body)
	want, _ := io.ReadAll(x.want)
	if err != nil || !bytes.Equal(got, want) {
		x.t.Fatalf("%q, %v behind the 101, net/http leaves %q", got, err, want)
	}
	res.Body.Close()
}
