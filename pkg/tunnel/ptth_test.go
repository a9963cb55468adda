package tunnel_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// proxyFor is a proxy that speaks PTTH, made of net/http and nothing else: what
// somebody else may have written.
type proxyFor struct {
	*httptest.Server
	// refuse answers request n instead; nil: all are granted.
	refuse func(n int, w http.ResponseWriter, r *http.Request) (done bool)
	alpn   []string // what it speaks, best first
	// enforces has it confirm who may visit, which it would have to see to.
	enforces bool

	mu    sync.Mutex // guards the following
	asked []*http.Request
	conns []*granted
	more  chan struct{} // closed and made anew when there is a connection
}

// granted is a connection on which the proxy sends requests.
type granted struct {
	*http.ClientConn
	raw  net.Conn
	alpn string
}

func newProxy(t *testing.T, alpn ...string) *proxyFor {
	p := &proxyFor{alpn: alpn, more: make(chan struct{})}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.Server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			c.raw.Close()
			c.Close()
		}
	})
	return p
}

func (p *proxyFor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r)
	if p.refuse != nil && p.refuse(len(p.asked), w, r) {
		return
	}
	var offered []string
	for one := range strings.SplitSeq(r.Header.Get("ALPN"), ",") {
		one, _ = url.PathUnescape(strings.TrimSpace(one))
		offered = append(offered, one)
	}
	at := slices.IndexFunc(p.alpn, func(a string) bool { return slices.Contains(offered, a) })
	if r.Header.Get("Upgrade") != "ptth" || !strings.HasPrefix(r.URL.Path, "/.well-known/ptth/") || at < 0 {
		http.Error(w, "no", http.StatusNotFound)
		return
	}
	raw, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	c := &granted{raw: raw, alpn: p.alpn[at]}
	granting := http.Header{"Connection": {"upgrade"}, "Upgrade": {"ptth"}, "Alpn": {url.PathEscape(c.alpn)}}
	if policy, err := protocol.ParsePolicy(r.Header); err == nil && p.enforces {
		policy.ConfirmPolicy(granting)
	}
	brw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	granting.Write(brw)
	brw.WriteString("\r\n")
	brw.Flush()
	t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return raw, nil }}
	if c.alpn == "h2" {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
	}
	if c.ClientConn, err = t.NewClientConn(context.Background(), "http", "app.test:80"); err != nil {
		panic(err)
	}
	p.conns = append(p.conns, c)
	close(p.more)
	p.more = make(chan struct{})
}

// conn waits for the nth connection by alpn, from 1.
func (p *proxyFor) conn(t *testing.T, alpn string, n int) *granted {
	t.Helper()
	for {
		p.mu.Lock()
		left, more := n, p.more
		for _, c := range p.conns {
			if c.alpn == alpn {
				if left--; left == 0 {
					p.mu.Unlock()
					return c
				}
			}
		}
		p.mu.Unlock()
		wait(t, fmt.Sprintf("connection %d of %s", n, alpn), more)
	}
}

// requests are those by which PTTH was asked for.
func (p *proxyFor) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// ask is a visitor's request.
func ask(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "http://app.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get sends a request on c and reads the answer.
func (c *granted) get(req *http.Request) (*http.Response, string, error) {
	res, err := c.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// attach serves origin by PTTH at p until the test ends.
func attach(t *testing.T, p *proxyFor, handler http.Handler) (b *tunnel.Backend, told events) {
	t.Helper()
	told = newEvents()
	c := &tunnel.Client{Server: p.URL, Token: "secret", Transport: tunnel.PTTH, Events: told.tell}
	if os.Getenv("TUNNEL_TEST_LOG") != "" {
		c.Log = verbose(t)
	}
	b, err := c.Attach(t.Context(), tunnel.Options{Origin: "https://app.test", Domains: []string{"www.app.test"}}, handler)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, "Close at the end", func() { b.Close() }) })
	return b, told
}

// held is a handler whose answers end when the test lets them.
type held struct {
	begun   chan string // the path of each request
	release chan struct{}
}

func newHeld() *held { return &held{make(chan string, 100), make(chan struct{})} }

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "begin ")
	http.NewResponseController(w).Flush()
	h.begun <- r.URL.Path
	select {
	case <-h.release:
		io.WriteString(w, "end")
	case <-r.Context().Done():
		h.begun <- "cancelled"
	}
}

func everything(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		buf := make([]byte, 4096)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			rc.Flush()
			if err != nil {
				return
			}
		}
	case "/hints":
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
		w.Header().Set("X-Sum", "in "+r.Trailer.Get("X-In"))
	case "/upgrade":
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotImplemented)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, brw)
	default:
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL)
	}
}

// A client serves what any proxy sends by PTTH, whichever version of HTTP that chose.
func TestPTTHServes(t *testing.T) {
	for _, alpn := range []string{"h2", "http/1.1"} {
		t.Run(alpn, func(t *testing.T) {
			p := newProxy(t, alpn)
			b, told := attach(t, p, http.HandlerFunc(everything))
			e := told.next(t, tunnel.Ready)
			if e.Transport != tunnel.PTTH || e.Protocol != alpn || e.URL != "https://app.test" || !slices.Equal(e.URLs, []string{"https://www.app.test"}) {
				t.Errorf("ready is %+v", e)
			}
			if b.URL() != e.URL || !slices.Equal(b.URLs(), e.URLs) {
				t.Errorf("the backend is at %q and %q", b.URL(), b.URLs())
			}
			asked := p.requests()[0]
			if asked.RequestURI != "/.well-known/ptth/https%3A%2F%2Fapp.test,https%3A%2F%2Fwww.app.test/" || asked.Header.Get("ALPN") != "h2, http%2F1.1" || asked.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("it asked for %s with %v", asked.RequestURI, asked.Header)
			}
			c := p.conn(t, alpn, 1)
			_, body, err := c.get(ask(t, "GET", "/x?y", nil))
			if err != nil || body != "GET app.test /x?y" {
				t.Fatalf("GET: %q, %v", body, err)
			}
			large := strings.Repeat("upload ", 200_000)
			if _, body, err = c.get(ask(t, "POST", "/echo", strings.NewReader(large))); err != nil || body != large {
				t.Errorf("POST: %d bytes, %v", len(body), err)
			}
			req := ask(t, "POST", "/trailers", io.NopCloser(strings.NewReader("text")))
			req.Trailer = http.Header{"X-In": {"7"}}
			if res, body, err := c.get(req); err != nil || body != "text" || res.Trailer.Get("X-Sum") != "in 7" {
				t.Errorf("trailers: %q, %+v, %v", body, res, err)
			}
			testHints(t, c)
			testStream(t, c)
		})
	}
}

// testStream: bytes come as they are written, in both directions at once.
func testStream(t *testing.T, c *granted) {
	reader, writer := io.Pipe()
	defer writer.Close()
	go io.WriteString(writer, "one")
	res, err := c.RoundTrip(ask(t, "POST", "/echo", reader))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "one" {
		t.Errorf("the first bytes are %q, %v", got, err)
	}
	res.Body.Close()
}

func testHints(t *testing.T, c *granted) {
	t.Helper()
	var hinted []string
	req := ask(t, "GET", "/hints", nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hinted = append(hinted, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
	}))
	if res, _, err := c.get(req); err != nil || res.StatusCode != 200 || !slices.Equal(hinted, []string{"103</a.css>"}) {
		t.Errorf("early hints: %v, %q", err, hinted)
	}
}

// A visitor who leaves ends the request, without whose end the app would not know.
func TestPTTHCancels(t *testing.T) {
	for _, alpn := range []string{"h2", "http/1.1"} {
		t.Run(alpn, func(t *testing.T) {
			p, h := newProxy(t, alpn), newHeld()
			attach(t, p, h)
			ctx, cancel := context.WithCancel(t.Context())
			res, err := p.conn(t, alpn, 1).RoundTrip(ask(t, "GET", "/a", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			wait(t, "the request", h.begun)
			cancel()
			if got := wait(t, "the end", h.begun); got != "cancelled" {
				t.Errorf("%s came instead", got)
			}
		})
	}
}

// Beside HTTP/2 stands a connection of HTTP/1.1, for what only that can do; as long as
// it is in use, another one.
func TestPTTHUpgrades(t *testing.T) {
	p := newProxy(t, "h2", "http/1.1")
	attach(t, p, http.HandlerFunc(everything))
	p.conn(t, "h2", 1)
	for n := 1; n <= 3; n++ {
		c := p.conn(t, "http/1.1", n)
		req := ask(t, "GET", "/upgrade", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := c.RoundTrip(req)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade %d: %v, %v", n, res, err)
		}
		both := res.Body.(io.ReadWriter)
		io.WriteString(both, "hello\n")
		if line, err := bufio.NewReader(both).ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("%q came back: %v", line, err)
		}
	}
}

// Without HTTP/2 there are four connections that wait for a request, beside those that
// have one.
func TestPTTHPool(t *testing.T) {
	p, h := newProxy(t, "http/1.1"), newHeld()
	defer close(h.release)
	attach(t, p, h)
	for n := 1; n <= 6; n++ {
		res, err := p.conn(t, "http/1.1", n).RoundTrip(ask(t, "GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	p.conn(t, "http/1.1", 10)
	if n := len(p.requests()); n != 10 {
		t.Errorf("it asked for %d connections, want 10", n)
	}
}

// A proxy that takes one connection only is served on that one.
func TestPTTHAlone(t *testing.T) {
	for _, alpn := range []string{"h2", "http/1.1"} {
		t.Run(alpn, func(t *testing.T) {
			p := newProxy(t, alpn)
			p.refuse = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					return false
				}
				w.WriteHeader(http.StatusConflict)
				return true
			}
			log := new(rig.Buffer)
			told := newEvents()
			c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH, Events: told.tell, Log: slog.New(slog.NewTextHandler(log, nil))}
			b, err := c.Attach(t.Context(), tunnel.Options{Origin: "https://app.test"}, hello)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			told.next(t, tunnel.Ready)
			poll.Until(t, "the log tells", func() bool { return strings.Contains(log.String(), "the proxy takes no") })
			for range 3 {
				if _, body, err := p.conn(t, alpn, 1).get(ask(t, "GET", "/", nil)); err != nil || body != "hello" {
					t.Errorf("%q, %v", body, err)
				}
			}
			told.none(t)
			if n := len(p.requests()); n != 2 {
				t.Errorf("it asked %d times", n)
			}
		})
	}
}

// What is lost is asked for again, and the events say so.
func TestPTTHReconnects(t *testing.T) {
	p := newProxy(t, "h2", "http/1.1")
	_, told := attach(t, p, hello)
	told.next(t, tunnel.Ready)
	// Whatever becomes of the spare one.
	if _, body, err := p.conn(t, "http/1.1", 1).get(ask(t, "GET", "/", nil)); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	p.conn(t, "h2", 1).raw.Close()
	if e := told.next(t, tunnel.Disconnected); e.Err == nil || !strings.Contains(e.Err.Error(), "closed the connection") {
		t.Errorf("the cause is %v", e.Err)
	}
	if e := told.next(t, tunnel.Reconnected); e.Transport != tunnel.PTTH || e.Protocol != "h2" {
		t.Errorf("back as %+v", e)
	}
	if _, body, err := p.conn(t, "h2", 2).get(ask(t, "GET", "/", nil)); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
}

// A proxy that has not noticed yet that the connection is lost says that the origin is
// taken: by this client.
func TestPTTHHeldByItself(t *testing.T) {
	p := newProxy(t, "h2")
	lost, again := make(chan struct{}), 0
	p.refuse = func(n int, w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-lost:
			if again++; again < 3 {
				w.WriteHeader(http.StatusConflict)
				return true
			}
			return false
		default:
			return false
		}
	}
	_, told := attach(t, p, hello)
	told.next(t, tunnel.Ready)
	c := p.conn(t, "h2", 1)
	close(lost)
	c.raw.Close()
	told.next(t, tunnel.Disconnected)
	told.next(t, tunnel.Reconnected)
}

// GOAWAY: the next connection is there while what is under way goes on.
func TestPTTHGoAway(t *testing.T) {
	p, h := newProxy(t, "h2"), newHeld()
	_, told := attach(t, p, h)
	told.next(t, tunnel.Ready)
	c := p.conn(t, "h2", 1)
	res, err := c.RoundTrip(ask(t, "GET", "/a", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	wait(t, "the request", h.begun)
	c.raw.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	told.next(t, tunnel.Draining)
	told.next(t, tunnel.Reconnected)
	p.conn(t, "h2", 2)
	close(h.release)
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begin end" {
		t.Errorf("%q, %v", body, err)
	}
	told.none(t)
}

// When its context ends, a client finishes what is under way, and takes nothing new.
func TestPTTHDrains(t *testing.T) {
	for name, alpn := range map[string][]string{"h2": {"h2"}, "http/1.1": {"http/1.1"}, "http/1.1 beside h2": {"h2", "http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			p, h := newProxy(t, alpn...), newHeld()
			told := newEvents()
			c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH, Events: told.tell, Grace: patience}
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- c.Serve(ctx, tunnel.Options{Origin: "http://app.test"}, h) }()
			told.next(t, tunnel.Ready)
			first, conn := p.conn(t, alpn[0], 1), p.conn(t, alpn[len(alpn)-1], 1)
			poll.Until(t, "the connection is served", func() bool { return first.alpn != "h2" || first.Available() > 1 })
			res, err := conn.RoundTrip(ask(t, "GET", "/a", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			wait(t, "the request", h.begun)
			cancel()
			told.next(t, tunnel.Draining)
			if first.alpn == "h2" {
				poll.Until(t, "GOAWAY has come", func() bool { return first.Err() != nil || first.Available() == 0 })
			}
			if conn != first {
				poll.Until(t, "that of HTTP/2 has ended", func() bool { return first.Err() != nil })
			}
			select {
			case err := <-served:
				t.Fatalf("Serve returned amid a request: %v", err)
			default:
			}
			close(h.release)
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begin end" {
				t.Errorf("%q, %v", body, err)
			}
			if err := wait(t, "Serve", served); err != nil {
				t.Error(err)
			}
			told.next(t, tunnel.Closed)
		})
	}
}

// A proxy that never began to speak does not hold up the end.
func TestPTTHDrainsSilence(t *testing.T) {
	addr := listener.TCP(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n")
			<-t.Context().Done()
		}
	})
	told := newEvents()
	c := &tunnel.Client{Server: "http://" + addr, Transport: tunnel.PTTH, Events: told.tell}
	b, err := c.Attach(t.Context(), tunnel.Options{Origin: "https://app.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	told.next(t, tunnel.Ready)
	finish(t, "Drain", func() { b.Drain(t.Context()) })
	finish(t, "Close", func() { b.Close() })
}
