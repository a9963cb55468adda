package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// tokenFile is an authenticator of two tokens.
func tokenFile(t *testing.T) *auth.Tokens {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("token-of-ann\ntoken-of-bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := auth.OpenTokens(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// rawApp is a local app that takes connections.
type rawApp struct {
	addr  string
	conns chan *net.TCPConn
}

func startRawApp(t *testing.T) *rawApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &rawApp{addr: l.Addr().String(), conns: make(chan *net.TCPConn, 1000)}
	t.Cleanup(func() {
		l.Close()
		for c := range a.conns {
			c.Close()
		}
	})
	go func() {
		defer close(a.conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.conns <- c.(*net.TCPConn)
		}
	}()
	return a
}

// next is the app's end of the next connection.
func (a *rawApp) next(t *testing.T) *net.TCPConn {
	t.Helper()
	c := wait(t, "a connection at the app", a.conns)
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// echo sends back what comes on each connection.
func (a *rawApp) echo() *rawApp {
	go func() {
		for c := range a.conns {
			go func() { io.Copy(c, struct{ io.Reader }{c}); c.Close() }()
		}
	}()
	return a
}

// exposePrivate claims name for app.
func exposePrivate(t *testing.T, c *tunnel.Client, name, app string) *tunnel.Listener {
	t.Helper()
	target, err := forward.ParseRawTarget(app, "tcp")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := c.Listen(ctx, tunnel.Options{Name: name, Kind: protocol.KindTCP, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	raw := forward.NewRaw(target, forward.RawOptions{})
	served := make(chan struct{})
	go func() { defer close(served); l.ServeConns(context.Background(), raw.ServeConn) }()
	t.Cleanup(func() {
		finish(t, "Close at the end", func() { l.Close() })
		wait(t, "the end of serving", served)
	})
	return l
}

func connect(t *testing.T, c *tunnel.Client) *tunnel.Connector {
	t.Helper()
	if c.Log == nil && testing.Verbose() {
		c.Log = verbose(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := c.Connect(ctx, tunnel.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, "Close at the end", func() { d.Close() }) })
	return d
}

// tryDial dials with patience.
func tryDial(d *tunnel.Connector, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := d.Dial(ctx, name)
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

func mustDial(t *testing.T, d *tunnel.Connector, name string) net.Conn {
	t.Helper()
	c, err := tryDial(d, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// comesBack checks that an echo answers on c.
func comesBack(t *testing.T, c net.Conn, text string) {
	t.Helper()
	io.WriteString(c, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Errorf("%q came back as %q: %v", text, got, err)
	}
}

// private is an app behind a private endpoint "db", and a connector.
func private(t *testing.T, c server.Config) (*rawApp, *tunnel.Connector) {
	t.Helper()
	n := start(t, c)
	app := startRawApp(t)
	l := exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, "db", app.addr)
	if l.URL() != "private:db" {
		t.Errorf("URL %q", l.URL())
	}
	return app, connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
}

// Bytes both ways at once, each direction ends on its own (R16), and an abort stays
// one, in either direction (R17).
func TestConnectorPassesBytes(t *testing.T) {
	app, d := private(t, server.Config{Auth: tokenFile(t)})
	up, down := make([]byte, 3<<20), make([]byte, 5<<20)
	rand.Read(up)
	rand.Read(down)
	c := mustDial(t, d, "db")
	at := app.next(t)
	if got := c.RemoteAddr().String(); got != "private:db" {
		t.Errorf("remote address %q", got)
	}
	var both sync.WaitGroup
	both.Go(func() { c.Write(up); c.(interface{ CloseWrite() error }).CloseWrite() })
	both.Go(func() {
		if got, err := io.ReadAll(at); !bytes.Equal(got, up) || err != nil {
			t.Errorf("the app read %d bytes: %v", len(got), err)
		}
		at.Write(down) // after the end of the other direction
		at.CloseWrite()
	})
	if got, err := io.ReadAll(c); !bytes.Equal(got, down) || err != nil {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	both.Wait()

	c = mustDial(t, d, "db")
	at = app.next(t)
	io.WriteString(c, "a")
	io.ReadFull(at, make([]byte, 1))
	c.(interface{ Reset() error }).Reset()
	if _, err := at.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a reset the app read %v", err)
	}
	c = mustDial(t, d, "db")
	at = app.next(t)
	at.SetLinger(0)
	at.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the app's reset: %v", err)
	}
	c = mustDial(t, d, "db")
	c.SetReadDeadline(time.Unix(1, 0))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
}

func TestConnectorManyAtOnce(t *testing.T) {
	app, d := private(t, server.Config{})
	app.echo()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			c, err := tryDial(d, "db")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			comesBack(t, c, string(bytes.Repeat([]byte{byte(i)}, 10_000)))
		})
	}
	all.Wait()
	until(t, "all are counted out", func() bool { return d.Active() == 0 })
}

// As http.Transport has it.
func TestConnectorCarriesHTTP(t *testing.T) {
	n := start(t, server.Config{})
	web := &http.Server{Handler: hello}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(l)
	defer web.Close()
	exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, "web", l.Addr().String())
	d := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	tr := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		name, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return d.Dial(ctx, name)
	}}
	defer tr.CloseIdleConnections()
	for range 3 {
		res, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "hello" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
	if d.Active() != 1 {
		t.Errorf("%d connections, want one that is kept", d.Active())
	}
}

func TestConnectorErrors(t *testing.T) {
	_, d := private(t, server.Config{Auth: tokenFile(t)})
	n := start(t, server.Config{Auth: tokenFile(t), Hold: time.Minute})
	bob := &tunnel.Client{Server: n.url(), Token: "token-of-bob"}
	gone := exposePrivate(t, bob, "refusing", closedPort(t))
	theirs := connect(t, bob)
	mine := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	for _, test := range []struct {
		d    *tunnel.Connector
		name string
		code protocol.Code
	}{
		{d, "unknown", protocol.NameUnknown}, {mine, "refusing", protocol.NameUnknown}, {theirs, "refusing", protocol.AppRefused},
		{d, "not a name", protocol.NameInvalid}, {d, "", protocol.NameInvalid}, {d, "db:80", protocol.NameInvalid},
	} {
		if _, err := tryDial(test.d, test.name); codeOf(err) != test.code {
			t.Errorf("%q: %v, want %s", test.name, err, test.code)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Dial(ended, "db"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	gone.Close()
	if _, err := tryDial(theirs, "refusing"); codeOf(err) != protocol.NameUnknown {
		t.Errorf("after it was given back: %v", err)
	}
	if d.Active() != 0 || mine.Active() != 0 || theirs.Active() != 0 {
		t.Error("refused connections count as open")
	}
	d.Close()
	if _, err := tryDial(d, "db"); !errors.Is(err, net.ErrClosed) || !errors.Is(d.Err(), net.ErrClosed) {
		t.Errorf("after Close: %v; %v", err, d.Err())
	}
	if _, err := (&tunnel.Client{Server: n.url(), Token: "nobody's"}).Connect(t.Context(), tunnel.ConnectOptions{}); codeOf(err) != protocol.Unauthorized {
		t.Errorf("with a wrong token: %v", err)
	}
}

// The dialling of a connection ends with its context, while the client of the endpoint
// is away and the server waits for it; the session stays.
func TestConnectorDialCancelled(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Park: time.Hour})
	r := newRelay(t, n.addr)
	app := startRawApp(t).echo()
	told := newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: told.tell}, "db", app.addr)
	told.next(t, tunnel.Ready)
	d := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	r.lead("")
	r.cut()
	told.next(t, tunnel.Disconnected)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, "db"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the other client is away: %v", err)
	}
	parked := make(chan error, 1)
	go func() {
		c, err := tryDial(d, "db")
		if err == nil {
			comesBack(t, c, "parked")
			c.Close()
		}
		parked <- err
	}()
	until(t, "it is under way", func() bool { return d.Active() == 1 })
	r.lead(n.addr)
	if err := wait(t, "the parked connection", parked); err != nil {
		t.Errorf("once the other client was back: %v", err)
	}
}

// A connection whose session is lost before there was an answer goes by the next one:
// nothing of it has left but the wish for it.
func TestConnectorDialOutlivesSession(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Park: time.Hour})
	there, here := newRelay(t, n.addr), newRelay(t, n.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: there.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: here.url(), Token: "token-of-ann", Events: connecting.tell})
	exposing.next(t, tunnel.Ready)
	connecting.next(t, tunnel.Ready)
	there.lead("")
	there.cut()
	exposing.next(t, tunnel.Disconnected)
	parked := make(chan error, 1)
	go func() {
		c, err := tryDial(d, "db")
		if err == nil {
			comesBack(t, c, "parked")
			c.Close()
		}
		parked <- err
	}()
	until(t, "it is under way", func() bool { return d.Active() == 1 })
	here.cut()
	connecting.next(t, tunnel.Disconnected)
	connecting.next(t, tunnel.Reconnected)
	there.lead(n.addr)
	if err := wait(t, "the connection", parked); err != nil {
		t.Error(err)
	}
}

// Who waits for the server is told when the connector drains, or is closed.
func TestConnectorEndsWhileAway(t *testing.T) {
	n := start(t, server.Config{})
	for what, end := range map[string]func(*tunnel.Connector) error{
		"Drain": func(d *tunnel.Connector) error { return d.Drain(context.Background()) }, "Close": (*tunnel.Connector).Close,
	} {
		r := newRelay(t, n.addr)
		told := newEvents()
		d := connect(t, &tunnel.Client{Server: r.url(), Events: told.tell})
		told.next(t, tunnel.Ready)
		r.lead("")
		r.cut()
		told.next(t, tunnel.Disconnected)
		waiting := make(chan error, 1)
		go func() {
			_, err := tryDial(d, "db")
			waiting <- err
		}()
		select {
		case err := <-waiting:
			t.Errorf("%s: it did not wait: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
		finish(t, what, func() { end(d) })
		if err := wait(t, "Dial after "+what, waiting); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Dial says %v", what, err)
		}
	}
}

// R41: the token is taken away, and its connections end.
func TestConnectorRevoked(t *testing.T) {
	g := &guard{changed: make(chan struct{})}
	app, d := private(t, server.Config{Auth: g})
	app.echo()
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")
	g.revoked.Store(true)
	if _, err := tryDial(d, "db"); codeOf(err) != protocol.TokenRevoked {
		t.Errorf("before the session ends: %v", err)
	}
	g.changed <- struct{}{}
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection reads %v", err)
	}
	wait(t, "the connector's end", d.Done())
	if _, err := tryDial(d, "db"); codeOf(err) != protocol.TokenRevoked || codeOf(d.Err()) != protocol.TokenRevoked {
		t.Errorf("then: %v; %v", err, d.Err())
	}
}

// The server restarts: what was open is lost visibly, and a connection that is dialled
// meanwhile waits for the new one.
func TestConnectorReconnects(t *testing.T) {
	r := newRelay(t, "")
	before := start(t, server.Config{})
	r.lead(before.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: connecting.tell})
	exposing.next(t, tunnel.Ready)
	connecting.next(t, tunnel.Ready)
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")

	r.lead("")
	r.cut()
	before.stop()
	exposing.next(t, tunnel.Disconnected)
	connecting.next(t, tunnel.Disconnected)
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection that was lost reads %v", err)
	}
	c.Close()
	after := start(t, server.Config{})
	short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(short, "db"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the server is away: %v", err)
	}
	r.lead(after.addr)
	exposing.next(t, tunnel.Reconnected)
	comesBack(t, mustDial(t, d, "db"), "after")
	connecting.next(t, tunnel.Reconnected)
}

// The server drains: what is open goes on until its grace, and what comes meanwhile
// goes by the next server.
func TestConnectorServerDrains(t *testing.T) {
	r := newRelay(t, "")
	before, after := start(t, server.Config{Grace: time.Hour}), start(t, server.Config{})
	r.lead(before.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: connecting.tell})
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")
	r.lead(after.addr)
	stopped := make(chan struct{})
	go func() { defer close(stopped); before.stop() }()
	for _, e := range []events{exposing, connecting} {
		e.next(t, tunnel.Ready)
		e.next(t, tunnel.Draining)
		e.next(t, tunnel.Reconnected)
	}
	comesBack(t, mustDial(t, d, "db"), "by the next")
	comesBack(t, c, "meanwhile")
	select {
	case <-stopped:
		t.Error("the server did not wait for the connection")
	default:
	}
	c.Close()
	wait(t, "the drained server's end", stopped)
}

// R24: the ids of the connector's own streams run out, again and again: other sessions
// take over, no connection fails, and one that is open all the time goes on. A session
// that is not needed any more is ended.
func TestConnectorSessionIsRenewed(t *testing.T) {
	n := start(t, server.Config{})
	app := startRawApp(t).echo()
	exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, "db", app.addr)
	told := newEvents()
	client := &tunnel.Client{Server: n.url(), Token: "token-of-ann", Transport: tunnel.Raw, Events: told.tell}
	tunnel.LimitOpened(client, 64)
	d := connect(t, client)
	told.next(t, tunnel.Ready)
	kept := mustDial(t, d, "db")
	for round := range 4 {
		for i := 0; len(told) == 0; i++ {
			if i > 64 {
				t.Fatal("no other session was made")
			}
			c, err := tryDial(d, "db")
			if err != nil {
				t.Fatalf("round %d, connection %d: %v", round, i, err)
			}
			comesBack(t, c, "x")
			c.Close()
		}
		told.next(t, tunnel.Draining)
		told.next(t, tunnel.Reconnected)
		comesBack(t, kept, "still there")
	}
	until(t, "the sessions that are not needed have ended", func() bool { return tunnel.Sessions(d) == 2 })
	kept.Close()
	until(t, "the first session has ended, too", func() bool { return tunnel.Sessions(d) == 1 })
	comesBack(t, mustDial(t, d, "db"), "and it goes on")
}

// R24, on the other side: the session of the endpoint's client is renewed, and a
// connection that is open goes on.
func TestPrivateEndpointIsRenewed(t *testing.T) {
	n := start(t, server.Config{MaxStreams: 16})
	app := startRawApp(t).echo()
	told := newEvents()
	exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann", Transport: tunnel.Raw, Events: told.tell}, "db", app.addr)
	told.next(t, tunnel.Ready)
	d := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	kept := mustDial(t, d, "db")
	for range 3 {
		for i := 0; len(told) == 0; i++ {
			if i > 16 {
				t.Fatal("the session was not renewed")
			}
			c := mustDial(t, d, "db")
			comesBack(t, c, "x")
			c.Close()
		}
		told.next(t, tunnel.Draining)
		told.next(t, tunnel.Reconnected)
		comesBack(t, kept, "still there")
	}
}

// R20: beyond what the server lets a session have, Dial says so, and the rest goes on.
func TestConnectorCap(t *testing.T) {
	app, d := private(t, server.Config{})
	app.echo()
	var open []net.Conn
	var err error
	for err == nil && len(open) < 2000 {
		var c net.Conn
		if c, err = tryDial(d, "db"); err == nil {
			open = append(open, c)
		}
	}
	if codeOf(err) != protocol.Overloaded || len(open) < 100 {
		t.Errorf("after %d connections: %v", len(open), err)
	}
	comesBack(t, open[0], "the first")
	for _, c := range open {
		c.Close()
	}
	until(t, "there is room again", func() bool {
		c, err := tryDial(d, "db")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// R7: Drain takes nothing new, and waits for what is open.
func TestConnectorDrain(t *testing.T) {
	app, d := private(t, server.Config{})
	app.echo()
	c := mustDial(t, d, "db")
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := d.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a connection open: %v", err)
	}
	if _, err := tryDial(d, "db"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	comesBack(t, c, "meanwhile")
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(context.Background()) }()
	c.Close()
	if err := wait(t, "the end of draining", drained); err != nil {
		t.Error(err)
	}
}
