package forward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/pkg/protocol"
)

const patience = 20 * time.Second

// front serves a new HTTP for target, as the tunnel's client does on streams, and
// returns its address.
func front(t *testing.T, target string, o Options) (addr string) {
	t.Helper()
	parsed, err := ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	f := New(parsed, o)
	s := httptest.NewUnstartedServer(f)
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	t.Cleanup(func() {
		s.Close()
		f.Close()
	})
	return s.Listener.Addr().String()
}

// exchange sends one request by hand.
func exchange(t *testing.T, addr string, lines ...string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func code(res *http.Response) string {
	return fmt.Sprint(res.StatusCode, " ", res.Header.Get(protocol.HeaderError))
}

// app is a local app: HTTP/1.1 and HTTP/2 without TLS.
func app(t *testing.T, handler http.HandlerFunc) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveApp(t, l, handler)
	return l.Addr().String()
}

func serveApp(t *testing.T, l net.Listener, handler http.HandlerFunc) {
	s := &http.Server{Handler: handler, DisableGeneralOptionsHandler: true, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		serving.Wait()
	})
}

// seen answers with what the app has seen.
func seen(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s Host=%s", r.Proto, r.Method, r.RequestURI, r.Host)
	for _, name := range []string{"User-Agent", "Accept-Encoding", "Te", protocol.HeaderRoute, protocol.HeaderError, "X-Forwarded-For"} {
		if v, ok := r.Header[name]; ok {
			fmt.Fprintf(w, " %s=%s", name, strings.Join(v, ","))
		}
	}
}

// The app gets the request as it came, whatever the target speaks.
func TestRequestsAsTheyCame(t *testing.T) { onEach(t, testRequestsAsTheyCame) }

func testRequestsAsTheyCame(t *testing.T, front frontFunc) {
	addr := app(t, seen)
	for _, c := range []struct{ target, proto string }{{addr, "HTTP/1.1"}, {"http://" + addr, "HTTP/1.1"}, {"h2c://" + addr, "HTTP/2.0"}} {
		at := front(t, c.target, Options{})
		for _, uri := range []string{"/", "/a;b/%2F//../c?x=1;y=%zz", "//a//b", `/a|b^"{}?c|d`, "/\xc3\xa9", "/?", "/a%20b#c", "*"} {
			for _, host := range []string{"demo.example.com", "DEMO.example.com.:8080", "localhost:3000", "[::1]:3000"} {
				method := "GET"
				if uri == "*" {
					method = "OPTIONS"
				}
				_, body := exchange(t, at, method+" "+uri+" HTTP/1.1", "Host: "+host, "Te: trailers", "Connection: Te", "X-Forwarded-For: 192.0.2.1",
					"Tunnel-Route: demo")
				want := fmt.Sprintf("%s %s %s Host=%s Te=trailers X-Forwarded-For=192.0.2.1", c.proto, method, uri, host)
				if body != want {
					t.Errorf("%s: the app saw %q, want %q", c.target, body, want)
				}
			}
		}
	}
}

func TestUnixSocket(t *testing.T) { onEach(t, testUnixSocket) }

func testUnixSocket(t *testing.T, front frontFunc) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveApp(t, l, seen)
	if res, body := exchange(t, front(t, "unix:"+path, Options{}), "GET /a HTTP/1.1", "Host: localhost"); body != "HTTP/1.1 GET /a Host=localhost" {
		t.Errorf("got %s %q", code(res), body)
	}
}

func TestHTTPS(t *testing.T) { onEach(t, testHTTPS) }

func testHTTPS(t *testing.T, front frontFunc) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(seen))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	target := "https://" + s.Listener.Addr().String()
	for kind, proto := range map[string]string{"text/plain": "HTTP/1.1", "application/grpc": "HTTP/2.0", "application/grpc+proto": "HTTP/2.0"} {
		log := new(rig.Buffer)
		at := front(t, target, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
		res, body := exchange(t, at, "POST / HTTP/1.1", "Host: demo.example.com", "Content-Length: 0", "Content-Type: "+kind)
		if code(res) != "502 app_bad_response" || body != "" || !strings.Contains(log.String(), "certificate") {
			t.Errorf("%s: got %s, the log is %s", kind, code(res), log)
		}
		at = front(t, target, Options{Insecure: true})
		if _, body := exchange(t, at, "POST / HTTP/1.1", "Host: demo.example.com", "Content-Length: 0", "Content-Type: "+kind); body != proto+" POST / Host=demo.example.com" {
			t.Errorf("%s: the app saw %q", kind, body)
		}
	}
}

// What gRPC needs: HTTP/2, both directions at once, and trailers.
func TestHTTP2(t *testing.T) { onEach(t, testHTTP2) }

func testHTTP2(t *testing.T, front frontFunc) {
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		rc := http.NewResponseController(w)
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			w.Write(b[:n])
			rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", r.Proto+" "+r.Trailer.Get("Ask"))
	})
	conn, err := net.Dial("tcp", front(t, "h2c://"+target, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: demo.example.com\r\nContent-Type: application/grpc\r\nTe: trailers\r\nConnection: Te\r\nTrailer: Ask\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	for _, next := range []string{"5\r\nworld\r\n", "0\r\nAsk: me\r\n\r\n"} { // each is answered before the next is sent
		if _, err := io.ReadFull(res.Body, b); err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, next)
	}
	if rest, err := io.ReadAll(res.Body); string(b)+string(rest) != "world" || err != nil {
		t.Errorf("got %q, %v", string(b)+string(rest), err)
	}
	if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "HTTP/2.0 me" {
		t.Errorf("the trailers are %q", res.Trailer)
	}
}

// R1: an HTTP/2 app that sends all bytes that it said, and resets its stream, has not
// ended its answer.
func TestHTTP2ResetAfterTheLastByte(t *testing.T) { onEach(t, testHTTP2ResetAfterTheLastByte) }

func testHTTP2ResetAfterTheLastByte(t *testing.T, front frontFunc) {
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "four")
		http.NewResponseController(w).Flush()
		if r.URL.Path == "/reset" {
			panic(http.ErrAbortHandler)
		}
	})
	addr := front(t, "h2c://"+target, Options{})
	for path, cut := range map[string]bool{"/": false, "/reset": true} {
		res, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if (err != nil) != cut || !cut && string(body) != "four" {
			t.Errorf("%s: got %q, %v", path, body, err)
		}
	}
}

// HTTP/2 has no upgrades: WebSocket goes to the same app by HTTP/1.1.
func TestUpgradeToHTTP2App(t *testing.T) { onEach(t, testUpgradeToHTTP2App) }

func testUpgradeToHTTP2App(t *testing.T, front frontFunc) {
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(500)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
	})
	res, body := exchange(t, front(t, "h2c://"+target, Options{}), "GET / HTTP/1.1", "Host: demo.example.com", "Connection: Upgrade", "Upgrade: echo")
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" || body != "" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

// S18: nothing in a request, and no answer of the app, changes what is dialled.
func TestWhatIsDialled(t *testing.T) { onEach(t, testWhatIsDialled) }

func testWhatIsDialled(t *testing.T, front frontFunc) {
	var stray atomic.Int64
	victim := app(t, func(http.ResponseWriter, *http.Request) { stray.Add(1) })
	var requests atomic.Int64
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Location", "http://"+victim+"/")
		w.Header().Set("Alt-Svc", `h2="`+victim+`"`)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	const toApp, refused = "307 ", "400 bad_request"
	for _, scheme := range []string{"http://", "h2c://"} {
		at := front(t, scheme+target, Options{})
		for _, c := range []struct{ request, host, want string }{
			{"GET / HTTP/1.1", victim, toApp},
			{"GET //" + victim + "/ HTTP/1.1", victim, toApp},
			{"GET /@" + victim + "/ HTTP/1.1", victim, toApp},
			{"POST / HTTP/1.1\r\nContent-Length: 0", victim, toApp},
			{"GET http://" + victim + "/ HTTP/1.1", victim, refused},
			{"GET http:/" + victim + " HTTP/1.1", victim, refused},
			{"GET http:///" + victim + " HTTP/1.1", victim, refused},
			{"GET " + victim + " HTTP/1.1", victim, "400 "}, // net/http's own
			{"CONNECT " + victim + " HTTP/1.1", victim, refused},
			{"CONNECT / HTTP/1.1", victim, refused},
		} {
			if res, _ := exchange(t, at, c.request, "Host: "+c.host); code(res) != c.want {
				t.Errorf("%s, %q: got %s, want %s", scheme, c.request, code(res), c.want)
			}
		}
	}
	if requests.Load() != 8 || stray.Load() != 0 {
		t.Errorf("the app had %d requests, another %d, want 8 and 0", requests.Load(), stray.Load())
	}
}

// R42: each way of being down has its code. There is no body: it is the edge
// that makes the page.
func TestCodes(t *testing.T) { onEach(t, testCodes) }

func testCodes(t *testing.T, front frontFunc) {
	hanging := make(chan struct{})
	t.Cleanup(func() { close(hanging) })
	hang := app(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	abort := app(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for _, c := range []struct{ target, want string }{
		{closed.Addr().String(), "502 app_refused"},
		{"h2c://" + closed.Addr().String(), "502 app_refused"},
		{"https://" + closed.Addr().String(), "502 app_refused"},
		{"unix:" + filepath.Join(t.TempDir(), "none"), "502 app_refused"},
		{hang, "504 app_timeout"},
		{"h2c://" + hang, "504 app_timeout"},
		{abort, "502 app_bad_response"},
		{"h2c://" + abort, "502 app_bad_response"},
		{"https://" + abort, "502 app_bad_response"},
	} {
		done := make(chan Exchange, 1)
		limit := patience
		if strings.HasSuffix(c.target, hang) {
			limit = 50 * time.Millisecond
		}
		at := front(t, c.target, Options{Timeout: limit, Done: func(e Exchange) { done <- e }})
		res, body := exchange(t, at, "GET /path?query HTTP/1.1", "Host: demo.example.com")
		if code(res) != c.want || body != "" {
			t.Errorf("%s: got %s with %q, want %s", c.target, code(res), body, c.want)
		}
		e := <-done
		if fmt.Sprint(e.Status, " ", e.Code) != c.want || e.Method != "GET" || e.Path != "/path" || e.Bytes != 0 || e.Duration <= 0 {
			t.Errorf("%s: told of %+v", c.target, e)
		}
	}
}

func TestDone(t *testing.T) { onEach(t, testDone) }

func testDone(t *testing.T, front frontFunc) {
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/hint":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, "hello")
	})
	done := make(chan Exchange, 1)
	at := front(t, target, Options{Done: func(e Exchange) { done <- e }})
	for path, want := range map[string]Exchange{
		"/a%0d%0ab?secret": {Status: 200, Bytes: 5, Path: "/a%0d%0ab"},
		"/cut":             {Status: 200, Bytes: 5, Path: "/cut"},
		"/hint":            {Status: 418, Bytes: 5, Path: "/hint"},
	} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: demo.example.com\r\nConnection: close\r\n\r\n")
		io.Copy(io.Discard, c)
		c.Close()
		got := <-done
		want.Method, want.Duration = "GET", got.Duration
		if got != want {
			t.Errorf("told of %+v, want %+v", got, want)
		}
	}
}

// A visitor that goes away cancels the app's request, and is no failure.
func TestVisitorLeaves(t *testing.T) {
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		cancelled <- struct{}{}
	})
	for _, scheme := range []string{"http://", "h2c://"} {
		log := new(rig.Buffer)
		done := make(chan Exchange, 1)
		at := front(t, scheme+target, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Done: func(e Exchange) { done <- e }})
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n")
		<-arrived
		c.Close()
		<-cancelled
		if e := <-done; e.Status != 0 || e.Code != "" {
			t.Errorf("%s: told of %+v", scheme, e)
		}
		if log.String() != "" {
			t.Errorf("%s: the log is %s", scheme, log)
		}
	}
}

// The app's own Tunnel-Error would pass for the tunnel's.
func TestTunnelErrorOfTheApp(t *testing.T) { onEach(t, testTunnelErrorOfTheApp) }

func testTunnelErrorOfTheApp(t *testing.T, front frontFunc) {
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("tunnel-error", "app_refused")
		w.Header().Add("Tunnel-Error", "app_timeout")
		w.Header().Set("X-Kept", "yes")
		w.WriteHeader(http.StatusBadGateway)
	})
	for _, scheme := range []string{"http://", "h2c://"} {
		res, _ := exchange(t, front(t, scheme+target, Options{}), "GET / HTTP/1.1", "Host: demo.example.com")
		if _, ok := res.Header[protocol.HeaderError]; ok || res.StatusCode != 502 || res.Header.Get("X-Kept") != "yes" {
			t.Errorf("%s: got %d with %q", scheme, res.StatusCode, res.Header)
		}
	}
}

// Close leaves nothing behind but what is under way.
func TestClose(t *testing.T) {
	closed := make(chan struct{}, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveApp(t, &closingListener{l, closed}, seen)
	for _, scheme := range []string{"http://", "h2c://"} {
		target, _ := ParseTarget(scheme + l.Addr().String())
		f := New(target, Options{})
		s := httptest.NewServer(f)
		exchange(t, s.Listener.Addr().String(), "GET / HTTP/1.1", "Host: demo.example.com", "Connection: close")
		s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for done := false; !done; {
			f.Close() // net/http notes a little late that a connection is idle
			select {
			case <-closed:
				done = true
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: the connection to the app stays", scheme)
			}
		}
		cancel()
	}
}

// closingListener tells when the other end has closed a connection.
type closingListener struct {
	net.Listener
	closed chan struct{}
}

func (l *closingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &closingConn{Conn: c, closed: l.closed}, nil
}

type closingConn struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *closingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.once.Do(func() { c.closed <- struct{}{} })
	}
	return n, err
}

// TestExpectIgnored: an app that knows no Expect gets the body in the end.
func TestExpectIgnored(t *testing.T) { onEach(t, testExpectIgnored) }

func testExpectIgnored(t *testing.T, front frontFunc) {
	t.Parallel() // it waits for continueTimeout
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(c)
		for line := "-"; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		body := make([]byte, 5)
		io.ReadFull(r, body)
		fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n%s", body)
	}()
	c, err := net.Dial("tcp", front(t, l.Addr().String(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusContinue {
		t.Fatalf("got %v, %v; want 100", res, err)
	}
	io.WriteString(c, "hello")
	if res, err = http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "hello" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

// TestExpectRefusedOverHTTP2: no byte of the body goes to an app that has not
// accepted it (R28), nor does the visitor hear that it did.
func TestExpectRefusedOverHTTP2(t *testing.T) { onEach(t, testExpectRefusedOverHTTP2) }

func testExpectRefusedOverHTTP2(t *testing.T, front frontFunc) {
	decide := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-decide
		w.WriteHeader(http.StatusUnauthorized)
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c, err := net.Dial("tcp", front(t, "h2c://"+l.Addr().String(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes before the app decided", n)
	}
	close(decide)
	c.SetReadDeadline(time.Now().Add(patience))
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestIsGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;x=y": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/json": false, "": false,
	} {
		if isGRPC(contentType) != want {
			t.Errorf("%q: %v", contentType, !want)
		}
	}
}
