package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// scripted is a connection that reads in, to its end, and keeps what is written.
type scripted struct {
	net.Conn
	in io.Reader

	mu  sync.Mutex // guards out
	out []byte
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (s *scripted) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p...)
	return len(p), nil
}

func (s *scripted) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.out)
}

// handled is a request as a handler got it.
type handled struct {
	method, target, host string
	header, trailer      http.Header
	length               int64
	body                 string
	whole                bool // the body was read to its end
}

func handledOf(r *http.Request, read bool) *handled {
	h := &handled{method: r.Method, target: r.RequestURI, host: r.Host, header: r.Header.Clone(), length: r.ContentLength}
	if h.header["Pragma"] != nil {
		delete(h.header, "Cache-Control") // which net/http adds
	}
	if !read {
		return h
	}
	body, err := io.ReadAll(r.Body)
	h.body, h.whole, h.trailer = string(body), err == nil, r.Trailer
	return h
}

// serveScript serves in on one connection, and returns what the handler got and
// what was answered.
func serveScript(in io.Reader, read bool) (got []*handled, out string) {
	conn := &scripted{in: in}
	s := &Server{MaxHeader: 8 << 10, Handler: func(w http.ResponseWriter, r *http.Request) {
		got = append(got, handledOf(r, read))
		body := fmt.Sprintf("answer %d", len(got))
		if len(got)%2 == 0 {
			w.Header()["Content-Length"] = []string{fmt.Sprint(len(body))}
		}
		io.WriteString(w, body)
	}}
	s.ServeConn(conn)
	return got, conn.written()
}

// FuzzServe holds a whole connection to what net/http's parser makes of it: what is
// served is what that one reads, in the same order, with the same bodies; whatever
// else comes is refused, and nothing behind it is served (S1).
func FuzzServe(f *testing.F) {
	for _, head := range heads {
		f.Add([]byte(head+"\r\n"), true)
	}
	const get, post = "GET /2 HTTP/1.1\r\nHost: b\r\n\r\n", "POST /1 HTTP/1.1\r\nHost: a\r\n"
	const inChunks = post + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
	for _, in := range []string{
		get + get, post + "Content-Length: 5\r\n\r\nhello" + get, post + "Content-Length: 0\r\n\r\n" + get,
		inChunks + "5\r\nhello\r\n0\r\n\r\n" + get, inChunks + "5;a=b\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n" + get,
		inChunks + "5\nhello\n0\n\n" + get, inChunks + "5\r\nhello\r\n0\r\n", inChunks + "5\r\nhello!0\r\n\r\n" + get, inChunks + "5\r\nhello!\r\n0\r\n\r\n" + get,
		post + "Content-Length: 5\r\n\r\nhell", post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok" + get,
		post + "Connection: close\r\nContent-Length: 1\r\n\r\nx" + get, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get, get + "\r\n" + get,
	} {
		f.Add([]byte(in), true)
		f.Add([]byte(in), false)
	}
	for _, h := range hostile {
		if len(h.head) < 1<<10 {
			f.Add([]byte(h.head+get), true)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, read bool) {
		got, out := serveScript(bytes.NewReader(in), read)
		slowly, slowOut := serveScript(iotest.OneByteReader(bytes.NewReader(in)), read)
		if !reflect.DeepEqual(got, slowly) || out != slowOut {
			t.Fatalf("at once %+v, %q; byte by byte %+v, %q", got, out, slowly, slowOut)
		}
		checkServed(t, in, got, read)
		checkAnswers(t, out, got)
	})
}

// checkServed reads in as net/http does.
func checkServed(t *testing.T, in []byte, got []*handled, read bool) {
	t.Helper()
	r := bufio.NewReaderSize(bytes.NewReader(in), 1<<20) // which bounds its trailers
	for i, g := range got {
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("request %d, %+v, was served, and net/http says %v", i, g, err)
		}
		want := handledOf(req, true)
		if i < len(got)-1 && !want.whole {
			t.Fatalf("request %d was served behind one whose body does not end", i+1)
		}
		if !read {
			want.body, want.whole, want.trailer = "", false, nil
		}
		if read && !g.whole { // stricter than net/http
			if i < len(got)-1 {
				t.Fatalf("a request was served behind %+v", g)
			}
			want.body, want.whole, want.trailer, g.body, g.trailer = "", false, nil, "", nil
		}
		if len(want.trailer) == 0 && len(g.trailer) == 0 {
			want.trailer, g.trailer = nil, nil
		}
		if !reflect.DeepEqual(g, want) {
			t.Fatalf("request %d: got %+v, net/http has %+v", i, g, want)
		}
	}
}

// checkAnswers checks that out is one answer for each of got, and at most one
// refusal behind them.
func checkAnswers(t *testing.T, out string, got []*handled) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader([]byte(out)))
	for i, g := range got {
		res, err := http.ReadResponse(r, &http.Request{Method: g.method})
		if err != nil {
			t.Fatalf("answer %d of %q: %v", i, out, err)
		}
		body, err := io.ReadAll(res.Body)
		want := fmt.Sprintf("answer %d", i+1)
		if g.method == http.MethodHead {
			want = ""
		}
		if err != nil || string(body) != want || res.StatusCode != 200 {
			t.Fatalf("answer %d: %d %q, %v", i, res.StatusCode, body, err)
		}
	}
	if _, err := r.Peek(1); err == io.EOF {
		return
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode < 400 || !res.Close || res.ContentLength != 0 {
		t.Fatalf("behind the answers: %+v, %v in %q", res, err, out)
	}
	if _, err := r.Peek(1); err != io.EOF {
		t.Fatalf("something follows the refusal in %q", out)
	}
}
