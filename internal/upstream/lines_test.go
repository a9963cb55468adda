package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
)

// tcpPair is a connection and its other end.
func tcpPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

// lineTo is a line to an origin that serves app.
func lineTo(t *testing.T, h2 bool, app http.Handler) (*Line, net.Conn) {
	t.Helper()
	here, there := tcpPair(t)
	return lineOn(t, h2, app, here, there), there
}

func lineOn(t *testing.T, h2 bool, app http.Handler, here, there net.Conn) *Line {
	t.Helper()
	s := &http.Server{Handler: app, Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true}
	s.Protocols.SetHTTP1(!h2)
	s.Protocols.SetUnencryptedHTTP2(h2)
	l := &onConn{conns: make(chan net.Conn, 1), ended: make(chan struct{})}
	l.conns <- there
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	line, err := NewLine(ctx, here, h2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(line.Close)
	return line
}

// linesTo is a pool with one line.
func linesTo(t *testing.T, h2 bool, app http.Handler) *Lines {
	t.Helper()
	line, _ := lineTo(t, h2, app)
	p := NewLines(0)
	if !p.Add(line) {
		t.Fatal("the line has left")
	}
	return p
}

// asked is a request as proxy.Forward sends it.
func asked(ctx context.Context, method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, "/", body).WithContext(ctx)
	r.RequestURI, r.Host = target, "demo.example.com"
	r.Header["User-Agent"] = nil
	r.Header.Set("X-Forwarded-Proto", "https")
	return r
}

func eachVersion(t *testing.T, f func(t *testing.T, h2 bool)) {
	for name, h2 := range map[string]bool{"h2": true, "h1": false} {
		t.Run(name, func(t *testing.T) { f(t, h2) })
	}
}

// What a visitor sends arrives as it was, in both versions (R26).
func TestLinePassesAll(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		type seen struct {
			method, uri, host, body string
			header, trailer         http.Header
			length                  int64
		}
		got := make(chan seen, 1)
		p := linesTo(t, h2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got <- seen{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer, r.ContentLength}
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header()["X-Twice"] = []string{"1", "2"}
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, "answer to "+string(body))
			w.Header().Set("X-Sum", "42")
		}))
		for _, c := range []struct{ method, target, body string }{
			{"GET", "/", ""}, {"GET", "//evil.example/a%2Fb/../c;d?x;y&z=%zz", ""}, {"OPTIONS", "*", ""}, {"PUT", "/p?", "some bytes"}, {"BREW", "/", strings.Repeat("long", 1<<17)},
		} {
			req := asked(t.Context(), c.method, c.target, strings.NewReader(c.body))
			if c.body == "" {
				req.Body, req.ContentLength = http.NoBody, 0
			}
			req.Header["X-Twice"] = []string{"a", "b"}
			var early []string
			res, err := p.RoundTripInterim(req, func(code int, h textproto.MIMEHeader) error {
				early = append(early, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			})
			if err != nil {
				t.Fatalf("%s %s: %v", c.method, c.target, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			s := <-got
			if s.method != c.method || s.uri != c.target || s.host != "demo.example.com" || s.body != c.body || s.length != int64(len(c.body)) || !slices.Equal(s.header["X-Twice"], []string{"a", "b"}) {
				t.Errorf("%s %s came as %s %s %s, %d bytes, %v", c.method, c.target, s.method, s.uri, s.host, len(s.body), s.header)
			}
			if len(s.header["User-Agent"]) > 0 || len(s.header["Accept-Encoding"]) > 0 {
				t.Errorf("fields were added: %v", s.header)
			}
			if err != nil || res.StatusCode != 202 || string(body) != "answer to "+c.body || !slices.Equal(res.Header["X-Twice"], []string{"1", "2"}) || res.Trailer.Get("X-Sum") != "42" {
				t.Errorf("%s %s: got %s %.60q %v %v, %v", c.method, c.target, res.Status, body, res.Header, res.Trailer, err)
			}
			if !slices.Equal(early, []string{"103 </style.css>; rel=preload"}) {
				t.Errorf("%s %s: interim answers %q", c.method, c.target, early)
			}
		}
		if p.Active() != 0 {
			t.Errorf("%d requests are under way", p.Active())
		}
	})
}

// HEAD, 204 and 304 have no body, and their line carries the next request.
func TestLineWithoutBody(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		p := linesTo(t, h2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(204)
			case "/304":
				w.WriteHeader(304)
			default:
				w.Header().Set("Content-Length", "5")
				io.WriteString(w, "hello")
			}
		}))
		for range 3 {
			for _, c := range []struct {
				method, target string
				status         int
				body           string
			}{{"HEAD", "/", 200, ""}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"GET", "/", 200, "hello"}} {
				res, err := p.RoundTrip(asked(t.Context(), c.method, c.target, nil))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != c.status || string(body) != c.body {
					t.Errorf("%s %s: got %s %q, %v", c.method, c.target, res.Status, body, err)
				}
			}
		}
	})
}

// A visitor who leaves ends the request at the origin.
func TestLineCancels(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		begun, ended := make(chan struct{}), make(chan struct{})
		p := linesTo(t, h2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
			close(ended)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		if _, err := p.RoundTrip(asked(ctx, "GET", "/", nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		<-ended
	})
}

// An upload that breaks off is an error at the origin, and its sender's fault here (R2).
func TestLineCutUpload(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		got := make(chan error, 1)
		p := linesTo(t, h2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			got <- err
		}))
		req := asked(t.Context(), "POST", "/", io.MultiReader(strings.NewReader("begin"), failing{}))
		req.ContentLength = -1
		if _, err := p.RoundTrip(req); !errors.Is(err, proxy.ErrRequestBody) {
			t.Errorf("got %v", err)
		}
		if err := <-got; err == nil {
			t.Error("the origin saw an end")
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the visitor has gone") }

// An origin that dies: before its answer a GET may be sent again and a POST may not (R5),
// and within it the body is no whole one (R1).
func TestLineLost(t *testing.T) {
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, c := range []struct {
			method string
			within bool
			again  bool
		}{{"GET", false, true}, {"POST", false, false}, {"GET", true, false}} {
			var there net.Conn
			var line *Line
			seen := make(chan struct{}) // closed when the origin may die
			line, there = lineTo(t, h2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.within {
					io.WriteString(w, "begin")
					w.(http.Flusher).Flush()
					<-seen
				}
				there.Close()
				<-r.Context().Done()
			}))
			p := NewLines(0)
			p.Add(line)
			res, err := p.RoundTrip(asked(t.Context(), c.method, "/", nil))
			close(seen)
			if c.within && err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil || errors.Is(err, ErrUnanswered) != c.again || errors.Is(err, ErrNotSent) {
				t.Errorf("%s, within %v: got %v", c.method, c.within, err)
			}
			<-line.Left()
			if _, err := p.RoundTrip(asked(t.Context(), "GET", "/", nil)); !errors.Is(err, ErrNotSent) {
				t.Errorf("without a line: got %v", err)
			}
		}
	})
}

// A connection of HTTP/1.1 that says anything unasked is closed: nobody knows whose it
// is (S2). One whose origin closes it is gone at once.
func TestLineSpeaksUnasked(t *testing.T) {
	for _, says := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", ""} {
		here, there := tcpPair(t)
		line, err := NewLine(t.Context(), here, false)
		if err != nil {
			t.Fatal(err)
		}
		p := NewLines(0)
		p.Add(line)
		go func() {
			r := bufio.NewReader(there)
			http.ReadRequest(r)
			io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}()
		res, err := p.RoundTrip(asked(t.Context(), "GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "ok" {
			t.Fatalf("got %q", body)
		}
		if io.WriteString(there, says); says == "" {
			there.Close()
		}
		<-line.Left()
		if _, err := p.RoundTrip(asked(t.Context(), "GET", "/", nil)); !errors.Is(err, ErrNotSent) {
			t.Errorf("%q: got %v", says, err)
		}
	}
}

// Requests beyond the connections of HTTP/1.1 wait in order, for 10 s; one that is given
// up leaves its turn to the next.
func TestLinesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan string)
		end := make(chan struct{})
		here, there := net.Pipe()
		line := lineOn(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun <- r.RequestURI
			<-end
		}), here, there)
		p := NewLines(5)
		p.Add(line)
		type result struct {
			target string
			err    error
		}
		results := make(chan result, 10)
		ask := func(ctx context.Context, target string) {
			go func() {
				res, err := p.RoundTrip(asked(ctx, "GET", target, nil))
				if err == nil {
					res.Body.Close()
				}
				results <- result{target, err}
			}()
			synctest.Wait()
		}
		given, giveUp := context.WithCancel(t.Context())
		ask(t.Context(), "/1")
		<-begun
		ask(t.Context(), "/2")
		ask(given, "/3")
		ask(t.Context(), "/4")
		ask(t.Context(), "/5")
		ask(t.Context(), "/6")
		if r := <-results; r.target != "/6" || !errors.Is(r.err, ErrOverloaded) {
			t.Errorf("one more than may wait: got %v", r)
		}
		giveUp()
		if r := <-results; r.target != "/3" || !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r)
		}
		for i, want := range []string{"/2", "/4"} {
			end <- struct{}{}
			if r := <-results; r.err != nil {
				t.Errorf("got %v", r)
			}
			if got := <-begun; got != want {
				t.Errorf("%d: %s came, want %s", i, got, want)
			}
		}
		since := time.Now()
		if r := <-results; r.target != "/5" || !errors.Is(r.err, ErrOverloaded) || time.Since(since) > lineWait {
			t.Errorf("got %v after %v", r, time.Since(since))
		}
		end <- struct{}{}
		<-results
		if p.Active() != 0 {
			t.Errorf("%d are under way", p.Active())
		}
	})
}
