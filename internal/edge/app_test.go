package edge_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// R42: the local app is down in every way there is; the tunnel stays up.
func TestAppIsDown(t *testing.T) {
	released := make(chan struct{})
	hang := rawApp(t, func(*net.TCPConn) { <-released })
	t.Cleanup(func() { close(released) })
	closed := loopback(t)
	closed.Close()
	say := func(s string) string {
		return rawApp(t, func(c *net.TCPConn) { io.WriteString(c, s) })
	}
	addr := serve(t, server.Config{})
	publish(t, addr, "healthy", nil, seen("healthy"))
	for name, c := range map[string]struct{ target, want string }{
		"refuses":  {closed.Addr().String(), "502 app_refused"},
		"nosocket": {"unix:" + t.TempDir() + "/none", "502 app_refused"},
		"hangs":    {hang, "504 app_timeout"},
		"closes":   {say(""), "502 app_bad_response"},
		"resets":   {rawApp(t, func(c *net.TCPConn) { c.SetLinger(0) }), "502 app_bad_response"},
		"garbage":  {say("\x15\x03\x01\x00\x02\x02\x46"), "502 app_bad_response"},
		"ssh":      {say("SSH-2.0-OpenSSH_9.9\r\n"), "502 app_bad_response"},
		"half":     {say("HTTP/1.1 200 OK\r\nContent-Le"), "502 app_bad_response"},
		"http2":    {say("HTTP/2.0 200 OK\r\n\r\n"), "502 app_bad_response"},
		"switches": {say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), "502 app_bad_response"},
		"h2c":      {"h2c://" + say("HTTP/1.1 200 OK\r\n\r\n"), "502 app_bad_response"},
		"downh2c":  {"h2c://" + closed.Addr().String(), "502 app_refused"},
		"tls":      {"https://" + app(t, seen("app")), "502 app_bad_response"},
	} {
		publish(t, addr, name, nil, to(t, c.target, forward.Options{Timeout: 50 * time.Millisecond}))
		for _, request := range []string{"GET / HTTP/1.1", "POST / HTTP/1.1\r\nContent-Length: 0", "HEAD / HTTP/1.1"} {
			a := get(t, addr, request, "Host: "+name+".example.com", "Connection: close")
			if answered(a) != c.want {
				t.Errorf("%s, %s: got %s, want %s", name, request[:4], answered(a), c.want)
			}
			if strings.HasPrefix(request, "HEAD") != (a.body == "") {
				t.Errorf("%s, %s: the body is %q", name, request[:4], a.body)
			}
		}
	}
	if a := get(t, addr, "GET / HTTP/1.1", "Host: healthy.example.com"); answered(a) != "healthy" {
		t.Errorf("the healthy one: got %s", answered(a))
	}
}

// The session is the same after its app was down.
func TestAppComesUp(t *testing.T) {
	target, log := rig.FreePort(t), new(logs)
	addr := exposed(t, server.Config{Log: log.at(slog.LevelInfo)}, target, forward.Options{})
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != "502 app_refused" {
		t.Fatalf("got %s", answered(a))
	}
	up, err := net.Listen("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	listenOn(t, &http.Server{Handler: seen("app")}, up)
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != "app" {
		t.Errorf("got %s", answered(a))
	}
	if n := strings.Count(strings.Join(log.lines(), "\n"), `msg="session started"`); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// A refusal does not wait for a body that may never come.
func TestRefusalBeforeTheBody(t *testing.T) {
	l := loopback(t)
	l.Close()
	addr := exposed(t, server.Config{}, l.Addr().String(), forward.Options{})
	for host, want := range map[string]string{
		"nobody.example.com": "404 name_unknown", "demo.example.org": "421 wrong_host", "demo.example.com": "502 app_refused",
	} {
		for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
			v := visit(t, addr)
			v.send("POST / HTTP/1.1", "Host: "+host, framing)
			if a := v.receive("POST"); answered(a) != want || !a.Close {
				t.Errorf("%s, %s: got %s, close %v", host, framing, answered(a), a.Close)
			}
		}
	}
}

// R1: wherever a direct connection would show that an answer was cut off, so does
// the public one, also to who can only tell by how the connection ended.
func TestCutAnswers(t *testing.T) {
	const half = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name, answer string
		reset        bool // by the app; else it ends the connection
		cut          bool // the visitor is to see an error
	}{
		{"close-delimited, reset", half + "\r\nhalf", true, true},
		{"close-delimited, HTTP/1.0 app, reset", "HTTP/1.0 200 OK\r\n\r\nhalf", true, true},
		{"close-delimited", half + "\r\nhalf", false, false},
		{"length, reset", half + "Content-Length: 9\r\n\r\nhalf", true, true},
		{"length, ended early", half + "Content-Length: 9\r\n\r\nhalf", false, true},
		{"length", half + "Content-Length: 4\r\n\r\nhalf", false, false},
		{"chunked, reset", half + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true, true},
		{"chunked, ended early", half + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false, true},
		{"chunked, ended in a chunk", half + "Transfer-Encoding: chunked\r\n\r\n9\r\nhalf", false, true},
		{"chunked, ended before the last line", half + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", false, true},
		{"chunked", half + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			passed := make(chan struct{})
			target := rawApp(t, func(conn *net.TCPConn) {
				io.WriteString(conn, c.answer)
				<-passed
				if c.reset {
					conn.SetLinger(0)
				}
			})
			addr := exposed(t, server.Config{}, target, forward.Options{})
			for _, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
				v := visit(t, addr)
				v.send("GET / "+proto, "Host: demo.example.com", "Connection: close")
				got := make([]byte, 0, 1000)
				for !strings.Contains(string(got), "half") { // it is flushed before the app goes on
					n, err := v.r.Read(got[len(got):cap(got)])
					if got = got[:len(got)+n]; err != nil {
						t.Fatalf("%s: %v after %q", proto, err, got)
					}
				}
				passed <- struct{}{}
				rest, err := io.ReadAll(v.r)
				switch {
				case c.cut && !isReset(err):
					t.Errorf("%s: got %v after %q%q, want a reset", proto, err, got, rest)
				case !c.cut && err != nil:
					t.Errorf("%s: got %v, want an end", proto, err)
				}
			}
		})
	}
}

// R1, where the tunnel itself breaks: the client's connection amid the answer.
func TestAnswersCutByTheTunnel(t *testing.T) {
	addr := serve(t, server.Config{})
	way := newRelay(t, addr)
	target := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "1000")
		}
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	publish(t, way.addr, "demo", nil, to(t, target, forward.Options{}))
	var visitors []*visitor
	for _, request := range []string{"GET / HTTP/1.0", "GET / HTTP/1.1", "GET /length HTTP/1.0", "GET /length HTTP/1.1"} {
		v := visit(t, addr)
		v.send(request, "Host: demo.example.com", "Connection: close")
		visitors = append(visitors, v)
	}
	second := &http.Transport{Protocols: new(http.Protocols)}
	second.Protocols.SetUnencryptedHTTP2(true)
	defer second.CloseIdleConnections()
	req, _ := http.NewRequest("GET", "http://"+addr, nil)
	req.Host = "demo.example.com"
	res, err := second.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	half := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, half); err != nil {
		t.Fatal(err)
	}
	for _, v := range visitors {
		for line := ""; line != "\r\n"; { // to the end of the header
			if line, err = v.r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		v.r.Peek(1)
	}
	way.cut()
	for _, v := range visitors {
		if rest, err := io.ReadAll(v.r); !isReset(err) {
			t.Errorf("got %q and %v, want a reset", rest, err)
		}
	}
	if rest, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("HTTP/2: got %q and an end", rest)
	}
}

// Should the server be killed amid an answer that ends with its connection, the
// kernel is to reset it. That is arranged before, and undone at a clean end.
func TestLingerOfCloseDelimitedAnswers(t *testing.T) {
	r := newWatched()
	l := &lingering{Listener: loopback(t)}
	addr := listenOn(t, (&edge.HTTP{Registry: r, Domain: "example.com"}).Server(edge.Limits{}), l)
	pipe, app := io.Pipe()
	body, length := io.ReadCloser(pipe), int64(-1)
	bind(t, r, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: length, Body: body}, nil
	})
	v := visit(t, addr)
	v.send("GET / HTTP/1.0", "Host: demo.example.com")
	io.WriteString(app, "half")
	if b, err := v.r.Peek(1); err != nil {
		t.Fatal(err, b)
	}
	if got := l.seconds(); !slices.Equal(got, []int{0}) {
		t.Errorf("amid the answer: SetLinger was called with %v, want 0", got)
	}
	app.Close()
	io.Copy(io.Discard, v.r)
	if got := l.seconds(); !slices.Equal(got, []int{0, -1}) {
		t.Errorf("after it: SetLinger was called with %v, want 0 and -1", got)
	}
	// Where the length is known, or chunks tell, nothing is needed.
	for i, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
		body, length = io.NopCloser(strings.NewReader("four")), int64(4-5*i)
		get(t, addr, "GET / "+proto, "Host: demo.example.com", "Connection: close")
	}
	if got := l.seconds(); len(got) != 2 {
		t.Errorf("SetLinger was called with %v", got)
	}
}

// lingering is a listener whose connections note SetLinger.
type lingering struct {
	net.Listener
	mu    sync.Mutex
	calls []int
}

func (l *lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{c.(*net.TCPConn), l}, nil
}

func (l *lingering) seconds() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

type lingeringConn struct {
	*net.TCPConn
	l *lingering
}

func (c *lingeringConn) SetLinger(seconds int) error {
	c.l.mu.Lock()
	c.l.calls = append(c.l.calls, seconds)
	c.l.mu.Unlock()
	return c.TCPConn.SetLinger(seconds)
}

// A visitor that leaves amid an answer is no event; an app that does is one.
func TestCutAnswersAreLogged(t *testing.T) {
	log := new(logs)
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Log: log.at(slog.LevelInfo)})
	closed := make(chan struct{}, 1)
	bodies := make(chan io.ReadCloser, 1)
	bind(t, r, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: closing{<-bodies, closed}}, nil
	})
	body, app := io.Pipe()
	bodies <- body
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: demo.example.com")
	io.WriteString(app, "half")
	v.r.Peek(1)
	app.CloseWithError(fmt.Errorf("%s\nforged", strings.Repeat("x", 10_000)))
	<-closed
	if got := strings.Join(log.lines(), "\n"); !strings.Contains(got, `msg="response cut off" name=demo`) || len(got) > 1000 {
		t.Errorf("the log is %q", got)
	}

	body, app = io.Pipe()
	bodies <- body
	v = visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: demo.example.com")
	io.WriteString(app, "half")
	v.r.Peek(1)
	v.SetLinger(0)
	v.Close()
	poll.Until(t, "the end of the answer", func() bool {
		io.WriteString(app, "more")
		return len(closed) > 0
	})
	if n := len(log.lines()); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// closing tells when a body is closed, which is after the log was written.
type closing struct {
	io.ReadCloser
	closed chan struct{}
}

func (c closing) Close() error {
	err := c.ReadCloser.Close()
	select {
	case c.closed <- struct{}{}:
	default:
	}
	return err
}

var _ registry.Registry = (*watched)(nil)
