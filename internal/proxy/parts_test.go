package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/mux"
)

// patience is how long a test waits for what must happen at once.
const patience = 30 * time.Second

// rawApp is a local app of bytes: serve gets each connection, and its number.
type rawApp struct {
	net.Listener
	mu    sync.Mutex
	conns []*appConn
	wg    sync.WaitGroup
}

type appConn struct {
	*net.TCPConn
	r *bufio.Reader
	n int // 0 for the first
}

func newApp(t testing.TB, serve func(*appConn)) *rawApp {
	t.Helper()
	l := loopback(t)
	a := &rawApp{Listener: l}
	a.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.mu.Lock()
			conn := &appConn{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), n: len(a.conns)}
			a.conns = append(a.conns, conn)
			a.mu.Unlock()
			a.wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.mu.Lock()
		for _, c := range a.conns {
			c.Close()
		}
		a.mu.Unlock()
		a.wg.Wait()
	})
	return a
}

func (a *rawApp) addr() string { return a.Addr().String() }

// accepted is how many connections there were.
func (a *rawApp) accepted() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns)
}

func (c *appConn) send(s string) error {
	_, err := io.WriteString(c, s)
	return err
}

// head reads a header section as it came, or "" at the connection's end.
func (c *appConn) head() string {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// message is what one side saw of the other, in a form that can be compared.
type message struct {
	line    string
	fields  []string // sorted by name; those of one name in their order
	body    string
	trailer []string
	err     error // of reading the body
}

// cut reports whether the body visibly ended before its end; a test that ran out
// of patience has not seen that.
func (m message) cut() bool { return m.err != nil && !errors.Is(m.err, os.ErrDeadlineExceeded) }

func (m message) String() string {
	body := m.body
	if len(body) > 100 {
		body = body[:100] + "..."
	}
	return fmt.Sprintf("%q %q %q %q %v", m.line, m.fields, body, m.trailer, m.err)
}

// request reads one request; ok is false at the connection's end.
func (c *appConn) request() (m message, ok bool) {
	head := c.head()
	return c.rest(head), head != ""
}

// rest reads what follows head.
func (c *appConn) rest(head string) (m message) {
	m.line, head, _ = strings.Cut(head, "\r\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(head))).ReadMIMEHeader()
	if err != nil {
		m.err = err
		return m
	}
	var body []byte
	switch {
	case h.Get("Transfer-Encoding") == "chunked":
		body, m.err = io.ReadAll(httputil.NewChunkedReader(c.r))
		if m.err == nil {
			var t textproto.MIMEHeader
			t, m.err = textproto.NewReader(c.r).ReadMIMEHeader()
			m.trailer = fields(http.Header(t))
		}
	case h.Get("Content-Length") != "":
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		body = make([]byte, n)
		n, m.err = io.ReadFull(c.r, body)
		body = body[:n]
	}
	m.body = string(body)
	m.fields = fields(http.Header(h))
	return m
}

// fields are without Connection, which is each hop's own.
func fields(h http.Header) []string {
	var all []string
	for name, values := range h {
		if name == "Connection" {
			continue
		}
		for _, v := range values {
			all = append(all, name+": "+v)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return all
}

// visitor is a connection to the first hop.
type visitor struct {
	*net.TCPConn
	r *bufio.Reader
	t testing.TB
}

func visit(t testing.TB, addr, send string) *visitor {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	v := &visitor{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), t: t}
	v.send(send)
	return v
}

func (v *visitor) send(s string) {
	v.t.Helper()
	if _, err := io.WriteString(v, s); err != nil {
		v.t.Fatalf("send: %v", err)
	}
}

// head reads a response's header.
func (v *visitor) head(method string) *http.Response {
	v.t.Helper()
	res, err := http.ReadResponse(v.r, &http.Request{Method: method})
	if err != nil {
		v.t.Fatalf("read the answer's header: %v", err)
	}
	return res
}

// message reads one response.
func (v *visitor) message(method string) message {
	v.t.Helper()
	return read(v.head(method))
}

func read(res *http.Response) message {
	m := message{line: strconv.Itoa(res.StatusCode), fields: fields(res.Header)}
	var b bytes.Buffer
	_, m.err = io.Copy(&b, res.Body)
	res.Body.Close()
	m.body, m.trailer = b.String(), fields(res.Trailer)
	if len(res.TransferEncoding) > 0 {
		m.fields = append(m.fields, "Transfer-Encoding: chunked")
	}
	return m
}

// next reads exactly what must come next.
func (v *visitor) next(want string) {
	v.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(v.r, got)
	if err != nil || string(got) != want {
		v.t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

type connKey struct{}

// listen serves h to visitors, over HTTP/1 and HTTP/2 with prior knowledge.
func listen(t testing.TB, h http.Handler) string {
	t.Helper()
	l := loopback(t)
	serve(t, l, h)
	return l.Addr().String()
}

func serve(t testing.TB, l net.Listener, h http.Handler) {
	s := &http.Server{
		Handler:                      h,
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ErrorLog: logOf(t),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}

// path is a way from visitors to an app.
type path struct {
	addr  string     // for visitors
	edge  *Transport // of the first hop
	local *Transport // of the last hop; edge where there is one
	tried chan error // errors of Forward at the first hop
}

// hop is a handler of Forward that tells its errors by status and header.
func hop(rt http.RoundTripper, o Options, tried chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := o
		if o.Abort == nil {
			o.Abort = func(error) {
				if l, ok := r.Context().Value(connKey{}).(interface{ SetLinger(int) error }); ok && r.ProtoMajor == 1 {
					l.SetLinger(0)
				}
			}
		}
		err := Forward(w, r, rt, o)
		select {
		case tried <- err:
		default:
		}
		if err != nil {
			w.Header().Set("Failed", nameOf(err))
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusBadGateway)
		}
	})
}

func nameOf(err error) string {
	for _, e := range []error{ErrNotSent, ErrBadResponse, ErrHeaderTimeout, ErrRequestBody, ErrInvalidRequest, context.Canceled} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}

func dialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
}

// oneHop leads to the app directly.
func oneHop(t testing.TB, app string) *path {
	tr := &Transport{Dial: dialer(app)}
	t.Cleanup(tr.CloseIdle)
	p := &path{edge: tr, local: tr, tried: make(chan error, 1000)}
	p.addr = listen(t, hop(tr, Options{}, p.tried))
	return p
}

type serveFunc func(testing.TB, net.Listener, http.Handler)

// servers are what may be at the end of the streams.
var servers = map[string]serveFunc{"two hops": serve, "two hops, served": serveConns}

// twoHops leads to the app over the streams of a session.
func twoHops(t testing.TB, app string) *path { return hopsOn(t, app, serve) }

// twoHopsServed is twoHops with a Server at the end, as in production.
func twoHopsServed(t testing.TB, app string) *path { return hopsOn(t, app, serveConns) }

func hopsOn(t testing.TB, app string, serve serveFunc) *path {
	t.Helper()
	server, client := sessions(t)
	local := &Transport{Dial: dialer(app)}
	serve(t, streams{client}, hop(local, Options{}, nil))
	edge := &Transport{Dial: func(ctx context.Context) (net.Conn, error) { return server.Open(ctx) }}
	t.Cleanup(func() { local.CloseIdle(); edge.CloseIdle() })
	p := &path{edge: edge, local: local, tried: make(chan error, 1000)}
	p.addr = listen(t, hop(edge, Options{}, p.tried))
	return p
}

// both runs a test over one hop and over two, on http.Server, on Server, and with a Tap.
func both(t *testing.T, test func(t *testing.T, way func(testing.TB, string) *path)) {
	t.Run("one hop", func(t *testing.T) { test(t, oneHop) })
	t.Run("two hops", func(t *testing.T) { test(t, twoHops) })
	t.Run("two hops, served", func(t *testing.T) { test(t, twoHopsServed) })
	t.Run("two hops, tapped", func(t *testing.T) { test(t, twoHopsTapped) })
}

// loopback listens for the test to close.
func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pair is both ends of a TCP connection.
func pair(t testing.TB) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l := loopback(t)
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func sessions(t testing.TB) (server, client mux.Session) {
	t.Helper()
	a, b := pair(t)
	var err error
	if client, err = mux.Client(a, mux.Config{}); err != nil {
		t.Fatal(err)
	}
	if server, err = mux.Server(b, mux.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return server, client
}

// streams is a session as a net.Listener.
type streams struct{ s mux.Session }

func (l streams) Accept() (net.Conn, error) { return l.s.Accept() }
func (l streams) Close() error              { return l.s.Close() }
func (l streams) Addr() net.Addr            { return l.s.RemoteAddr() }

// within fails the test unless c is ready in time.
func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// logOf passes on what net/http logs, where it tells of a panic.
func logOf(t testing.TB) *log.Logger { return log.New(panicLog{t}, "", 0) }

type panicLog struct{ t testing.TB }

func (l panicLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("panic")) {
		l.t.Errorf("net/http: %s", p)
	}
	return len(p), nil
}
