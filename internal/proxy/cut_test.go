package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// ends are the ways in which a process leaves its connections.
var ends = map[string]func(c interface{ SetLinger(int) error }){
	"close": func(interface{ SetLinger(int) error }) {},
	"reset": func(c interface{ SetLinger(int) error }) { c.SetLinger(0) },
}

// TestResponseCut kills the app at every offset of an answer: what the visitor
// gets never looks complete (R1).
func TestResponseCut(t *testing.T) {
	for name, answer := range map[string]string{
		"length":     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789",
		"chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-A: 1\r\n\r\n",
		"to the end": "HTTP/1.1 200 OK\r\n\r\n123456789",
		"old":        "HTTP/1.0 200 OK\r\n\r\n123456789",
		"long":       "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, way func(testing.TB, string) *path) { responseCut(t, way, answer) })
		})
	}
}

func responseCut(t *testing.T, way func(testing.TB, string) *path, answer string) {
	app := newApp(t, func(c *appConn) {
		m, ok := c.request()
		if !ok {
			return
		}
		_, query, _ := strings.Cut(strings.Fields(m.line)[1], "?")
		offset, end, _ := strings.Cut(query, "&")
		n, _ := strconv.Atoi(offset)
		c.send(answer[:n])
		ends[end](c)
	})
	addr := way(t, app.addr()).addr
	head := strings.Index(answer, "\r\n\r\n") + 4
	byEnd := !strings.Contains(answer, "Content-Length") && !strings.Contains(answer, "chunked")
	one, two := clientOf(t, 1), clientOf(t, 2)
	clients := map[string]func(path string) (*http.Response, error){
		"1.0": func(p string) (*http.Response, error) { return old(t, addr, p) },
		"1.1": func(p string) (*http.Response, error) { return one.Get("http://" + addr + p) },
		"2":   func(p string) (*http.Response, error) { return two.Get("http://" + addr + p) },
	}
	for end := range ends {
		for n := 0; n <= len(answer); n++ {
			if n > 80 && n < len(answer)-3 {
				n += len(answer) / 30
			}
			whole := n >= len(answer) && !(byEnd && end == "reset") || byEnd && n >= head && end == "close"
			n = min(n, len(answer))
			for version, get := range clients {
				res, err := get(fmt.Sprintf("/?%d&%s", n, end))
				if err != nil {
					if whole {
						t.Errorf("%s at %d, HTTP/%s: %v", end, n, version, err)
					}
					continue // as visible as can be
				}
				m := read(res)
				complete := m.line == "200" && !m.cut()
				// After the last byte a reset may overtake, or not.
				if complete != whole && !(end == "reset" && n == len(answer)) {
					t.Errorf("%s at %d of %d, HTTP/%s: %v", end, n, len(answer), version, m)
				}
			}
		}
	}
}

// old is a GET of HTTP/1.0.
func old(t testing.TB, addr, path string) (*http.Response, error) {
	v := visit(t, addr, "GET "+path+" HTTP/1.0\r\nHost: a\r\n\r\n")
	return http.ReadResponse(v.r, &http.Request{Method: "GET"})
}

// The session between two hops dies: no answer looks complete then either.
func TestSessionCut(t *testing.T) {
	for name, answer := range map[string]string{
		"length":     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234",
		"chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n",
		"to the end": "HTTP/1.1 200 OK\r\n\r\n1234",
		"upgrade":    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n1234",
	} {
		for _, version := range []string{"1.0", "1.1"} {
			for hops, serve := range servers {
				t.Run(name+" "+version+" "+hops, func(t *testing.T) {
					app := newApp(t, func(c *appConn) {
						if c.head() != "" {
							c.send(answer)
							io.Copy(io.Discard, c.r)
						}
					})
					server, client := sessions(t)
					local := &Transport{Dial: dialer(app.addr())}
					serve(t, streams{client}, hop(local, Options{}, nil))
					edge := &Transport{Dial: func(ctx context.Context) (net.Conn, error) { return server.Open(ctx) }}
					v := visit(t, listen(t, hop(edge, Options{}, nil)), "GET / HTTP/"+version+"\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
					res := v.head("GET")
					body := io.Reader(v.r)
					if name != "upgrade" {
						body = res.Body
					} else if version == "1.0" {
						if res.StatusCode != 502 {
							t.Errorf("%d", res.StatusCode) // it may not upgrade
						}
						return
					}
					if _, err := io.ReadFull(body, make([]byte, 4)); err != nil {
						t.Fatal(err)
					}
					client.Close()
					if b, err := io.ReadAll(body); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("read %q, %v", b, err)
					}
				})
			}
		}
	}
}

// An answer is cut at once, though its request is still open and silent.
func TestResponseCutWhileUploading(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for _, framing := range []string{"Content-Length: 9\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
			app := newApp(t, func(c *appConn) {
				if c.head() != "" {
					c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123")
					io.ReadFull(c.r, make([]byte, 1))
				}
			})
			v := visit(t, way(t, app.addr()).addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			if m := v.message("POST"); !m.cut() {
				t.Error(m)
			}
		}
	})
}

// TestRequestCut lets the visitor die at every offset of an upload: what the app
// gets never looks complete (R2).
func TestRequestCut(t *testing.T) {
	for name, body := range map[string]string{
		"length": "Content-Length: 9\r\n\r\n123456789",
		"chunks": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-A: 1\r\n\r\n",
		"long":   "Content-Length: 300000\r\n\r\n" + strings.Repeat("x", 300000),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, way func(testing.TB, string) *path) { requestCut(t, way, body) })
		})
	}
}

func requestCut(t *testing.T, way func(testing.TB, string) *path, body string) {
	begun, seen := make(chan bool, 1), make(chan message, 1)
	app := newApp(t, func(c *appConn) {
		if head := c.head(); head != "" {
			begun <- true
			seen <- c.rest(head)
		}
	})
	addr := way(t, app.addr()).addr
	for end, finish := range ends {
		for n := strings.Index(body, "\r\n\r\n") + 4; n < len(body); n++ {
			if n > 80 {
				n = min(n+len(body)/20, len(body)-1)
			}
			v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\n"+body[:n])
			within(t, "request", begun)
			finish(v)
			v.Close()
			if m := within(t, "end of the request", seen); m.err == nil {
				t.Errorf("%s at %d: %v", end, n, m)
			}
		}
	}
}

// A request whose framing is broken is cut off as well, and is the visitor's fault.
func TestMalformedRequest(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		begun, seen := make(chan bool, 1), make(chan message, 1)
		app := newApp(t, func(c *appConn) {
			if head := c.head(); head != "" {
				begun <- true
				seen <- c.rest(head)
			}
		})
		p := way(t, app.addr())
		for _, body := range []string{"x\r\n", "3\r\nabcd\r\n", "0\r\nX\r\n\r\n"} {
			v := visit(t, p.addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
			within(t, "request", begun)
			v.send(body)
			if m := within(t, "end of the request", seen); m.err == nil {
				t.Errorf("%q: %v", body, m)
			}
			if err := within(t, "end of the exchange", p.tried); !errors.Is(err, ErrRequestBody) {
				t.Errorf("%q: %v", body, err)
			}
			if m := v.message("POST"); m.line != "502" {
				t.Errorf("%q: %v", body, m)
			}
		}
	})
}

// A visitor of HTTP/2 ends with a reset of its stream.
func TestRequestCutHTTP2(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		begun, seen := make(chan bool, 1), make(chan message, 1)
		app := newApp(t, func(c *appConn) {
			if head := c.head(); head != "" {
				begun <- true
				seen <- c.rest(head)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		defer pw.Close()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+way(t, app.addr()).addr, pr)
		failed := make(chan error, 1)
		go func() {
			_, err := clientOf(t, 2).Do(req)
			failed <- err
		}()
		io.WriteString(pw, "abc")
		within(t, "request", begun)
		cancel()
		if m := within(t, "end of the request", seen); m.err == nil {
			t.Error(m)
		}
		within(t, "end of the visitor", failed)
	})
}

// A visitor that goes away while it waits ends the app's work.
func TestVisitorGone(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		begun, ended := make(chan bool, 1), make(chan bool, 1)
		p := way(t, listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if r.URL.Path == "/begun" {
				http.NewResponseController(w).Flush()
			}
			begun <- true
			<-r.Context().Done()
			ended <- true
		})))
		for _, request := range []string{
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /begun HTTP/1.1\r\nHost: a\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		} {
			for _, finish := range ends {
				v := visit(t, p.addr, request)
				within(t, "request", begun)
				finish(v)
				v.Close()
				within(t, "end of the app's request", ended)
				if strings.Contains(request, "/begun") {
					continue // Forward panics
				}
				if err := within(t, "end of the exchange", p.tried); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+p.addr, nil)
		if _, err := clientOf(t, 2).Do(req); err == nil {
			t.Error("HTTP/2: an answer")
		}
		within(t, "end of the app's request", ended)
	})
}
