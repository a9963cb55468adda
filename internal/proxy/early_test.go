package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const tooLarge = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"

// An app that refuses a large upload early is heard, and nothing of the upload
// stays (R3).
func TestEarlyAnswer(t *testing.T) {
	refuse := func(c *appConn) {
		head := c.head()
		if head == "" {
			return
		}
		if strings.Contains(head, "Expect:") {
			c.send("HTTP/1.1 100 Continue\r\n\r\n")
		}
		io.CopyN(io.Discard, c.r, 1<<20)
		c.send(tooLarge)
		c.CloseWrite()
		io.Copy(io.Discard, c.r) // until it is left alone
	}
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, framing := range map[string]string{
			"length":                  "Content-Length: 1073741824\r\n\r\n",
			"chunks":                  "Transfer-Encoding: chunked\r\n\r\n40000000\r\n",
			"length, after Continue":  "Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n",
			"chunks, after Continue ": "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				left := make(chan bool, 1)
				app := newApp(t, func(c *appConn) { refuse(c); left <- true })
				p := way(t, app.addr())
				v := visit(t, p.addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
				sent := make(chan int64, 1)
				go func() {
					block := bytes.Repeat([]byte("x"), 64<<10)
					var n int64
					for n < 1<<30 {
						m, err := v.Write(block)
						n += int64(m)
						if err != nil {
							break
						}
					}
					sent <- n
				}()
				res := v.head("POST")
				if res.StatusCode == http.StatusContinue {
					res = v.head("POST")
				}
				if m := read(res); m.line != "413" || m.body != "big" || m.err != nil || !res.Close {
					t.Errorf("%v, close %v", m, res.Close)
				}
				if strings.Contains(name, "Continue") {
					v.Close() // as curl does; the others go on
				}
				within(t, "end of the app's connection", left)
				if err := within(t, "end of the exchange", p.tried); err != nil {
					t.Error(err)
				}
				if n := within(t, "end of the upload", sent); n >= 1<<30 {
					t.Error("all of it was taken")
				}
			})
		}
	})
}

// Whoever goes on sending gets the whole of its answer, though it reads late.
func TestEarlyAnswerReadLate(t *testing.T) {
	const size = 300_000
	left := make(chan bool)
	app := newApp(t, func(c *appConn) {
		if c.head() != "" {
			c.send("HTTP/1.1 413 x\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("x", size))
			io.Copy(io.Discard, c.r)
			close(left)
		}
	})
	tr := &Transport{Dial: dialer(app.addr())}
	addr := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Context().Value(connKey{}).(*net.TCPConn).SetWriteBuffer(2 * size)
		if err := Forward(w, r, tr, Options{}); err != nil {
			t.Error(err)
		}
	}))
	v := visit(t, addr, "")
	v.SetReadBuffer(16 << 10) // most of the answer waits on the other side
	v.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 100_000))
	res := v.head("POST")
	within(t, "end of the exchange with the app", left)
	v.send(strings.Repeat("x", 100_000))
	if m := read(res); len(m.body) != size || m.err != nil {
		t.Errorf("%d bytes, %v", len(m.body), m.err)
	}
	v.Close()
}

// A failure does not end the visitor's context: the caller tells by it whether
// anyone is there to be answered.
func TestFailureLeavesContext(t *testing.T) {
	app := newApp(t, func(c *appConn) { c.head() })
	tr := &Transport{Dial: dialer(app.addr())}
	addr := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := Forward(w, r, tr, Options{})
		if !errors.Is(err, ErrBadResponse) {
			t.Error(err)
		}
		select { // a pass is no proof, but a failure is
		case <-r.Context().Done():
			t.Error(r.Context().Err())
		case <-time.After(30 * time.Millisecond):
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	for _, framing := range []string{"Content-Length: 9\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
		if m := v.message("POST"); m.line != "502" {
			t.Error(m)
		}
		v.Close()
	}
}

// A visitor that neither sends the rest of its request nor leaves gets its answer
// to the end, and its connection ends. What it sends then is no request, though it
// may look like one: it is the rest of the body (S1).
func TestEarlyAnswerToSilence(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, answer := range map[string]string{
			"length": tooLarge,
			"chunks": "HTTP/1.1 413 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\nX-Sum: 1\r\n\r\n",
			"empty":  "HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n",
			"204":    "HTTP/1.1 204 x\r\n\r\n",
		} {
			for _, framing := range []string{
				"Content-Length: 1000\r\n\r\n", "Content-Length: 1000\r\n\r\nx", "Content-Length: 1000000000\r\n\r\nx",
				"Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "Transfer-Encoding: chunked\r\n\r\n80\r\nx",
			} {
				t.Run(fmt.Sprintf("%s %q", name, framing), func(t *testing.T) {
					app := newApp(t, func(c *appConn) {
						switch head := c.head(); {
						case strings.HasPrefix(head, "POST"):
							c.send(answer)
							io.Copy(io.Discard, c.r)
						case head != "":
							t.Errorf("app got the request %q", head)
						}
					})
					v := visit(t, way(t, app.addr()).addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
					res := v.head("POST")
					m := read(res)
					if m.line != answer[9:12] || m.err != nil || !res.Close || name == "chunks" && len(m.trailer) != 1 {
						t.Errorf("%v, close %v", m, res.Close)
					}
					v.Write([]byte("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
					if b, err := io.ReadAll(v.r); len(b) > 0 {
						t.Errorf("after the answer came %q, %v", b, err)
					}
				})
			}
		}
	})
}

// The caller's own answer to a request that failed early is no trap either.
func TestFailureBeforeTheBody(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			if head := c.head(); strings.HasPrefix(head, "GET") {
				t.Errorf("app got the request %q", head)
			}
		})
		for _, framing := range []string{"Content-Length: 35\r\n\r\n", "Content-Length: 36\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n24\r\nx"} {
			v := visit(t, way(t, app.addr()).addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			res := v.head("POST")
			if m := read(res); m.line != "502" || !res.Close {
				t.Errorf("%v, close %v", m, res.Close)
			}
			v.Write([]byte("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
			if b, err := io.ReadAll(v.r); len(b) > 0 {
				t.Errorf("after the answer came %q, %v", b, err)
			}
		}
	})
}

// Answers that race with the end of small requests, on connections that a visitor
// keeps as it is told: none fails, and the app sees each request whole.
func TestEarlyAnswerRace(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		app := newApp(t, func(c *appConn) {
			for {
				head := c.head()
				if head == "" {
					return
				}
				if !strings.HasPrefix(head, "POST /") {
					t.Errorf("app got %q", head)
				}
				c.send(ok)
				if c.rest(head).err != nil {
					return
				}
			}
		})
		addr := way(t, app.addr()).addr
		var v *visitor
		conns := 0
		for i := range 300 {
			if v == nil {
				v = visit(t, addr, "")
				conns++
			}
			body := strings.Repeat("x", i*i%3000)
			v.send("POST /" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n")
			io.WriteString(v, body) // it may fail once there is an answer
			res := v.head("POST")
			if m := read(res); m.body != "hi" || m.err != nil {
				t.Fatal(i, m)
			}
			if res.Close {
				v.Close()
				v = nil
			}
		}
		t.Logf("%d connections for 300 requests", conns)
	})
}
