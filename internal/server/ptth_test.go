package server_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// origin is an HTTP server that attaches itself by PTTH, with the standard library
// alone.
type origin struct {
	t        *testing.T
	conn     net.Conn
	http     *http.Server
	enforced string        // what the 101 confirmed
	served   chan struct{} // closed when the connection has ended
}

// askPTTH asks for PTTH with raw header lines, and returns the answer.
func (n *node) askPTTH(path string, lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ptth\r\n%s\r\n", path, strings.Join(append(lines, ""), "\r\n"))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return conn, r, res
}

// originPath lists the origins of names.
func (n *node) originPath(names ...string) string {
	_, port, _ := net.SplitHostPort(n.addr)
	var all []protocol.Origin
	for _, name := range names {
		all = append(all, protocol.Origin{Scheme: "http", Host: name, Port: port})
	}
	return protocol.PTTHPath(all)
}

// attach serves app for the origins of names, by what alpn says.
func (n *node) attach(token, alpn string, app http.Handler, names ...string) *origin {
	n.t.Helper()
	return n.attachBy(app, names, "ALPN: "+alpn, "Authorization: Bearer "+token)
}

// attachBy is attach by header lines.
func (n *node) attachBy(app http.Handler, names []string, lines ...string) *origin {
	n.t.Helper()
	conn, r, res := n.askPTTH(n.originPath(names...), lines...)
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		n.t.Fatalf("attach %q: %s: %s", names, res.Status, body)
	}
	conn.SetDeadline(time.Time{})
	o := &origin{t: n.t, enforced: res.Header.Get(protocol.HeaderPolicy), served: make(chan struct{})}
	o.conn = &readAhead{Conn: conn, r: r, closed: make(chan struct{})}
	o.http = &http.Server{Handler: app, Protocols: new(http.Protocols)}
	if res.Header.Get("ALPN") == "h2" {
		o.http.Protocols.SetUnencryptedHTTP2(true)
	} else {
		o.http.Protocols.SetHTTP1(true)
	}
	go func() {
		defer close(o.served)
		o.http.Serve(&oneConn{conn: o.conn})
		<-o.conn.(*readAhead).closed
	}()
	n.t.Cleanup(func() { o.conn.Close(); <-o.served })
	return o
}

// readAhead is a connection of which some bytes may have been read.
type readAhead struct {
	net.Conn
	r      *bufio.Reader
	closed chan struct{}
	once   sync.Once
	deaf   atomic.Bool // nothing that comes is heard any more
}

func (c *readAhead) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.deaf.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *readAhead) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// oneConn is a listener that has one connection to give.
type oneConn struct {
	conn net.Conn
	mu   sync.Mutex
	gave bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gave {
		return nil, net.ErrClosed
	}
	l.gave = true
	return l.conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func says(what string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", what, r.Method, r.Host, r.RequestURI, body)
	})
}

// answered waits until a request to host gets want.
func (n *node) answered(host, path, want string) {
	n.t.Helper()
	poll.Until(n.t, "the answer "+want, func() bool {
		_, body := n.get(host, path)
		return body == want
	})
}

// An origin attaches itself by each version of HTTP, and its visitors reach it.
func TestPTTH(t *testing.T) {
	for _, c := range []struct{ offer, chosen string }{{"h2", "h2"}, {"http%2F1.1", "http%2F1.1"}, {"http%2F1.1, h2", "h2"}} {
		t.Run(c.offer, func(t *testing.T) {
			n := start(t, server.Config{Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
			_, port, _ := net.SplitHostPort(n.addr)
			n.attach("token-of-ann", c.offer, says("I"), "demo.localhost", "second.localhost")
			for _, name := range []string{"demo.localhost", "second.localhost"} {
				host := net.JoinHostPort(name, port)
				n.answered(host, "/a%2Fb//c?x;y", "I GET "+host+" /a%2Fb//c?x;y ")
			}
		})
	}
}

func TestPTTHIsRefused(t *testing.T) {
	n := start(t, server.Config{
		Domain: "tunnel.test", Hold: time.Minute, Resolver: &zone{},
		Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\ntoken-of-bob name=bob-*\n"),
	})
	_, port, _ := net.SplitHostPort(n.addr)
	path := func(hosts ...string) string { return n.originPath(hosts...) }
	n.attach("token-of-ann", "h2", says("ann"), "taken.tunnel.test")
	bound := n.connect("", "token-of-ann", "")
	bound.must(bound.bind("bound"))
	ann, bob := "Authorization: Bearer token-of-ann", "Authorization: Bearer token-of-bob"
	long := make([]string, 10_000)
	for i := range long {
		long[i] = fmt.Sprintf("n%d.tunnel.test", i)
	}
	for name, c := range map[string]struct {
		path  string
		lines []string
		want  int
		says  string
	}{
		"null":                 {"/.well-known/ptth/null/", []string{ann, "ALPN: h2"}, 400, "of nobody"},
		"no origin":            {"/.well-known/ptth/", []string{ann, "ALPN: h2"}, 400, "list of origins"},
		"not encoded":          {"/.well-known/ptth/http://a.tunnel.test/", []string{ann, "ALPN: h2"}, 400, "percent-encoded"},
		"encoded twice":        {strings.ReplaceAll(path("a.tunnel.test"), "%", "%25"), []string{ann, "ALPN: h2"}, 400, "origin"},
		"a path in it":         {strings.ReplaceAll(path("a.tunnel.test"), "tunnel.test", "tunnel.test%2Fx"), []string{ann, "ALPN: h2"}, 400, "more than a host"},
		"a host with %00":      {strings.ReplaceAll(path("a.tunnel.test"), "tunnel", "%00tunnel"), []string{ann, "ALPN: h2"}, 400, ""},
		"10,000 origins":       {path(long...), []string{ann, "ALPN: h2"}, 431, ""},
		"101 origins":          {path(long[:101]...), []string{ann, "ALPN: h2"}, 400, "101 origins"},
		"no token":             {path("a.tunnel.test"), []string{"ALPN: h2"}, 401, ""},
		"a wrong token":        {path("a.tunnel.test"), []string{"Authorization: Bearer x", "ALPN: h2"}, 401, ""},
		"a wrong password":     {path("a.tunnel.test"), []string{"Authorization: Basic YW5uOng=", "ALPN: h2"}, 401, ""},
		"the token as user":    {path("a.tunnel.test"), []string{"Authorization: Basic dG9rZW4tb2YtYW5uOng=", "ALPN: h2"}, 401, ""},
		"no right":             {path("bob-1.tunnel.test", "ann.tunnel.test", "eve.tunnel.test"), []string{bob, "ALPN: h2"}, 403, "http://ann.tunnel.test:" + port},
		"a stranger's domain":  {path("a.example.org"), []string{ann, "ALPN: h2"}, 403, "_tunnel.a.example.org"},
		"the server itself":    {path("tunnel.test"), []string{ann, "ALPN: h2"}, 403, ""},
		"below a name":         {path("a.b.tunnel.test"), []string{ann, "ALPN: h2"}, 403, ""},
		"an address":           {path("127.0.0.1"), []string{ann, "ALPN: h2"}, 403, ""},
		"localhost":            {path("localhost"), []string{ann, "ALPN: h2"}, 403, ""},
		"another scheme":       {strings.ReplaceAll(path("a.tunnel.test"), "http%3A", "https%3A"), []string{ann, "ALPN: h2"}, 403, "http://a.tunnel.test:" + port},
		"another port":         {strings.ReplaceAll(path("a.tunnel.test"), port, "1"), []string{ann, "ALPN: h2"}, 403, "http://a.tunnel.test:" + port},
		"no ALPN":              {path("a.tunnel.test"), []string{ann}, 400, "ALPN"},
		"ALPN h3":              {path("a.tunnel.test"), []string{ann, "ALPN: h3"}, 406, "h2, http%2F1.1"},
		"another's":            {path("bob-1.tunnel.test", "taken.tunnel.test"), []string{bob, "ALPN: h2"}, 403, "taken"},
		"of a living session":  {path("bound.tunnel.test"), []string{ann, "ALPN: h2"}, 409, "bound"},
		"no upgrade":           {path("a.tunnel.test"), []string{ann, "ALPN: h2", "X: y"}, 426, ""},
		"an origin's own page": {path("a.tunnel.test"), []string{ann, "ALPN: h2", "Origin: http://evil.example"}, 400, "browser"},
	} {
		lines := c.lines
		var res *http.Response
		if name == "no upgrade" {
			r, _ := http.NewRequest("GET", "http://"+n.addr+c.path, nil)
			r.Host = "localhost"
			var err error
			if res, err = http.DefaultClient.Do(r); err != nil {
				t.Fatal(err)
			}
		} else {
			_, _, res = n.askPTTH(c.path, lines...)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var said protocol.Refusal
		if res.StatusCode != c.want || c.want != 431 && (json.Unmarshal(body, &said) != nil || said.Error == nil) || !strings.Contains(string(body), c.says) {
			t.Errorf("%s: got %s %s, want %d with %q", name, res.Status, body, c.want, c.says)
		}
		if said.Error != nil && (strings.Contains(said.Error.Hint, "--name") || c.want == 401 && !strings.Contains(said.Error.Hint, "field Authorization")) {
			t.Errorf("%s: the hint is for a client of ours: %s", name, said.Error.Hint)
		}
		if c.want == 401 && !strings.Contains(strings.Join(res.Header.Values("WWW-Authenticate"), ", "), "Basic") {
			t.Errorf("%s: got WWW-Authenticate %q", name, res.Header.Values("WWW-Authenticate"))
		}
	}
	// One that was refused leaves nothing behind.
	n.attach("token-of-bob", "h2", says("bob"), "bob-1.tunnel.test")
}

// A name that another identity has is 409, whatever else is on the list, and what came
// before it on the list is free again.
func TestPTTHConflict(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\ntoken-of-bob\n")})
	n.attach("token-of-ann", "h2", says("ann"), "anns.localhost")
	_, _, res := n.askPTTH(n.originPath("free.localhost", "anns.localhost"), "ALPN: h2", "Authorization: Bearer token-of-bob")
	if res.StatusCode != http.StatusConflict {
		t.Fatalf("got %s", res.Status)
	}
	n.attach("token-of-ann", "h2", says("ann"), "free.localhost")
	_, port, _ := net.SplitHostPort(n.addr)
	n.answered("free.localhost:"+port, "/", "ann GET free.localhost:"+port+" / ")
}

// Basic authentication with the token as password is as good as the bearer token.
func TestPTTHBasic(t *testing.T) {
	n := start(t, server.Config{Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("whoever", "token-of-ann")
	_, _, res := n.askPTTH(n.originPath("a.localhost"), "ALPN: h2", "Authorization: "+r.Header.Get("Authorization"))
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("ALPN") != "h2" || res.Header.Get("Upgrade") != "ptth" {
		t.Errorf("got %s %v", res.Status, res.Header)
	}
}

// Connections of one identity are a pool: of HTTP/1.1 each carries one request at a
// time, and when one has gone the others go on.
func TestPTTHPool(t *testing.T) {
	n := start(t, server.Config{Park: 10 * time.Second, Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	host := "pool.localhost:" + port
	begun, end := make(chan string, 10), make(chan struct{})
	app := func(id string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				begun <- id
				<-end
			}
			io.WriteString(w, id)
		})
	}
	var all []*origin
	for _, id := range []string{"1", "2", "3"} {
		all = append(all, n.attach("token-of-ann", "http%2F1.1", app(id), "pool.localhost"))
	}
	answers := make(chan string, 4)
	ask := func() {
		_, body := n.get(host, "/wait")
		answers <- body
	}
	seen := make(map[string]bool)
	for range 3 {
		go ask()
		seen[<-begun] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 requests went to %v", seen)
	}
	go ask() // waits for room
	close(end)
	for range 4 {
		<-answers
	}
	all[0].conn.Close()
	all[1].conn.Close()
	n.answered(host, "/", "3")
	for range 20 {
		if _, body := n.get(host, "/"); body != "3" {
			t.Fatalf("got %q", body)
		}
	}
	all[2].conn.Close()
	// None is left: the request waits until the origin is back.
	go func() {
		_, body := n.get(host, "/")
		answers <- body
	}()
	n.attach("token-of-ann", "h2", app("4"), "pool.localhost")
	if got := <-answers; got != "4" {
		t.Errorf("got %q", got)
	}
}

// A token that is taken away takes its origins along, as rights that shrink do (R41).
func TestPTTHRevoked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	n := start(t, server.Config{Auth: tokens(t, path, "token-of-ann\ntoken-of-bob\n")})
	a := n.attach("token-of-ann", "h2", says("ann"), "a.localhost")
	b := n.attach("token-of-bob", "h2", says("bob"), "b.localhost")
	c := n.attach("token-of-bob", "http%2F1.1", says("bob"), "c.localhost")
	if err := os.WriteFile(path, []byte("token-of-bob name=b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-a.served
	<-c.served
	_, port, _ := net.SplitHostPort(n.addr)
	n.answered("b.localhost:"+port, "/", "bob GET b.localhost:"+port+" / ")
	select {
	case <-b.served:
		t.Error("what the token may have still was taken away")
	default:
	}
}

// An origin that says GOAWAY lets finish what is under way; what comes meanwhile goes to
// its next connection.
func TestPTTHGoAway(t *testing.T) {
	n := start(t, server.Config{Park: 10 * time.Second, Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	host := "demo.localhost:" + port
	begun, end := make(chan struct{}), make(chan struct{})
	var asked atomic.Bool
	o := n.attach("token-of-ann", "h2", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			return // it came before the GOAWAY
		}
		close(begun)
		<-end
		io.WriteString(w, "first")
	}), "demo.localhost")
	answers := make(chan string, 1)
	go func() {
		_, body := n.get(host, "/")
		answers <- body
	}()
	<-begun
	shut := make(chan error)
	go func() { shut <- o.http.Shutdown(context.Background()) }()
	next := make(chan string, 1)
	go func() {
		// Go's server waits a moment before it refuses streams.
		for {
			_, body := n.get(host, "/")
			if body != "" {
				next <- body
				return
			}
		}
	}()
	n.attach("token-of-ann", "h2", says("second"), "demo.localhost")
	if got := <-next; !strings.HasPrefix(got, "second") {
		t.Errorf("got %q", got)
	}
	close(end)
	if got := <-answers; got != "first" {
		t.Errorf("got %q", got)
	}
	<-shut
}

// The server's end: origins of HTTP/2 hear GOAWAY, all are closed, and Run returns.
func TestPTTHServerEnds(t *testing.T) {
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	n := &node{t: t, addr: s.Addr().String()}
	a := n.attach("token-of-ann", "h2", says("a"), "a.localhost")
	b := n.attach("token-of-ann", "http%2F1.1", says("b"), "b.localhost")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-a.served
	<-b.served
}

// An origin that attaches again is the same for its visitors, also where the server
// does not know yet that the connection before is dead.
func TestPTTHComesBack(t *testing.T) {
	n := start(t, server.Config{Park: 10 * time.Second, Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	host := "demo.localhost:" + port
	// This one says what HTTP/2 has to say, and nothing afterwards.
	conn, r, res := n.askPTTH(n.originPath("demo.localhost"), "ALPN: h2", "Authorization: Bearer token-of-ann")
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res.Status)
	}
	preface := make([]byte, 24)
	if _, err := io.ReadFull(r, preface); err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		if head[3] == 6 { // PING, which is answered once
			conn.Write(append([]byte{0, 0, 8, 6, 1, 0, 0, 0, 0}, body...))
			break
		}
	}
	n.attach("token-of-ann", "h2", says("again"), "demo.localhost")
	n.answered(host, "/", "again GET "+host+" / ")
	for range 10 {
		if _, body := n.get(host, "/"); !strings.HasPrefix(body, "again") {
			t.Fatalf("got %q", body)
		}
	}
}

// Without tokens an origin is somebody of its own, whose name is free when it has gone.
func TestPTTHAnonymous(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute})
	n.attach(rand.Text(), "h2", says("a"), "demo.localhost")
	_, _, res := n.askPTTH(n.originPath("demo.localhost"), "ALPN: h2")
	if res.StatusCode != http.StatusConflict {
		t.Errorf("got %s", res.Status)
	}
	conn, _, res := n.askPTTH(n.originPath("free.localhost"), "ALPN: http%2F1.1")
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res.Status)
	}
	conn.Close()
	poll.Until(t, "the name to be free", func() bool {
		_, _, res := n.askPTTH(n.originPath("free.localhost"), "ALPN: h2")
		return res.StatusCode == http.StatusSwitchingProtocols
	})
}
