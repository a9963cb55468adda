package server_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a server that runs for a test.
type node struct {
	t    *testing.T
	addr string
	stop context.CancelFunc // begins the drain
	done chan error         // Run's
}

func start(t *testing.T, c server.Config) *node {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Auth == nil {
		c.Auth = auth.Anonymous{}
	}
	if os.Getenv("TUNNEL_TEST_LOG") != "" && c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s)
}

// run runs s until the test ends.
func run(t *testing.T, s *server.Server) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{t: t, addr: s.Addr().String(), stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-n.done; err != nil {
			t.Error(err)
		}
	})
	return n
}

// tokens writes a token file and opens it.
func tokens(t *testing.T, path, content string) *auth.Tokens {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := auth.OpenTokens(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// client is the wire of a client: an upgraded session and its control stream.
type client struct {
	t       *testing.T
	id      string
	mux     mux.Session
	control mux.Stream
	welcome *protocol.Welcome
	gate    *gate
}

// gate is a client's connection that can be frozen: nothing is read.
type gate struct {
	net.Conn
	open sync.RWMutex
}

func (g *gate) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.open.RLock()
	defer g.open.RUnlock()
	return n, err
}

// dial upgrades a session without saying hello.
func (n *node) dial(id, token string) (*client, error) {
	n.t.Helper()
	if id == "" {
		id = rand.Text()
	}
	g := new(gate)
	d := &transport.Dialer{Server: &url.URL{Scheme: "http", Host: n.addr}, Token: token}
	d.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		g.Conn = conn
		return g, err
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	conn, err := d.Dial(ctx, transport.Raw, id)
	if err != nil {
		return nil, err
	}
	m, err := mux.Client(conn, mux.Config{})
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() { m.Close() })
	control, err := m.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &client{t: n.t, id: id, mux: m, control: control, gate: g}, nil
}

// connect makes a whole session; resume is the secret of the one before, which the server
// may still be letting go when its client has seen the end.
func (n *node) connect(id, token, resume string) *client {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := n.dial(id, token)
		if err != nil {
			n.t.Fatal(err)
		}
		c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Resume: resume}})
		m := c.read()
		if m.Welcome != nil {
			c.welcome = m.Welcome
			return c
		}
		if m.Bye == nil || !errors.Is(m.Bye.Error, &protocol.Error{Code: protocol.SessionTaken}) || time.Now().After(deadline) {
			n.t.Fatalf("no welcome but %+v, bye %+v", m, m.Bye)
		}
	}
}

func (c *client) send(m *protocol.Message) {
	c.t.Helper()
	if err := protocol.Write(c.control, m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() *protocol.Message {
	c.t.Helper()
	c.control.SetReadDeadline(time.Now().Add(20 * time.Second))
	m, err := protocol.Read(c.control)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// bind claims name and returns the answer.
func (c *client) bind(name string) *protocol.Bound {
	c.t.Helper()
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Name: name}})
	m := c.read()
	if m.Bound == nil || m.Bound.ID != 7 {
		c.t.Fatalf("no answer to bind but %+v", m)
	}
	return m.Bound
}

// must fails unless b has been granted.
func (c *client) must(b *protocol.Bound) *protocol.Bound {
	c.t.Helper()
	if b.Error != nil {
		c.t.Fatal(b.Error)
	}
	return b
}

// serve answers every request on the session with answer.
func (c *client) serve(answer string) {
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, answer+r.Header.Get(protocol.HeaderRoute))
	}))
}

type accepter struct{ mux.Session }

func (a accepter) Accept() (net.Conn, error) {
	s, err := a.Session.Accept()
	if err != nil {
		return nil, err
	}
	return s, nil
}
func (a accepter) Addr() net.Addr { return a.RemoteAddr() }

// get asks for path at host; the host is dialled nowhere.
func (n *node) get(host, path string) (*http.Response, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), "GET", "http://"+n.addr+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Host = host
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res, string(body)
}

func code(err error) protocol.Code {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestOwnHost(t *testing.T) {
	n := start(t, server.Config{Domain: "tunnel.test"})
	for _, host := range []string{"tunnel.test", "localhost", "127.0.0.1", "TUNNEL.test.:80"} {
		for path, want := range map[string]int{"/": 200, "/healthz": 200, "/readyz": 200, "/other": 404, protocol.PathPrefix + "abcdefghijklmnop": 426} {
			res, body := n.get(host, path)
			if res.StatusCode != want {
				t.Errorf("%s%s: status %d, want %d: %s", host, path, res.StatusCode, want, body)
			}
		}
	}
	if res, _ := n.get("localhost", "/other"); res.Header.Get(protocol.HeaderError) != string(protocol.NotFound) {
		t.Errorf("an unknown path has no code: %v", res.Header)
	}
	if res, _ := n.get("a.tunnel.test", "/healthz"); res.StatusCode != 404 || res.Header.Get(protocol.HeaderError) != string(protocol.NameUnknown) {
		t.Errorf("a tenant's host answers /healthz: %d", res.StatusCode)
	}
}

func TestRefusals(t *testing.T) {
	n := start(t, server.Config{MaxSessions: 1, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "correct-token\n")})
	if _, err := n.dial("", "wrong-token"); code(err) != protocol.Unauthorized {
		t.Errorf("wrong token: %v", err)
	}
	if _, err := n.dial("", ""); code(err) != protocol.Unauthorized {
		t.Errorf("no token: %v", err)
	}
	if _, err := n.dial("short", "correct-token"); code(err) != protocol.BadRequest {
		t.Errorf("short session id: %v", err)
	}
	first := n.connect("", "correct-token", "")
	if _, err := n.dial("", "correct-token"); code(err) != protocol.TooManySessions {
		t.Errorf("one session too many: %v", err)
	}
	again := n.connect(first.id, "correct-token", first.welcome.Resume) // it may come back
	if !again.welcome.Resumed {
		t.Error("the session was not resumed")
	}
	<-first.mux.Done()
}

// TestSessionsBeforeHello: they count, so that --max-sessions holds, and the
// server's end does not wait for them.
func TestSessionsBeforeHello(t *testing.T) {
	n := start(t, server.Config{MaxSessions: 2, Grace: time.Hour})
	for range 2 {
		if _, err := n.dial("", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.dial("", ""); code(err) != protocol.TooManySessions {
		t.Fatalf("the third connection: %v", err)
	}
	n.stop()
	select {
	case err := <-n.done:
		n.done <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute): // handshakes may take 5 s
		t.Fatal("the end waits for them")
	}
}

func TestRefusalIsJSON(t *testing.T) {
	n := start(t, server.Config{})
	res, body := n.get("localhost", protocol.PathPrefix+"abcdefghijklmnop")
	var refusal protocol.Refusal
	if err := json.Unmarshal([]byte(body), &refusal); err != nil || refusal.Error.Code != protocol.UpgradeRequired || res.Header.Get("Upgrade") == "" {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
}

// TestSlowHeaders: a visitor that does not finish a header is cut, whichever
// version it speaks (S7).
func TestSlowHeaders(t *testing.T) {
	n := start(t, server.Config{HeaderTimeout: 50 * time.Millisecond})
	for _, begin := range []string{"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, begin)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q: the connection stays", begin)
		}
	}
}
