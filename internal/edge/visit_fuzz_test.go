package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/registry"
)

// fuzzVisitor is one connection of a visitor to the edge, in memory, with all that came
// of it. It is made for net/http's server: a read of one byte is that one's look-out
// for a visitor who leaves while a handler runs, and this visitor does not.
type fuzzVisitor struct {
	net.Conn

	mu    sync.Mutex // guards the following
	turn  sync.Cond  // on mu: in, woken or over has changed
	in    []byte
	long  bool // enough to begin with HTTP/2's preface, for which net/http looks byte by byte
	out   bytes.Buffer
	woken bool // a read deadline has passed
	over  bool
	ended chan struct{} // closed when nothing more will be written

	asked  []*http.Request // by the edge's handler, in their order
	passed map[int]*passed // by the index of asked

	transport *proxy.Transport // to the local app
	serving   sync.WaitGroup
}

// passed is a request that reached the local app.
type passed struct {
	route string
	r     *http.Request
	body  string
	whole bool // the body came to its end
}

type fuzzKey struct{}

func newFuzzVisitor(in []byte) *fuzzVisitor {
	v := &fuzzVisitor{in: in, long: len(in) >= len(preface), ended: make(chan struct{}), passed: make(map[int]*passed)}
	v.turn.L = &v.mu
	v.transport = &proxy.Transport{Dial: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		v.serving.Go(func() { (&proxy.Server{Handler: v.app}).ServeConn(far) })
		return near, nil
	}}
	return v
}

func (v *fuzzVisitor) Read(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(p) == 1 && len(v.in) == 0 && v.long && !v.woken && !v.over {
		v.turn.Wait()
	}
	switch {
	case v.over:
		return 0, net.ErrClosed
	case v.woken:
		return 0, os.ErrDeadlineExceeded
	case len(v.in) == 0:
		return 0, io.EOF
	}
	n := copy(p, v.in)
	v.in = v.in[n:]
	return n, nil
}

func (v *fuzzVisitor) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.out.Write(p)
}

// CloseWrite ends the test, too: net/http sleeps after it.
func (v *fuzzVisitor) CloseWrite() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.ended:
	default:
		close(v.ended)
	}
	return nil
}

func (v *fuzzVisitor) Close() error {
	v.CloseWrite()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	v.turn.Broadcast()
	return nil
}

func (v *fuzzVisitor) SetReadDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.woken = !t.IsZero() && t.Before(time.Now())
	v.turn.Broadcast()
	return nil
}

func (v *fuzzVisitor) SetDeadline(t time.Time) error    { return v.SetReadDeadline(t) }
func (v *fuzzVisitor) SetWriteDeadline(time.Time) error { return nil }
func (v *fuzzVisitor) LocalAddr() net.Addr              { return v.RemoteAddr() }
func (v *fuzzVisitor) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9} }

// app is the local app: it names the visitor's request that it answers.
func (v *fuzzVisitor) app(w http.ResponseWriter, r *http.Request) {
	if httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue") {
		w.WriteHeader(http.StatusContinue)
	}
	body, err := io.ReadAll(r.Body)
	v.mu.Lock()
	n := len(v.asked) - 1
	p := v.passed[n]
	p.r, p.body, p.whole = r, string(body), err == nil
	v.mu.Unlock()
	w.Header().Set("App-Answer", fmt.Sprint(n))
	io.WriteString(w, r.RequestURI)
}

// fuzzRoute is the client of one name, for every connection.
type fuzzRoute struct{ name string }

func (f fuzzRoute) RoundTrip(r *http.Request) (*http.Response, error) {
	v := r.Context().Value(fuzzKey{}).(*fuzzVisitor)
	v.mu.Lock()
	n := len(v.asked) - 1
	if v.passed[n] != nil {
		v.mu.Unlock()
		return nil, fmt.Errorf("request %d is sent twice", n)
	}
	v.passed[n] = &passed{route: f.name}
	v.mu.Unlock()
	return v.transport.RoundTrip(r)
}

// fuzzListener takes connections, until the fuzzing ends.
type fuzzListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (v *fuzzListener) Accept() (net.Conn, error) {
	select {
	case c := <-v.conns:
		return c, nil
	case <-v.done:
		return nil, net.ErrClosed
	}
}
func (v *fuzzListener) Close() error   { v.once.Do(func() { close(v.done) }); return nil }
func (v *fuzzListener) Addr() net.Addr { return new(net.TCPAddr) }

// fuzzEdge serves two tenants, "a" and "b", of example.com.
func fuzzEdge(f *testing.F) (h *HTTP, l *fuzzListener) {
	names := &registry.Memory{}
	for _, name := range []string{"a", "b"} {
		if _, err := names.Bind(context.Background(), &registry.Route{Name: name, HTTP: fuzzRoute{name}}); err != nil {
			f.Fatal(err)
		}
	}
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "own") })
	h = &HTTP{Registry: names, Own: own, Domain: "example.com", MaxURI: 4 << 10, MaxHeader: 8 << 10}
	s := h.Server(Limits{})
	withConn := s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(withConn(ctx, c), fuzzKey{}, c)
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := r.Context().Value(fuzzKey{}).(*fuzzVisitor)
		v.mu.Lock()
		v.asked = append(v.asked, r.Clone(context.Background()))
		v.mu.Unlock()
		h.ServeHTTP(w, r)
	})
	l = &fuzzListener{conns: make(chan net.Conn), done: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	f.Cleanup(func() {
		s.Close()
		serving.Wait()
	})
	return h, l
}

// FuzzVisit lets a visitor send anything on one connection to two tenants' edge,
// with the tunnel's two ends behind it: each request that the edge read reaches the
// local app once at most, of the tenant that its host names, as it was sent and with
// forwarding fields of ours alone; each answer is that of its request (S1-S5, S22).
func FuzzVisit(f *testing.F) {
	for _, in := range visitSeeds() {
		f.Add([]byte(strings.ReplaceAll(in, "\n", "\r\n")))
	}
	h, l := fuzzEdge(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.HasPrefix(in, []byte(preface[:len("PRI * HTTP/2.0")])) {
			return // what follows has no order
		}
		v := newFuzzVisitor(bytes.Clone(in))
		l.conns <- v
		select {
		case <-v.ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("the edge does not end the connection of %q", in)
		}
		v.transport.CloseIdle()
		v.serving.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		checkBodies(t, v, in)
		for i, p := range v.passed {
			if p.r != nil {
				checkPassed(t, h, v.asked[i], p)
			}
		}
		checkVisitorAnswers(t, v)
	})
}

// checkBodies reads what the visitor sent once more.
func checkBodies(t *testing.T, v *fuzzVisitor, in []byte) {
	t.Helper()
	r := bufio.NewReaderSize(bytes.NewReader(in), 1<<20)
	for i, asked := range v.asked {
		if i > 0 && v.asked[i-1].Method == http.MethodPost {
			// net/http's server skips some line ends there; a lone CR is for framing to refuse,
			// which is not on this path.
			for range 4 {
				if b, _ := r.Peek(1); len(b) == 1 && (b[0] == '\r' || b[0] == '\n') {
					r.Discard(1)
				}
			}
		}
		want, err := http.ReadRequest(r)
		if err != nil || want.Method != asked.Method || want.RequestURI != asked.RequestURI {
			t.Fatalf("request %d of %q is %s %q; reading it again gives %+v, %v", i, in, asked.Method, asked.RequestURI, want, err)
		}
		body, err := io.ReadAll(want.Body)
		if p := v.passed[i]; p != nil && p.r != nil && p.whole && (err != nil || p.body != string(body)) {
			t.Fatalf("request %d of %q: the app has the body %q as a whole, want %q, %v", i, in, p.body, body, err)
		}
		if err != nil && i < len(v.asked)-1 {
			t.Fatalf("a request follows number %d of %q, whose body is %v", i, in, err)
		}
	}
}

// checkPassed compares a request at the app with the visitor's.
func checkPassed(t *testing.T, h *HTTP, asked *http.Request, p *passed) {
	t.Helper()
	got := p.r
	name, own, ok := h.resolve(t.Context(), asked.Host)
	if !ok || own || name != p.route || got.Host != asked.Host {
		t.Fatalf("host %q came to the app of %s as %q", asked.Host, p.route, got.Host)
	}
	if again, ok := canonical(p.route + ".example.com"); !ok || again != p.route+".example.com" {
		t.Fatalf("%s is %q, %v", p.route, again, ok)
	}
	if got.Method != asked.Method || got.RequestURI != "*" && got.RequestURI[0] != '/' || !strings.HasSuffix(asked.RequestURI, strings.TrimPrefix(got.RequestURI, "/")) ||
		asked.URL.Host == "" && got.RequestURI != asked.RequestURI {
		t.Fatalf("%s %q came to the app as %s %q", asked.Method, asked.RequestURI, got.Method, got.RequestURI)
	}
	for name, want := range map[string]string{"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": asked.Host, "X-Forwarded-Proto": "http"} {
		if values := got.Header[name]; len(values) != 1 || values[0] != want {
			t.Fatalf("%s is %q, want %q", name, values, want)
		}
	}
	for name, values := range got.Header {
		ours := name == "X-Forwarded-For" || name == "X-Forwarded-Host" || name == "X-Forwarded-Proto"
		if !ours && (reserved(name) || !slices.Equal(values, asked.Header[name]) && name != "Te" && name != "Connection" && name != "Upgrade") {
			t.Fatalf("%s: %q came to the app, of %q", name, values, asked.Header[name])
		}
		if slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			t.Fatalf("%s: %q came to the app", name, values)
		}
	}
	for name := range got.Trailer {
		if reserved(name) || !httpguts.ValidTrailerHeader(name) {
			t.Fatalf("trailer %s came to the app", name)
		}
	}
}

// reserved reports whether an untrusted visitor may not send a field by this name:
// whatever stands between its words.
func reserved(name string) bool {
	words := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') })
	switch spelled := strings.Join(words, "-"); {
	case strings.HasPrefix(spelled, "x-forwarded"), spelled == "x-real-ip", spelled == "forwarded", len(words) > 1 && words[0] == "tunnel":
		return begins(name, "TtXxFf") // not "-x-real-ip", which nobody takes for ours
	}
	return false
}

// checkVisitorAnswers checks that the answers stand in the order of the requests.
func checkVisitorAnswers(t *testing.T, v *fuzzVisitor) {
	t.Helper()
	out := v.out.Bytes()
	r := bufio.NewReader(bytes.NewReader(out))
	for i := 0; ; {
		if _, err := r.Peek(1); err != nil {
			return
		}
		var asked *http.Request
		if i < len(v.asked) {
			asked = v.asked[i]
		}
		res, err := http.ReadResponse(r, asked)
		switch {
		case err != nil:
			t.Fatalf("answer %d: %v in %q", i, err, out)
		case res.StatusCode == http.StatusContinue:
			continue
		case asked == nil:
			if i > len(v.asked) || res.StatusCode/100 == 2 {
				t.Fatalf("answer %d, to nobody, is %q", i, out)
			}
		case res.Header["App-Answer"] != nil && res.Header.Get("App-Answer") != fmt.Sprint(i):
			t.Fatalf("answer %d is the app's to request %q", i, res.Header["App-Answer"])
		case res.StatusCode/100 == 2 && res.Header["App-Answer"] == nil && v.passed[i] != nil:
			t.Fatalf("request %d was passed on, and answered by another", i)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return // it was cut off, visibly
		}
		i++
	}
}

func visitSeeds() []string {
	const b = "GET /b HTTP/1.1\nHost: b.example.com\n\n"
	return []string{
		b, "GET /a HTTP/1.1\nHost: a.example.com\n\n" + b, "POST /a?x=1;y HTTP/1.1\nHost: A.Example.com.:80\nContent-Length: 5\n\nhello" + b,
		"POST /a HTTP/1.1\nHost: a.example.com\nTransfer-Encoding: chunked\nTrailer: X-A\n\n5;x\nhello\n0\nX-A: 1\nX-Forwarded-For: 2\nX_Real_IP: 3\n\n" + b,
		"POST /a HTTP/1.1\nHost: a.example.com\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\nGET /smuggled HTTP/1.1\nHost: b.example.com\n\n",
		"POST /a HTTP/1.1\nHost: a.example.com\nContent-Length: 9\n\nhello", "POST /a HTTP/1.1\nHost: a.example.com\nExpect: 100-continue\nContent-Length: 2\n\nok" + b,
		"POST /a HTTP/1.1\nHost: a.example.com\nContent-Length: 5\nContent-Length: 5\n\nhello" + b, "POST /a HTTP/1.1\nHost: a.example.com\nContent-Length : 5\n\nhello" + b,
		"GET http://a.example.com/x HTTP/1.1\nHost: b.example.com\n\n", "GET http://a.example.com?x HTTP/1.1\nHost: a.example.com\n\n" + b, "GET a.example.com:80 HTTP/1.1\nHost: a.example.com\n\n",
		"OPTIONS * HTTP/1.1\nHost: a.example.com\n\n" + b, "CONNECT a.example.com:80 HTTP/1.1\nHost: a.example.com\n\n" + b, "CONNECT /x HTTP/1.1\nHost: a.example.com\n\n",
		"GET / HTTP/1.1\nHost: a.example.com\nX-Forwarded-For: 1.2.3.4\nX_Forwarded_Host: evil\nForwarded: for=1\nTunnel-Route: b\nX-Real-Ip: 1\n\n" + b,
		"GET / HTTP/1.1\nHost: a.example.com\nConnection: X-Forwarded-For, Host, close\nX-A: 1\n\n" + b, "GET / HTTP/1.1\nHost: a.example.com\nA: b\n c\n\n" + b,
		"GET / HTTP/1.0\nHost: a.example.com\n\n" + b, "GET / HTTP/1.0\nHost: a.example.com\nConnection: keep-alive\n\n" + b, "HEAD / HTTP/1.1\nHost: a.example.com\n\n" + b,
		"GET / HTTP/1.1\nHost: a.example.com\nUpgrade: h2c, websocket\nConnection: upgrade\n\n" + b, "GET / HTTP/1.1\nHost: \u212a.example.com\n\n", "GET /a|b^c\"d\xc3\xa9 HTTP/1.1\nHost: a.example.com\n\n",
		"GET / HTTP/1.1\nHost: nobody.example.com\n\n" + b, "GET / HTTP/1.1\nHost: example.com\n\n" + b, "GET / HTTP/1.1\nHost: a.example.org\n\n" + b, "GET / HTTP/1.1\n\n", "\n\n" + b, "",
		"POST / HTTP/1.1\nHost: nobody.example.com\nContent-Length: 3\n\nabc" + b, "POST / HTTP/1.1\nHost: a.example.com\nTransfer-Encoding: gzip, chunked\n\n0\n\n" + b,
		"GET / HTTP/1.1\nHost: a.example.com\nTE: trailers\nUser-Agent:\nCookie: a=1\nCookie: b=2\nPragma: no-cache\n\n" + b, "GET http:/path HTTP/1.1\nHost: a.example.com\n\n",
	}
}
