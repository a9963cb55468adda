package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What is no HTTP response is told apart from one, and its connection is not used
// again (S2).
func TestBadResponse(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":                   "",
		"half a status line":        "HTTP/1.1 20",
		"no fields' end":            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
		"garbage":                   "\x16\x03\x01\x02\x00\x01\x00",
		"SSH":                       "SSH-2.0-OpenSSH_9\r\n",
		"HTTP/0.9":                  "<html>hello</html>\r\n\r\n",
		"HTTP/2":                    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2 preface":            "\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n",
		"status of letters":         "HTTP/1.1 abc OK\r\n\r\n",
		"status too short":          "HTTP/1.1 20 OK\r\n\r\n",
		"status too long":           "HTTP/1.1 2000 OK\r\n\r\n",
		"status 099":                "HTTP/1.1 099 OK\r\n\r\n" + ok,
		"negative status":           "HTTP/1.1 -20 OK\r\n\r\n",
		"length of letters":         "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"negative length":           "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"signed length":             "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
		"two lengths":               "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
		"list of lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx",
		"unknown coding":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
		"two codings":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"no colon":                  "HTTP/1.1 200 OK\r\nX\r\n\r\n",
		"space before the first":    "HTTP/1.1 200 OK\r\n X: 1\r\n\r\n",
		"101 unasked":               "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"101 after 103":             "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"100 alone":                 "HTTP/1.1 100 Continue\r\n\r\n",
		"header without end":        "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000),
		"too many fields":           "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 20_000),
		"status line without end":   "HTTP/1.1 200 " + strings.Repeat("x", 100_000),
		"interim header, no end":    "HTTP/1.1 103 x\r\nX: " + strings.Repeat("x", 100_000),
		"line ends before the head": "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			app := newApp(t, func(c *appConn) {
				c.request()
				c.send(answer)
				if len(answer) < 10_000 {
					return
				}
				c.head() // it stays open: the length alone is too much
			})
			tr := &Transport{Dial: dialer(app.addr()), MaxHeader: 16 << 10}
			_, err := call(t, tr, "GET", "")
			if !errors.Is(err, ErrBadResponse) {
				t.Error(err)
			}
			if n := len(tr.idle); n != 0 || app.accepted() != 1 {
				t.Errorf("%d idle, %d connections", n, app.accepted())
			}
		})
	}
}

// Bodies whose framing is broken are never complete.
func TestBadBody(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, answer := range map[string]string{
			"size of letters":      chunked + "1\r\na\r\nx\r\n",
			"negative size":        chunked + "-1\r\na\r\n0\r\n\r\n",
			"signed size":          chunked + "+1\r\na\r\n0\r\n\r\n",
			"size with 0x":         chunked + "0x1\r\na\r\n0\r\n\r\n",
			"no size":              chunked + "\r\na\r\n0\r\n\r\n",
			"huge size":            chunked + "ffffffffffffffff1\r\na\r\n0\r\n\r\n",
			"bare LF":              chunked + "1\na\r\n0\r\n\r\n",
			"bare LF after ext":    chunked + "1;x\na\r\n0\r\n\r\n",
			"CR in the extension":  chunked + "1;\rx\r\na\r\n0\r\n\r\n",
			"CR in the size":       chunked + "1\r;\r\na\r\n0\r\n\r\n",
			"data too long":        chunked + "1\r\nab\r\n0\r\n\r\n",
			"bare LF after data":   chunked + "1\r\na\n0\r\n\r\n",
			"no end of data":       chunked + "1\r\na0\r\n\r\n",
			"endless extension":    chunked + "1;" + strings.Repeat("x", 10_000) + "\r\na\r\n0\r\n\r\n",
			"trailer is no field":  chunked + "1\r\na\r\n0\r\nx\r\n\r\n",
			"trailers without end": chunked + "1\r\na\r\n0\r\nX: " + strings.Repeat("x", 2<<20),
		} {
			t.Run(name, func(t *testing.T) {
				app := newApp(t, func(c *appConn) {
					for {
						if _, more := c.request(); !more {
							return
						}
						if c.send(answer) != nil {
							return
						}
					}
				})
				p := way(t, app.addr())
				for range 2 { // and nothing is left for who comes after
					v := visit(t, p.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					res, err := http.ReadResponse(v.r, nil)
					if err != nil {
						continue
					}
					if m := read(res); !m.cut() && m.line != "502" {
						t.Error(m)
					}
				}
				if n := app.accepted(); n != 2 {
					t.Errorf("%d connections", n)
				}
			})
		}
	})
}

// A huge header is given up long before its end.
func TestHugeHeader(t *testing.T) {
	written := make(chan int, 1)
	app := newApp(t, func(c *appConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\n")
		line := bytes.Repeat([]byte("X: "+strings.Repeat("x", 1000)+"\r\n"), 64)
		n := 0
		for n < 1<<30 {
			m, err := c.Write(line)
			n += m
			if err != nil {
				break
			}
		}
		written <- n
	})
	tr := &Transport{Dial: dialer(app.addr())}
	if _, err := call(t, tr, "GET", ""); !errors.Is(err, ErrBadResponse) {
		t.Error(err)
	}
	// The rest is what the kernel took.
	if n := within(t, "end", written); n > 64<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// pipe is a Transport to an app in memory, for a test whose clock is synctest's.
func pipe(timeout time.Duration, app func(net.Conn)) *Transport {
	return &Transport{
		HeaderTimeout: timeout,
		Dial: func(context.Context) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				app(server)
			}()
			return client, nil
		},
	}
}

// headerTimeout is what an app does about a limit, and what comes of it.
type headerTimeout struct {
	body   func() io.Reader // of length 3; nil: none
	expect bool
	app    func(net.Conn)
	want   string
	err    error
}

const timeLimit = time.Minute

func headerTimeouts() map[string]headerTimeout {
	const limit = timeLimit
	const head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
	discard := func(c net.Conn, n int) { io.CopyN(io.Discard, c, int64(n)) }
	slow := func() io.Reader { // takes longer than the limit
		pr, pw := io.Pipe()
		go func() {
			for _, s := range []string{"a", "b", "c"} {
				time.Sleep(limit)
				io.WriteString(pw, s)
			}
		}()
		return pr
	}
	return map[string]headerTimeout{
		"silent": {app: func(c net.Conn) { io.Copy(io.Discard, c) }, err: ErrHeaderTimeout},
		"half a header": {app: func(c net.Conn) {
			discard(c, len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			io.Copy(io.Discard, c)
		}, err: ErrHeaderTimeout},
		"interim answers only": {app: func(c net.Conn) {
			discard(c, len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			for range 3 {
				io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n")
				time.Sleep(limit / 2)
			}
			io.WriteString(c, ok)
		}, err: ErrHeaderTimeout},
		"in time": {app: func(c net.Conn) {
			discard(c, len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			time.Sleep(limit - 1)
			io.WriteString(c, ok)
		}, want: "hi"},
		"slow answer": {app: func(c net.Conn) {
			discard(c, len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			io.WriteString(c, ok[:len(ok)-1])
			time.Sleep(2 * limit)
			io.WriteString(c, ok[len(ok)-1:])
		}, want: "hi"},
		"silent after the body": {body: func() io.Reader { return strings.NewReader("abc") }, app: func(c net.Conn) { io.Copy(io.Discard, c) }, err: ErrHeaderTimeout},
		"slow upload": {body: slow, app: func(c net.Conn) {
			discard(c, len(head)+3)
			time.Sleep(limit - 1)
			io.WriteString(c, ok)
		}, want: "hi"},
		"silent after a slow upload": {body: slow, app: func(c net.Conn) { io.Copy(io.Discard, c) }, err: ErrHeaderTimeout},
		"answer, then the upload's end": {body: slow, app: func(c net.Conn) {
			discard(c, len(head))
			io.WriteString(c, ok[:len(ok)-2])
			discard(c, 3)
			time.Sleep(2 * limit)
			io.WriteString(c, ok[len(ok)-2:])
		}, want: "hi"},
		"never accepted": {body: slow, expect: true, app: func(c net.Conn) { io.Copy(io.Discard, c) }, err: ErrHeaderTimeout},
		"accepted late, slow upload": {body: slow, expect: true, app: func(c net.Conn) {
			discard(c, len(head)+len("Expect: 100-continue\r\n"))
			time.Sleep(limit - 1)
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			discard(c, 3)
			time.Sleep(limit - 1)
			io.WriteString(c, ok)
		}, want: "hi"},
	}
}

func TestHeaderTimeout(t *testing.T) {
	const limit = timeLimit
	for name, test := range headerTimeouts() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				tr := pipe(limit, test.app)
				dial := tr.Dial
				tr.Dial = func(ctx context.Context) (net.Conn, error) { dials++; return dial(ctx) }
				req, _ := http.NewRequest("GET", "http://a/", nil)
				if test.body != nil {
					req, _ = http.NewRequest("POST", "http://a/", test.body())
					req.ContentLength = 3
				}
				if test.expect {
					req.Header.Set("Expect", "100-continue")
				}
				res, err := tr.RoundTrip(req)
				if !errors.Is(err, test.err) || test.err != nil && err == nil {
					t.Fatalf("got %v, want %v", err, test.err)
				}
				if err == nil {
					if m := read(res); m.body != test.want || m.err != nil {
						t.Error(m)
					}
				}
				if dials != 1 {
					t.Errorf("%d connections", dials)
				}
				tr.CloseIdle()
				if c, ok := req.Body.(io.Closer); ok && test.body != nil {
					c.Close()
				}
				time.Sleep(5 * limit) // the writer of a slow upload
			})
		})
	}
}

// A server that knows no Expect gets the body after a while, one that does when
// it asks.
func TestContinueTimeout(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	for name, test := range map[string]struct {
		says   string        // before the body
		after  time.Duration // when the app says it
		expect time.Duration // when the body comes
	}{
		"ignored":              {"", 0, time.Second},
		"accepted":             {"HTTP/1.1 100 Continue\r\n\r\n", time.Millisecond, time.Millisecond},
		"late":                 {"HTTP/1.1 100 Continue\r\n\r\n", time.Minute, time.Second},
		"hint":                 {"HTTP/1.1 103 Early Hints\r\n\r\n", time.Millisecond, time.Second + time.Millisecond},
		"hinted":               {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", time.Millisecond, time.Millisecond},
		"hinted, then ignored": {"HTTP/1.1 103 Early Hints\r\n\r\n", time.Millisecond, time.Second + time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := pipe(5*time.Second, func(c net.Conn) {
					io.ReadFull(c, make([]byte, len(head)))
					start := time.Now()
					said := make(chan bool)
					go func() {
						defer close(said)
						time.Sleep(test.after)
						io.WriteString(c, test.says)
					}()
					body := make([]byte, 3)
					io.ReadFull(c, body)
					if d := time.Since(start); string(body) != "abc" || d != test.expect {
						t.Errorf("after %v came %q", d, body)
					}
					if test.after < time.Minute {
						<-said
					}
					io.WriteString(c, ok)
					<-said
				})
				tr.ContinueTimeout = time.Second
				req, _ := http.NewRequest("POST", "http://a/", strings.NewReader("abc"))
				req.Header.Set("Expect", "100-continue")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if m := read(res); m.body != "hi" || m.err != nil {
					t.Error(m)
				}
				tr.CloseIdle()
				time.Sleep(2 * time.Minute)
			})
		})
	}
}

// A GET that took too long on a kept connection is not tried once more.
func TestHeaderTimeoutOnKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		tr := pipe(time.Minute, func(c net.Conn) {
			buf := make([]byte, 1<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if requests.Add(1) == 1 {
					io.WriteString(c, "HTTP/1.1 204 x\r\n\r\n")
				}
			}
		})
		if status, err := call(t, tr, "GET", ""); status != "204" {
			t.Fatal(err)
		}
		if _, err := call(t, tr, "GET", ""); !errors.Is(err, ErrHeaderTimeout) {
			t.Error(err)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}
