package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// call makes one request on tr and reads the answer.
func call(t testing.TB, tr *Transport, method, body string) (string, error) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://a/", r)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	m := read(res)
	return m.line, m.err
}

// log of what an app saw, from many goroutines.
type record struct {
	mu   sync.Mutex
	seen []string
}

func (r *record) add(s string) {
	r.mu.Lock()
	r.seen = append(r.seen, s)
	r.mu.Unlock()
}

func (r *record) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// The app closes a kept connection just when the second request arrives on it: a
// request that nobody can tell from its repetition is repeated once, any other is
// not (R5).
func TestKeptConnectionEnds(t *testing.T) {
	for _, test := range []struct {
		method, body string
		again        bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true}, {"TRACE", "", true},
		{"POST", "", false}, {"POST", "x", false}, {"PUT", "x", false}, {"DELETE", "", false}, {"PATCH", "", false},
		{"GET", "x", false}, {"CUSTOM", "", false},
	} {
		for end, finish := range ends {
			for _, second := range []string{"answers", "ends too"} {
				t.Run(test.method+test.body+" "+end+", the second "+second, func(t *testing.T) {
					var seen record
					app := newApp(t, func(c *appConn) {
						for i := 0; ; i++ {
							m, more := c.request()
							if !more {
								return
							}
							seen.add(m.line)
							if c.n == 0 && i == 1 || c.n == 1 && second == "ends too" {
								finish(c)
								return
							}
							c.send("HTTP/1.1 204 No Content\r\n\r\n")
						}
					})
					tr := &Transport{Dial: dialer(app.addr())}
					defer tr.CloseIdle()
					if status, err := call(t, tr, "GET", ""); status != "204" {
						t.Fatal(status, err)
					}
					_, err := call(t, tr, test.method, test.body)
					if succeeds := test.again && second == "answers"; succeeds != (err == nil) {
						t.Error(err)
					}
					if err != nil && !errors.Is(err, ErrBadResponse) {
						t.Error(err)
					}
					want := []string{"GET / HTTP/1.1", test.method + " / HTTP/1.1"}
					if test.again {
						want = append(want, want[1])
					}
					if got := seen.all(); !slices.Equal(got, want) {
						t.Errorf("app saw %q, want %q", got, want)
					}
				})
			}
		}
	}
}

// A kept connection that has ended, or talks unasked, carries nothing any more.
func TestStale(t *testing.T) {
	for name, leave := range map[string]func(*appConn){
		"closed": func(c *appConn) {},
		"reset":  func(c *appConn) { c.SetLinger(0) },
		"junk":   func(c *appConn) { c.send(ok); c.head() },
	} {
		t.Run(name, func(t *testing.T) {
			release, left := make(chan bool), make(chan bool, 1)
			app := newApp(t, func(c *appConn) {
				m, more := c.request()
				if !more {
					return
				}
				c.send("HTTP/1.1 204 No Content\r\n\r\n")
				if c.n == 0 {
					<-release
					leave(c)
					c.CloseWrite()
					c.Close()
					left <- true
					return
				}
				_ = m
				c.head()
			})
			tr := &Transport{Dial: dialer(app.addr())}
			defer tr.CloseIdle()
			if status, err := call(t, tr, "GET", ""); status != "204" {
				t.Fatal(status, err)
			}
			kept := tr.idle[0].Conn
			close(release)
			if name != "junk" {
				within(t, "end", left)
			}
			poll.Until(t, "notice", func() bool { return stale(kept) })
			if status, err := call(t, tr, "POST", "x"); status != "204" {
				t.Error(status, err)
			}
			if n := app.accepted(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// Where the end of an idle connection can't be seen, one that is not fresh
// carries only what may be repeated.
func TestFresh(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			if _, more := c.request(); !more {
				return
			}
			c.send("HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	for _, test := range []struct {
		fresh        time.Duration
		method, body string
		conns        int
	}{
		{0, "POST", "x", 1}, {time.Nanosecond, "POST", "x", 2}, {time.Nanosecond, "POST", "", 2}, {time.Nanosecond, "GET", "x", 2},
		{time.Nanosecond, "GET", "", 1}, {time.Hour, "POST", "x", 1},
	} {
		tr := &Transport{Dial: dialer(app.addr()), Fresh: test.fresh}
		before := app.accepted()
		for _, m := range [][2]string{{"GET", ""}, {test.method, test.body}} {
			if status, err := call(t, tr, m[0], m[1]); status != "204" {
				t.Fatal(status, err)
			}
		}
		if n := app.accepted() - before; n != test.conns {
			t.Errorf("fresh %v, %s %q: %d connections, want %d", test.fresh, test.method, test.body, n, test.conns)
		}
		tr.CloseIdle()
	}
}

// brokenConn fails its second write, with n bytes of it sent.
type brokenConn struct {
	net.Conn
	n      int
	writes int
}

func (c *brokenConn) Write(p []byte) (int, error) {
	c.writes++
	if c.writes == 2 {
		n, _ := c.Conn.Write(p[:c.n])
		return n, errors.New("broken")
	}
	return c.Conn.Write(p)
}

// What has not left at all may be sent again, with its body; what left in part,
// only where nobody can tell.
func TestNotSent(t *testing.T) {
	for _, test := range []struct {
		method, body string
		sent         int
		err          error
	}{
		{"POST", "x", 0, nil}, {"GET", "", 0, nil}, {"GET", "", 5, nil},
		{"POST", "x", 5, ErrBadResponse}, {"POST", "", 5, ErrBadResponse},
	} {
		bodies := make(chan string, 10)
		app := newApp(t, func(c *appConn) {
			for {
				m, more := c.request()
				if !more {
					return
				}
				bodies <- m.body
				c.send("HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		dials := 0
		tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) {
			dials++
			c, err := dialer(app.addr())(ctx)
			if dials == 1 {
				c = &brokenConn{Conn: c, n: test.sent}
			}
			return c, err
		}}
		if status, err := call(t, tr, "GET", ""); status != "204" {
			t.Fatal(status, err)
		}
		<-bodies
		_, err := call(t, tr, test.method, test.body)
		if !errors.Is(err, test.err) {
			t.Errorf("%+v: %v", test, err)
		}
		if err == nil {
			if got := within(t, "request", bodies); got != test.body {
				t.Errorf("app received %q", got)
			}
		}
		tr.CloseIdle()
	}
}

// countingBody tells whether it was touched.
type countingBody struct{ reads, closes int }

func (b *countingBody) Read([]byte) (int, error) { b.reads++; return 0, io.EOF }
func (b *countingBody) Close() error             { b.closes++; return nil }

func TestDialFails(t *testing.T) {
	refused := errors.New("refused")
	tr := &Transport{Dial: func(context.Context) (net.Conn, error) { return nil, refused }}
	body := new(countingBody)
	req, _ := http.NewRequest("POST", "http://a/", body)
	if _, err := tr.RoundTrip(req); !errors.Is(err, ErrNotSent) || !errors.Is(err, refused) {
		t.Error(err)
	}
	if body.reads != 0 || body.closes != 1 {
		t.Errorf("%+v", body)
	}
}

// A body that nobody asked for is closed all the same.
func TestBodyClosed(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		c.head()
		c.send("HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n")
	})
	tr := &Transport{Dial: dialer(app.addr())}
	body := new(countingBody)
	req, _ := http.NewRequest("POST", "http://a/", body)
	req.Header.Set("Expect", "100-continue")
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 417 || body.reads != 0 || body.closes != 1 || len(tr.idle) != 0 {
		t.Errorf("%d, %+v, %d idle", res.StatusCode, body, len(tr.idle))
	}
}

// A GET that may have been seen is not "not sent", though its repetition was not.
func TestSentThenRefused(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		c.request()
		c.send("HTTP/1.1 204 x\r\n\r\n")
		c.request()
	})
	dials := 0
	tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, errors.New("refused")
		}
		return dialer(app.addr())(ctx)
	}}
	if status, err := call(t, tr, "GET", ""); status != "204" {
		t.Fatal(status, err)
	}
	if _, err := call(t, tr, "GET", ""); !errors.Is(err, ErrBadResponse) || errors.Is(err, ErrNotSent) || dials != 2 {
		t.Errorf("%v, %d dials", err, dials)
	}
}

// A session that ended is noticed before anything is sent on a kept stream of it.
func TestSessionGone(t *testing.T) {
	server, client := sessions(t)
	serve(t, streams{client}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	tr := &Transport{Dial: func(ctx context.Context) (net.Conn, error) { return server.Open(ctx) }}
	if status, err := call(t, tr, "GET", ""); status != "204" {
		t.Fatal(status, err)
	}
	client.Close()
	<-server.Done()
	body := new(countingBody)
	req, _ := http.NewRequest("POST", "http://a/", body)
	if _, err := tr.RoundTrip(req); !errors.Is(err, ErrNotSent) || body.reads > 0 {
		t.Errorf("%v, %d reads", err, body.reads)
	}
}

// Forward may be called again for a request that was not sent, and then leaves no
// trace of the failure.
func TestForwardAgain(t *testing.T) {
	bodies := make(chan string, 1)
	app := newApp(t, func(c *appConn) {
		m, _ := c.request()
		bodies <- m.body
		c.send(ok)
		c.head()
	})
	refused := &Transport{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }}
	tr := &Transport{Dial: dialer(app.addr())}
	defer tr.CloseIdle()
	addr := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := Forward(w, r, refused, Options{}); !errors.Is(err, ErrNotSent) {
			t.Error(err)
		}
		if err := Forward(w, r, tr, Options{}); err != nil {
			t.Error(err)
		}
	}))
	v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
	go func() {
		poll.Until(t, "connection", func() bool { return app.accepted() > 0 })
		app.mu.Lock()
		defer app.mu.Unlock()
		app.conns[0].send("HTTP/1.1 100 Continue\r\n\r\n")
	}()
	v.next("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
	if got := within(t, "request", bodies); got != "abc" {
		t.Errorf("app received %q", got)
	}
}

// What a transport reads after Forward has returned is not the request any more.
func TestReleased(t *testing.T) {
	var body io.Reader
	addr := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Forward(w, r, transport(func(out *http.Request) (*http.Response, error) {
			body = out.Body
			return nil, errors.New("no")
		}), Options{})
		if n, err := body.Read(make([]byte, 1)); n > 0 || !errors.Is(err, errReleased) {
			t.Errorf("read %d, %v", n, err)
		}
	}))
	visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").message("POST")
}

// Kept connections are used again, and only those that may be.
func TestReuse(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, test := range map[string]struct {
			request, answer string
			conns           int
		}{
			"GET":                {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ok, 1},
			"HEAD":               {"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 1},
			"204":                {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 x\r\n\r\n", 1},
			"chunks":             {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 1},
			"POST":               {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", ok, 1},
			"POST in chunks":     {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", ok, 1},
			"upgrade declined":   {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", ok, 1},
			"app closes":         {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 10},
			"old app":            {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.0 200 x\r\nContent-Length: 0\r\n\r\n", 10},
			"old app keeps":      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.0 200 x\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 1},
			"body of HEAD":       {"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", ok, 10},
			"body of 204":        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 x\r\n\r\nhi", 10},
			"body of 304":        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\nhi", 10},
			"more than declared": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ok + "!", 10},
			"two answers":        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ok + "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", 10},
			"after the chunks":   {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1 200", 10},
		} {
			t.Run(name, func(t *testing.T) {
				app := newApp(t, func(c *appConn) {
					for {
						if _, more := c.request(); !more {
							return
						}
						c.send(test.answer)
					}
				})
				v := visit(t, way(t, app.addr()).addr, "")
				method, _, _ := strings.Cut(test.request, " ")
				var first message
				for i := range 10 {
					v.send(test.request)
					m := v.message(method)
					if i == 0 {
						first = m
					}
					if m.err != nil || m.line != test.answer[9:12] || m.body != first.body {
						t.Fatalf("%v, at first %v", m, first)
					}
				}
				if n := app.accepted(); n != test.conns {
					t.Errorf("%d connections, want %d", n, test.conns)
				}
			})
		}
	})
}

// An upload that was answered early, or both ways at once, leaves no connection
// behind that another request would meet.
func TestNoReuse(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			if strings.HasPrefix(head, "POST") {
				c.send(ok)
				c.rest(head)
			} else {
				c.send("HTTP/1.1 204 x\r\n\r\n")
			}
		}
	})
	tr := &Transport{Dial: dialer(app.addr())}
	defer tr.CloseIdle()
	for range 5 {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "http://a/", pr)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if m := read(res); m.body != "hi" {
			t.Error(m)
		}
		pw.Close()
		if status, err := call(t, tr, "GET", ""); status != "204" {
			t.Error(status, err)
		}
	}
	if n := app.accepted(); n != 6 {
		t.Errorf("%d connections, want 6", n)
	}
}

// Nor does a connection on which the last of an upload is stuck, or was lost.
func TestNoReuseUnsent(t *testing.T) {
	answer := func(c net.Conn) {
		io.ReadFull(c, make([]byte, len("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")))
		io.WriteString(c, ok)
	}
	for name, app := range map[string]func(net.Conn){
		"stuck": func(c net.Conn) {
			answer(c)
			time.Sleep(time.Minute)
		},
		"lost": answer,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := pipe(0, app)
				if name == "lost" {
					dial := tr.Dial
					tr.Dial = func(ctx context.Context) (net.Conn, error) {
						c, err := dial(ctx)
						return &brokenConn{Conn: c}, err
					}
				}
				if status, err := call(t, tr, "POST", "x"); status != "200" {
					t.Error(status, err)
				}
				if n := len(tr.idle); n != 0 {
					t.Errorf("%d are kept", n)
				}
				tr.CloseIdle()
				time.Sleep(time.Minute) // the app's end
			})
		})
	}
}

func TestIdle(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			if _, more := c.request(); !more {
				return
			}
			c.send(ok)
		}
	})
	idle := func(tr *Transport) int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.idle)
	}
	// five makes five requests at once.
	five := func(tr *Transport) {
		var all []*http.Response
		for range 5 {
			req, _ := http.NewRequest("GET", "http://a/", nil)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, res)
		}
		for _, res := range all {
			read(res)
		}
	}
	t.Run("time", func(t *testing.T) {
		tr := &Transport{Dial: dialer(app.addr()), IdleTimeout: time.Millisecond}
		five(tr)
		poll.Until(t, "end of the idle connections", func() bool { return idle(tr) == 0 })
	})
	t.Run("number", func(t *testing.T) {
		tr := &Transport{Dial: dialer(app.addr()), MaxIdle: 2}
		five(tr)
		if n := idle(tr); n != 2 {
			t.Errorf("%d are kept", n)
		}
		tr.CloseIdle()
		if n := idle(tr); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}
