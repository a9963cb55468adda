package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// answers is everything that comes on a connection after send, up to its end.
func answers(t testing.TB, s *Server, send string) (string, error) {
	t.Helper()
	stream, _ := serveStream(t, s)
	io.WriteString(stream, send)
	stream.CloseWrite()
	b, err := io.ReadAll(stream)
	return string(b), err
}

// answerTest is what a handler does, and what is sent: nothing that it did not say.
type answerTest struct {
	name, request string
	handler       http.HandlerFunc
	want          []string // lines of the head, sorted, and what follows
}

func (test answerTest) run(t *testing.T) {
	got, err := answers(t, &Server{Handler: test.handler}, test.request)
	head, rest, _ := strings.Cut(got, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines)
	if lines = append(lines, sortedTrailer(rest)); err != nil || !slices.Equal(lines, test.want) {
		t.Errorf("got %q, %v; want %q", lines, err, test.want)
	}
}

// sortedTrailer puts the trailers of a test in their order.
func sortedTrailer(s string) string {
	return strings.Replace(s, "X-C: 3\r\nX-A: 1\r\n", "X-A: 1\r\nX-C: 3\r\n", 1)
}

// Where the body of an answer ends.
func TestServeFraming(t *testing.T) {
	for _, test := range []answerTest{
		{"nothing", get, func(http.ResponseWriter, *http.Request) {}, []string{"Content-Length: 0", "HTTP/1.1 200 OK", ""}},
		{"status", get, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
			[]string{"HTTP/1.1 404 Not Found", "Transfer-Encoding: chunked", "0\r\n\r\n"}},
		{"unknown status", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(799)
			w.WriteHeader(200)
		}, []string{"Content-Length: 0", "HTTP/1.1 799 ", ""}},
		{"length", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			n, err := io.WriteString(w, "hi")
			m, tooMuch := io.WriteString(w, "!")
			if n != 2 || err != nil || m != 0 || tooMuch != http.ErrContentLength {
				t.Error(n, err, m, tooMuch)
			}
		}, []string{"Content-Length: 2", "HTTP/1.1 200 OK", "hi"}},
		{"no length", get, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			io.WriteString(w, "")
			io.WriteString(w, strings.Repeat("x", 17))
		}, []string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "2\r\nhi\r\n11\r\n" + strings.Repeat("x", 17) + "\r\n0\r\n\r\n"}},
		{"both framings", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			w.Header().Set("Transfer-Encoding", "chunked")
			io.WriteString(w, "hi")
		}, []string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n"}},
		{"two lengths", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Length"] = []string{"2", "3"}
			io.WriteString(w, "hi")
		}, []string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n"}},
		{"HEAD", "HEAD" + get[3:], func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			if n, err := io.WriteString(w, "hi"); n != 2 || err != nil {
				t.Error(n, err)
			}
		}, []string{"Content-Length: 9", "HTTP/1.1 200 OK", ""}},
		{"204", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "hi"); err != http.ErrBodyNotAllowed {
				t.Error(err)
			}
		}, []string{"HTTP/1.1 204 No Content", ""}},
		{"304", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.Header().Set("Transfer-Encoding", "chunked")
			w.WriteHeader(304)
		}, []string{"Content-Length: 9", "HTTP/1.1 304 Not Modified", ""}},
	} {
		t.Run(test.name, test.run)
	}
}

// What an answer has beside its status and its body.
func TestServeFields(t *testing.T) {
	for _, test := range []answerTest{
		{"trailers", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-A, X-B")
			io.WriteString(w, "hi")
			w.Header().Set("X-A", "1")
			w.Header().Set(http.TrailerPrefix+"X-C", "3")
			w.Header().Set("X-D", "4")
		}, []string{"HTTP/1.1 200 OK", "Trailer: X-A, X-B", "Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\nX-A: 1\r\nX-C: 3\r\n\r\n"}},
		{"trailers of what has none", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-A")
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(200)
			w.Header().Set("X-A", "1")
		}, []string{"Content-Length: 0", "HTTP/1.1 200 OK", ""}},
		{"line ends", get, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h["X-A"] = []string{"1\r\nX-B: 2", "3\r4"}
			h["X\r\nY"], h["Z: z"], h[""] = []string{"1"}, []string{"1"}, []string{"1"}
			h["Trailer"] = []string{"X\r\nY"}
		}, []string{"Content-Length: 0", "HTTP/1.1 200 OK", "X-A: 1  X-B: 2", "X-A: 3 4", ""}},
		{"interim", get, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(103)
			w.WriteHeader(200)
			w.WriteHeader(103)
		}, []string{"HTTP/1.1 103 Early Hints", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}},
	} {
		t.Run(test.name, test.run)
	}
}

// An answer that is not whole is never read as one (R1).
func TestServeCut(t *testing.T) {
	var log bytes.Buffer
	for name, handler := range map[string]http.HandlerFunc{
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			io.WriteString(w, "hi")
		},
		"panic": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			panic("out of sorts")
		},
		"abort": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"abort in time": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			got, err := answers(t, &Server{Handler: handler, Log: slog.New(slog.NewTextHandler(&log, nil))}, get+get)
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %q, %v", got, err)
			}
			if strings.Contains(log.String(), "out of sorts") != (name == "panic") || name != "panic" && log.Len() > 0 {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

// One connection serves requests in their order, until one says that it is the last
// or the answer began before its request had ended. What follows is no request (S1).
func TestServeKept(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, test := range []struct {
		name, send string
		read       bool
		answers    int
	}{
		{"three", get + get + get, false, 3},
		{"close", strings.Replace(get, "\r\n\r\n", "\r\nConnection: x, Close\r\n\r\n", 1) + get, false, 1},
		{"no body", post + "Content-Length: 0\r\n\r\n" + get, false, 2},
		{"read", post + "Content-Length: 2\r\n\r\nhi" + get, true, 2},
		{"chunks, read", post + "Transfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nX-A: 1\r\n\r\n" + get, true, 2},
		{"not read", post + "Content-Length: 3\r\n\r\nhi!" + get, false, 1},
		{"chunks, not read", post + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + get, false, 1},
		{"broken chunks", post + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n" + get, true, 1},
		{"chunk with bare LF", post + "Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n" + get, true, 1},
		{"long trailers", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + strings.Repeat("x", 2*defaultMaxHeader) + "\r\n\r\n" + get, true, 1},
		{"cut", post + "Content-Length: 300\r\n\r\n" + get, true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
				if test.read {
					io.Copy(io.Discard, r.Body)
				}
				w.Header().Set("Content-Length", "0")
			}}
			got, err := answers(t, s, test.send)
			closing := strings.Count(got, "Connection: close\r\n")
			if n := strings.Count(got, "HTTP/1.1 200 OK"); n != test.answers || err != nil || closing > 1 || (closing == 1) != (n == 1) {
				t.Errorf("got %q, %v; want %d answers", got, err, test.answers)
			}
		})
	}
}

// A request's context ends when the stream is aborted or the session ends, and not
// when the peer has ended its side.
func TestServeContext(t *testing.T) {
	for _, half := range []bool{false, true} {
		for _, end := range []string{"reset", "session"} {
			begun, ended := make(chan context.Context, 1), make(chan bool)
			stream, session := serveStream(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
				begun <- r.Context()
				<-r.Context().Done()
				close(ended)
			}})
			io.WriteString(stream, get)
			ctx := within(t, "request", begun)
			if half {
				stream.CloseWrite()
				select { // a pass is no proof, but a failure is
				case <-ended:
					t.Fatal("ended by a half-close")
				case <-time.After(30 * time.Millisecond):
				}
			}
			if end == "reset" && !half {
				stream.Reset()
			} else {
				session.Close()
			}
			within(t, "end of the context", ended)
			if ctx.Err() != context.Canceled {
				t.Error(ctx.Err())
			}
		}
	}
}

// A body that the peer ends too early is an error, and the peer may be told.
func TestServeBodyCut(t *testing.T) {
	for _, framing := range []string{"Content-Length: 9\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n9\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		got, err := answers(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if string(b) != "x" || err != io.ErrUnexpectedEOF || r.Context().Err() != nil {
				t.Errorf("read %q, %v; the context says %v", b, err, r.Context().Err())
			}
			w.WriteHeader(400)
		}}, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
		if err != nil || !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n") {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// Streams stay open after uploads.
func TestServeKeptAfterUpload(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			if _, more := c.request(); !more {
				return
			}
			c.send(ok)
		}
	})
	p := twoHopsServed(t, app.addr())
	dials, dial := 0, p.edge.Dial
	p.edge.Dial = func(ctx context.Context) (net.Conn, error) {
		dials++
		return dial(ctx)
	}
	for range 3 {
		for _, body := range []string{"Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"} {
			v := visit(t, p.addr, "POST / HTTP/1.1\r\nHost: a\r\n"+body)
			if m := v.message("POST"); m.line != "200" {
				t.Error(m)
			}
			within(t, "end of the exchange", p.tried)
			v.Close()
		}
	}
	if dials != 1 {
		t.Errorf("%d streams for 6 requests", dials)
	}
}

// A stream that has ended its side gets its answer.
func TestServeHalfClosed(t *testing.T) {
	got, err := answers(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		if err := r.Context().Err(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "hi")
	}}, get)
	if err != nil || got != ok {
		t.Errorf("%q, %v", got, err)
	}
}

// A handler that returns while another goroutine of its own waits for the body does
// not wait for it, and nothing reads on (the race detector watches).
func TestServeStopsReading(t *testing.T) {
	for _, panics := range []bool{false, true} {
		for _, framing := range []string{"Content-Length: 9\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
			var reader sync.WaitGroup
			reading := make(chan bool, 1)
			failed := make(chan error, 1)
			stream, _ := serveStream(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
				reader.Go(func() {
					b := make([]byte, 1)
					r.Body.Read(b)
					reading <- true
					_, err := r.Body.Read(b)
					failed <- err
					poll.Until(t, "end of the body for good", func() bool {
						n, err := r.Body.Read(b)
						return n == 0 && err == http.ErrBodyReadAfterClose
					})
				})
				<-reading
				w.Header().Set("Content-Length", "0")
				if panics {
					panic(http.ErrAbortHandler)
				}
			}})
			io.WriteString(stream, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			if err := within(t, "end of the read", failed); err == nil || err == io.EOF {
				t.Error(err)
			}
			io.WriteString(stream, get)
			stream.CloseWrite()
			b, err := io.ReadAll(stream)
			if want := "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"; !panics && (err != nil || string(b) != want) || panics && err == nil {
				t.Errorf("got %q, %v", b, err)
			}
			reader.Wait()
		}
	}
}

// A deadline that a handler sets is over with its request.
func TestServeDeadlines(t *testing.T) {
	s := &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(200)
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.EnableFullDuplex(), rc.Flush(), rc.SetReadDeadline(longAgo), rc.SetWriteDeadline(longAgo)); err != nil {
			t.Error(err)
		}
	}}
	stream, _ := serveStream(t, s)
	r := bufio.NewReader(stream)
	for range 3 {
		io.WriteString(stream, get)
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
	}
}

// The handler that takes a connection over gets what came early, and nothing else
// touches it.
func TestServeHijack(t *testing.T) {
	var taken net.Conn
	s := &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		conn, rw, err := rc.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		taken = conn
		if _, _, err := rc.Hijack(); err != http.ErrHijacked {
			t.Error(err)
		}
		if _, err := w.Write([]byte("x")); err != http.ErrHijacked {
			t.Error(err)
		}
		if err := rc.Flush(); err != http.ErrHijacked {
			t.Error(err)
		}
		rw.WriteString("mine ")
		rw.Flush()
		io.Copy(conn, rw)
		io.WriteString(conn, ".")
		conn.Close()
	}}
	got, err := answers(t, s, get+strings.Repeat("early", 1000))
	if want := "mine " + strings.Repeat("early", 1000) + "."; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if taken == nil {
		t.Error("no connection")
	}
}

// What the handler of a connection that it took over has not read is there.
func TestServeHijackEarly(t *testing.T) {
	stream, _ := serveStream(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "mine ")
		io.CopyN(conn, conn, 3)
	}})
	io.WriteString(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
	b := make([]byte, 8)
	if _, err := io.ReadFull(stream, b[:5]); err != nil {
		t.Fatal(err)
	}
	io.WriteString(stream, "abc")
	if n, err := io.ReadFull(stream, b[5:]); string(b) != "mine abc" {
		t.Errorf("%q, %v", b[:5+n], err)
	}
}

// sizes is a connection that notes for how much each Read asks.
type sizes struct {
	net.Conn
	asked chan int
}

func (c sizes) Read(p []byte) (int, error) {
	c.asked <- len(p)
	return c.Conn.Read(p)
}

// A connection that waits for a request holds no buffers, and has given back those
// of the last one.
func TestServeIdle(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	asked := make(chan int, 100)
	s := &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "0")
	}}
	var serving sync.WaitGroup
	serving.Go(func() { s.ServeConn(sizes{b, asked}) })
	r := bufio.NewReader(a)
	for _, size := range []int{0, 10, 10_000} {
		for within(t, "wait", asked) != idleSize { // reads of the last body come first
		}
		go fmt.Fprintf(a, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
	}
	for within(t, "wait", asked) != idleSize {
	}
	a.Close()
	serving.Wait()
}

// noting is a connection that tells of its end.
type noting struct {
	*net.TCPConn
	closed func()
}

func (c noting) Close() error {
	c.closed()
	return c.TCPConn.Close()
}

// An upgraded stream whose visitor has ended its side, and an app that is silent:
// the end of the session ends both.
func TestServeUpgradeGone(t *testing.T) {
	half, left := make(chan bool, 1), make(chan bool)
	var app *rawApp
	tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) {
		c, err := dialer(app.addr())(ctx)
		return noting{c.(*net.TCPConn), sync.OnceFunc(func() { close(left) })}, err
	}}
	stream, session := serveStream(t, &Server{Handler: hop(tr, Options{}, nil).ServeHTTP})
	app = switching(t, func(c *appConn) {
		io.Copy(io.Discard, c.r)
		half <- true
		<-left
	})
	io.WriteString(stream, askUpgrade)
	stream.CloseWrite()
	within(t, "half-close", half)
	session.Close()
	within(t, "end of the app's connection", left)
}

// A peer of TCP that still sends is not reset under its answer.
func TestServeUnread(t *testing.T) {
	addr := serveTCP(t, &Server{Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "0")
	}})
	v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 100_000))
	if m := v.message("POST"); m.line != "200" {
		t.Error(m)
	}
	v.send(strings.Repeat("x", 100_000))
	v.CloseWrite()
	if b, err := io.ReadAll(v.r); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestHeadTakesWhatItIs: what a peer sends has no more memory reserved for it
// than was looked at (S10).
func TestHeadTakesWhatItIs(t *testing.T) {
	head := "GET / HTTP/1.1\r\n :\r\n" + strings.Repeat("a:\r\n", 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := parseHead(new(http.Request), head); err == nil {
		t.Error("a field without a name was taken")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated for the first field", n)
	}
}
