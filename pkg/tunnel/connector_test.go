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
	"github.com/revtun/tunnel/internal/rig/poll"
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
	if c.Log == nil && os.Getenv("TUNNEL_TEST_LOG") != "" {
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
	poll.Until(t, "all are counted out", func() bool { return d.Active() == 0 })
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
