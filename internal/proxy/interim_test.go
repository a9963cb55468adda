package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

// silent fails the test if bytes come on c, which r reads, just now. A pass is no
// proof, but a failure is.
func silent(t testing.TB, c net.Conn, r *bufio.Reader) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		b, _ := r.Peek(r.Buffered())
		t.Errorf("too early came %q, %v", b, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

func TestInterim(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			for {
				if _, more := c.request(); !more {
					return
				}
				c.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nX-Hop: 1\r\nConnection: x-hop\r\n\r\n" +
					"HTTP/1.1 100 Continue\r\n\r\n" + ok)
			}
		})
		addr := way(t, app.addr()).addr
		t.Run("HTTP/1.1", func(t *testing.T) {
			v := visit(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			v.next("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + ok)
		})
		t.Run("HTTP/1.0", func(t *testing.T) {
			v := visit(t, addr, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
			v.next(strings.Replace(ok, "HTTP/1.1", "HTTP/1.0", 1))
		})
		t.Run("HTTP/2", func(t *testing.T) {
			type interim struct {
				Code   int
				Header textproto.MIMEHeader
			}
			var got []interim
			req, _ := http.NewRequest("GET", "http://"+addr, nil)
			req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					h.Del("Date") // net/http adds it
					got = append(got, interim{code, h})
					return nil
				},
			}))
			res, err := clientOf(t, 2).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if m := read(res); m.body != "hi" || res.Header.Get("Link") != "" {
				t.Error(m)
			}
			want := []interim{{102, textproto.MIMEHeader{}}, {103, textproto.MIMEHeader{"Link": {"</a>", "</b>"}}}}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	})
}

// The caller sees interim answers too, and may refuse.
func TestInterimResponse(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			m, more := c.request()
			if !more {
				return
			}
			if strings.Contains(m.line, "/bad") {
				c.send("HTTP/1.1 103 Early Hints\r\nBad: 1\r\n\r\n")
			}
			c.send("HTTP/1.1 103 Early Hints\r\nSecret: 1\r\nLink: </a>\r\n\r\n" + ok)
		}
	})
	tr := &Transport{Dial: dialer(app.addr())}
	defer tr.CloseIdle()
	addr := listen(t, hop(tr, Options{Response: func(res *http.Response) error {
		if res.Header.Get("Bad") != "" {
			return errors.New("bad")
		}
		res.Header.Del("Secret")
		return nil
	}}, nil))
	visit(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").next("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok)
	if m := visit(t, addr, "GET /bad HTTP/1.1\r\nHost: a\r\n\r\n").message("GET"); m.line != "502" {
		t.Error(m)
	}
}

func TestExpectAccepted(t *testing.T) {
	const expect = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, parts := range map[string][]string{
			"length": {"Content-Length: 6\r\n\r\n", "abc", "def"},
			"chunks": {"Transfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n", "3\r\ndef\r\n", "0\r\n\r\n"},
		} {
			t.Run(name, func(t *testing.T) {
				received := make(chan string)
				app := newApp(t, func(c *appConn) {
					if c.head() == "" {
						return
					}
					silent(t, c, c.r)
					c.send("HTTP/1.1 100 Continue\r\n\r\n")
					for _, part := range parts[1:] {
						b := make([]byte, len(part))
						io.ReadFull(c.r, b)
						received <- string(b)
					}
					c.send(ok)
				})
				// It does not wait, but the body must.
				v := visit(t, way(t, app.addr()).addr, expect+parts[0]+parts[1])
				for i, want := range parts[1:] {
					if i > 0 {
						v.send(want)
					}
					if got := within(t, "body", received); got != want {
						t.Errorf("app received %q, want %q", got, want)
					}
				}
				v.next("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
			})
		}
	})
}

// An app may answer without having asked for the body: it gets none.
func TestExpectRejected(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for _, answer := range []string{
			"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 1\r\n\r\nx",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
			"HTTP/1.1 204 No Content\r\n\r\n",
		} {
			rest := make(chan string, 1)
			app := newApp(t, func(c *appConn) {
				if c.head() == "" {
					return
				}
				c.send(answer)
				b, _ := io.ReadAll(c.r)
				rest <- string(b)
			})
			p := way(t, app.addr())
			v := visit(t, p.addr, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
			res := v.head("POST")
			m := read(res)
			if m.line != answer[9:12] || m.err != nil || !res.Close {
				t.Errorf("%v, close %v", m, res.Close)
			}
			// What looks like the body, or a request, is neither.
			v.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if b, err := io.ReadAll(v.r); len(b) > 0 {
				t.Errorf("after the answer came %q, %v", b, err)
			}
			if got := within(t, "end of the app's connection", rest); got != "" {
				t.Errorf("app received %q", got)
			}
		}
	})
}

// 100 is sent once, and not amid the interim answers around it, though another
// goroutine reads the body. The race detector watches.
func TestContinueAmidInterim(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			for c.head() != "" {
				c.send(hint + "HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat(hint, 10))
				io.ReadFull(c.r, make([]byte, 3))
				c.send(ok)
			}
		})
		addr := way(t, app.addr()).addr
		for range 20 {
			v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
			var got strings.Builder
			for !strings.HasSuffix(got.String(), "\r\n\r\nhi") {
				c, err := v.r.ReadByte()
				if err != nil {
					t.Fatalf("%q, %v", got.String(), err)
				}
				got.WriteByte(c)
			}
			hints, rest := strings.Count(got.String(), hint), strings.ReplaceAll(got.String(), hint, "")
			if hints != 11 || !strings.HasPrefix(rest, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") {
				t.Fatalf("%d hints and %q", hints, rest)
			}
			v.Close()
		}
	})
}
