package transport

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/pkg/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const session = "0123456789abcdef"

// server is a tunnel server of which only the upgrade is there.
type server struct {
	*httptest.Server
	URL      *url.URL
	accepted chan accepted // each result of Accept
}

type accepted struct {
	conn net.Conn
	kind Kind
	err  error
	req  *http.Request
}

// newServer starts a server; start is (*httptest.Server).Start or StartTLS.
func newServer(t *testing.T, start func(*httptest.Server)) *server {
	t.Helper()
	s := &server{accepted: make(chan accepted, 1)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, kind, err := Accept(w, r)
		if e, ok := err.(*protocol.Error); ok {
			Refuse(w, e)
		}
		s.accepted <- accepted{conn, kind, err, r}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true // so that only the client's offer keeps it out
	start(s.Server)
	s.URL = mustParse(t, s.Server.URL)
	t.Cleanup(s.Close)
	return s
}

// next returns the server's end of the connection that was upgraded last.
func (s *server) next(t *testing.T) accepted {
	t.Helper()
	a := <-s.accepted
	if a.err != nil {
		t.Fatalf("accept: %v", a.err)
	}
	t.Cleanup(func() { a.conn.Close() })
	return a
}

// listen calls handle with each connection that arrives, until the test ends.
func listen(t *testing.T, handle func(net.Conn)) *url.URL {
	t.Helper()
	return &url.URL{Scheme: "http", Host: listener.TCP(t, handle)}
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// bounded is for what is to end by itself: it ends a test that hangs.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, d *Dialer, kind Kind) net.Conn {
	t.Helper()
	conn, err := d.Dial(bounded(t), kind, session)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func both(t *testing.T, test func(t *testing.T, kind Kind)) {
	for _, kind := range []Kind{Raw, WebSocket} {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

// exchangeBytes checks that each end reads what the other writes.
func exchangeBytes(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{a, b}, {b, a}} {
		if _, err := io.WriteString(way.from, "ping"); err != nil {
			t.Fatal(err)
		}
		expect(t, way.to, "ping")
	}
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}
