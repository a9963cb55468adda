package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// connector makes a session that may open streams to private endpoints.
func (n *node) connector(token string) *client {
	n.t.Helper()
	c, err := n.dial("", token)
	if err != nil {
		n.t.Fatal(err)
	}
	c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Connect: true}})
	if m := c.read(); m.Welcome == nil || !m.Welcome.Connect {
		n.t.Fatalf("no welcome to a connector but %+v", m)
	}
	return c
}

// bindPrivate claims a private endpoint.
func (c *client) bindPrivate(kind protocol.Kind, name string) *protocol.Bound {
	c.t.Helper()
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Kind: kind, Name: name, Private: true}})
	m := c.read()
	if m.Bound == nil || m.Bound.ID != 7 {
		c.t.Fatalf("no answer to bind but %+v", m)
	}
	return m.Bound
}

// echo answers each CONNECT with 200, what it was asked, and what comes.
func (c *client) echo(who string) {
	go func() {
		for {
			s, err := c.mux.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				r := bufio.NewReader(s)
				req, err := http.ReadRequest(r)
				if err != nil || req.Method != http.MethodConnect {
					return
				}
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\n\r\n%s:%s %s\n", who, req.RequestURI, req.Header.Get("Forwarded"))
				if _, err := io.Copy(s, r); err != nil {
					s.Reset()
				}
			}()
		}
	}()
}

// ask sends a request on a stream of its own, and returns the answer and what follows.
func (c *client) ask(request string) (mux.Stream, *http.Response, *bufio.Reader) {
	c.t.Helper()
	s, err := c.mux.Open(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.Close() })
	s.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(s, request)
	r := bufio.NewReader(s)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		c.t.Fatalf("%.60q: %v", request, err)
	}
	return s, res, r
}

func connectTo(name string) string {
	return "CONNECT " + name + " HTTP/1.1\r\nHost: " + name + "\r\n\r\n"
}

// line reads one.
func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(s, "\n")
}

func TestConnect(t *testing.T) {
	n := two(t, server.Config{})
	app := n.connect("", "token-of-ann", "")
	if b := app.must(app.bindPrivate(protocol.KindTCP, "db")); b.URL != "private:db" || b.Port != 0 {
		t.Errorf("bound %+v", b)
	}
	app.must(app.bindPrivate("", "web"))
	app.echo("ann")
	c := n.connector("token-of-ann")
	for _, name := range []string{"db", "web"} {
		s, res, r := c.ask(connectTo(name) + "early\n")
		if res.StatusCode != http.StatusOK || len(res.Header) != 0 {
			t.Fatalf("%s: %s %v", name, res.Status, res.Header)
		}
		if got := line(t, r); !strings.HasPrefix(got, "ann:"+name+` for="127.0.0.1:`) || strings.HasSuffix(got, `:0"`) {
			t.Errorf("the app was asked %q", got)
		}
		if got := line(t, r); got != "early" {
			t.Errorf("what came with the request arrived as %q", got)
		}
		io.WriteString(s, "late\n")
		s.CloseWrite()
		if rest, err := io.ReadAll(r); string(rest) != "late\n" || err != nil {
			t.Errorf("then %q, %v", rest, err)
		}
	}
	if res, _ := n.get("web.localhost", "/"); res.Header.Get(protocol.HeaderError) != string(protocol.NameUnknown) {
		t.Errorf("a private endpoint of kind HTTP has a public side: %s", res.Status)
	}
}

// S11, S13, S16, S18: who may connect reaches the private endpoints of its own owner,
// whatever it asks for, and is told the same of what is another's and of what there is
// not.
func TestConnectReachesNothingElse(t *testing.T) {
	private := newPrivate(t)
	names := &registry.Memory{}
	for _, name := range []string{"label", "custom.example.org", "private/label"} { // as routes of other kinds
		if _, err := names.Bind(t.Context(), &registry.Route{Name: name, Owner: ownerOf(t, "token-of-ann"), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
			t.Errorf("the route %s was dialled", name)
			return nil, net.ErrClosed
		}}); err != nil {
			t.Fatal(err)
		}
	}
	n := two(t, server.Config{TCPPorts: ports(t, 1), Registry: names})
	bob := n.connect("", "token-of-bob", "")
	bob.must(bob.bindPrivate(protocol.KindTCP, "db"))
	bob.must(bob.bind("bobs"))
	bob.echo("bob")
	ann := n.connect("", "token-of-ann", "")
	ann.must(ann.bind("demo"))
	ann.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Kind: protocol.KindTCP, Name: "port"}})
	port := ann.must(ann.read().Bound).Port
	ann.must(ann.bindPrivate(protocol.KindTCP, "mine"))
	ann.echo("ann")
	c := n.connector("token-of-ann")
	owner := ownerOf(t, "token-of-bob")
	for _, name := range []string{
		"db", "unknown", "label", "custom.example.org", "private/label", "bobs", "demo", "port", fmt.Sprint("tcp/", port), fmt.Sprint("udp/", port), "private/mine", "private/db",
		"private/" + owner + "/db", owner + "/db", "/" + owner + "/db", "../" + owner + "/db", "%2F" + owner + "%2Fdb",
		"demo.localhost", "mine:80", "mine.localhost", "localhost", "127.0.0.1:" + private, "[::1]:" + private, "localhost:" + private,
		"http://127.0.0.1:" + private + "/", "/", "*", "/.well-known/tunnel/abcdefghijklmnopqr", "MINE", "mine.", "mine%00", "-", strings.Repeat("a", 64),
	} {
		_, res, _ := c.ask("CONNECT " + name + " HTTP/1.1\r\nHost: mine\r\nTunnel-Route: mine\r\n\r\n")
		code := res.Header.Get(protocol.HeaderError)
		if res.StatusCode != http.StatusNotFound || code != string(protocol.NameUnknown) {
			if res.StatusCode != http.StatusBadRequest { // of the parser
				t.Errorf("CONNECT %s: %s, code %q", name, res.Status, code)
			}
		}
	}
	same := func(name string) string {
		_, res, r := c.ask(connectTo(name))
		var all strings.Builder
		res.Write(&all)
		rest, _ := io.ReadAll(r)
		return all.String() + string(rest)
	}
	if a, b := same("db"), same("dc"); a != b {
		t.Errorf("another's endpoint is told from one that is not there:\n%q\n%q", a, b)
	}
	if b := ann.bindPrivate(protocol.KindTCP, "db"); b.Error != nil {
		t.Errorf("another's endpoint is told from one that is not there when it is claimed: %v", b.Error)
	}
	for _, request := range []string{
		"GET mine HTTP/1.1\r\nHost: mine\r\n\r\n", "GET / HTTP/1.1\r\nHost: mine\r\n\r\n", "GET http://mine/ HTTP/1.1\r\nHost: mine\r\n\r\n",
		"POST mine HTTP/1.1\r\nHost: mine\r\nContent-Length: 2\r\n\r\nab", "connect mine HTTP/1.1\r\nHost: mine\r\n\r\n",
		"CONNECT mine HTTP/1.0\r\n\r\n", "CONNECT mine HTTP/1.1\r\nHost: mine\r\nX: " + strings.Repeat("x", 16<<10) + "\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		if _, res, _ := c.ask(request); res.StatusCode < 400 {
			t.Errorf("%.40q: %s", request, res.Status)
		}
	}
	if _, res, r := c.ask(connectTo("mine")); res.StatusCode != http.StatusOK || !strings.HasPrefix(line(t, r), "ann:mine ") {
		t.Errorf("after all that the own endpoint answers %s", res.Status)
	}
}

// newPrivate listens where nothing of the tunnel's may connect to, and returns its port.
func newPrivate(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			t.Error("the server dialled what it was told to")
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// ownerOf is what the names of token belong to.
func ownerOf(t *testing.T, token string) string {
	t.Helper()
	id, err := tokens(t, filepath.Join(t.TempDir(), "tokens"), token+"\n").Authenticate(token, "")
	if err != nil {
		t.Fatal(err)
	}
	return id.ID
}

// A client that did not say that it would open streams loses its session by it, as
// ever, and so does one that opens them before its hello.
func TestStreamWithoutConnect(t *testing.T) {
	n := two(t, server.Config{})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindTCP, "db"))
	app.echo("ann")
	c := n.connect("", "token-of-ann", "")
	if c.welcome.Connect {
		t.Error("the welcome grants what was not asked for")
	}
	s, err := c.mux.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, connectTo("db"))
	if m := c.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.ProtocolViolation {
		t.Errorf("told %+v", m)
	}
	if got, err := io.ReadAll(s); len(got) > 0 || err == nil {
		t.Errorf("the stream was answered %q", got)
	}
	early, err := n.dial("", "token-of-ann")
	if err != nil {
		t.Fatal(err)
	}
	first, err := early.mux.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(first, connectTo("db"))
	first.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(first); len(got) > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stream before the hello was answered %q, %v", got, err)
	}
}

// R20: one connection more than a session may have is told so, and the others stay.
// What a client opens beyond what is counted is reset, and its session stays, too.
func TestConnectCap(t *testing.T) {
	n := two(t, server.Config{})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindTCP, "db"))
	app.echo("ann")
	c := n.connector("token-of-ann")
	first, _, r := c.ask(connectTo("db"))
	line(t, r)
	for i := 1; i < server.MaxConnects; i++ {
		if _, res, _ := c.ask(connectTo("db")); res.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %s", i+1, res.Status)
		}
	}
	if _, res, _ := c.ask(connectTo("db")); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get(protocol.HeaderError) != string(protocol.Overloaded) {
		t.Errorf("one more: %s %v", res.Status, res.Header)
	}
	// Of those that say nothing some have places, and the rest is reset.
	resets := make(chan struct{}, server.SpareConnects+10)
	for range cap(resets) {
		s, err := c.mux.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		go func() {
			if _, err := s.Read(make([]byte, 1)); errors.Is(err, mux.ErrReset) {
				resets <- struct{}{}
			}
		}()
	}
	for range 10 {
		select {
		case <-resets:
		case <-time.After(20 * time.Second):
			t.Fatal("streams beyond what is counted are not reset")
		}
	}
	c.must(c.bindPrivate(protocol.KindTCP, "other")) // the session has no bye to read
	io.WriteString(first, "still\n")
	if got := line(t, r); got != "still" {
		t.Errorf("a connection that was there reads %q", got)
	}
	first.Close()
	poll.Until(t, "another finds room", func() bool {
		s, err := c.mux.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		io.WriteString(s, connectTo("db"))
		s.SetReadDeadline(time.Now().Add(20 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(s), nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
}

// S10: streams that are opened, ask and are reset at once, again and again, cost the
// server no more than the cap has it, and end nothing but themselves.
func TestConnectFlood(t *testing.T) {
	n := two(t, server.Config{Park: time.Minute, Hold: time.Minute})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindTCP, "db"))
	app.echo("ann")
	away := n.connect("", "token-of-ann", "")
	away.must(away.bindPrivate(protocol.KindTCP, "away"))
	away.mux.Close() // who asks for it waits
	c := n.connector("token-of-ann")
	before, most := runtime.NumGoroutine(), 0
	for i := range 20_000 {
		s, err := c.mux.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, connectTo([]string{"db", "away", "unknown", "b%00d"}[i%4])+strings.Repeat("x", 1000))
		s.Reset()
		if i%100 == 0 {
			most = max(most, runtime.NumGoroutine()-before)
		}
	}
	// Both clients are in this process: a stream has two goroutines at the server, one
	// or two at each of them.
	if limit := 8 * (server.MaxConnects + server.SpareConnects); most > limit {
		t.Errorf("%d goroutines, want %d at most", most, limit)
	}
	var kept mux.Stream
	poll.Until(t, "there is room again", func() bool {
		s, err := c.mux.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(s, connectTo("db"))
		res, err := http.ReadResponse(bufio.NewReader(s), &http.Request{Method: http.MethodConnect})
		if kept = s; err == nil && res.StatusCode == http.StatusOK {
			return true
		}
		s.Close()
		return false
	})
	kept.Close()
}

// R6: a server that drains lets the connections that are open finish, and takes no new
// one, also of a client that has not gone elsewhere.
func TestConnectWhileDraining(t *testing.T) {
	n := two(t, server.Config{Grace: time.Hour})
	app := n.connect("", "token-of-ann", "")
	app.must(app.bindPrivate(protocol.KindTCP, "db"))
	app.echo("ann")
	c := n.connector("token-of-ann")
	s, _, r := c.ask(connectTo("db"))
	line(t, r)
	n.stop()
	if m := c.read(); m.Drain == nil {
		t.Errorf("told %+v", m)
	}
	if _, res, _ := c.ask(connectTo("db")); res.Header.Get(protocol.HeaderError) != string(protocol.Draining) {
		t.Errorf("a new one: %s %v", res.Status, res.Header)
	}
	io.WriteString(s, "meanwhile\n")
	if got := line(t, r); got != "meanwhile" {
		t.Errorf("the one that is open reads %q", got)
	}
	s.CloseWrite()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("its end: %q, %v", rest, err)
	}
	err := <-n.done
	n.done <- err
}
