package edge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// patience is when a test gives up waiting for what must come.
const patience = 20 * time.Second

// serve runs a tunnel server until the test ends and returns its address.
func serve(t *testing.T, c server.Config) string {
	t.Helper()
	return start(t, c).Addr().String()
}

// start runs a tunnel server until the test ends.
func start(t *testing.T, c server.Config) *server.Server {
	t.Helper()
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Domain == "" {
		c.Domain = "example.com"
	}
	c.Auth = auth.Anonymous{}
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// publish runs a client with handler until the test ends.
func publish(t *testing.T, addr, name string, up *protocol.Upstream, handler http.Handler) {
	t.Helper()
	publishAs(t, addr, tunnel.Options{Name: name, Upstream: up}, handler)
}

func publishAs(t *testing.T, addr string, o tunnel.Options, handler http.Handler) {
	t.Helper()
	ready := make(chan struct{})
	c := &tunnel.Client{Server: "http://" + addr, Transport: tunnel.Raw, Proxy: direct, Grace: -1, Events: func(e tunnel.Event) {
		if e.Type == tunnel.Ready {
			close(ready)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, o, handler) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func direct(*url.URL) (*url.URL, error) { return nil, nil }

// exposed runs server, client and forward in front of the app at target, as
// demo.example.com, without rewriting.
func exposed(t *testing.T, c server.Config, target string, o forward.Options) (addr string) {
	t.Helper()
	addr = serve(t, c)
	publish(t, addr, "demo", nil, to(t, target, o))
	return addr
}

// to is the handler for the app at target.
func to(t *testing.T, target string, o forward.Options) http.Handler {
	t.Helper()
	parsed, err := forward.ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	f := forward.New(parsed, o)
	t.Cleanup(f.Close)
	return f
}

// app runs handler as the local app.
func app(t *testing.T, handler http.Handler) (target string) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// rawApp runs a local app that is given each connection once a request's header
// has been read from it, and closes it afterwards.
func rawApp(t *testing.T, answer func(*net.TCPConn)) (target string) {
	t.Helper()
	return listener.TCP(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			answer(c.(*net.TCPConn))
		}
	})
}

// seen is an app that answers with what it has seen: the request line, Host, and
// the fields sorted.
func seen(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		lines := []string{}
		for field, values := range r.Header {
			for _, v := range values {
				lines = append(lines, field+": "+v)
			}
		}
		for field, values := range r.Trailer {
			lines = append(lines, fmt.Sprintf("trailer %s: %s", field, values))
		}
		slices.Sort(lines)
		w.Header().Set("App", name)
		fmt.Fprintf(w, "%s %s\nHost: %s\n%s\n", r.Method, r.RequestURI, r.Host, strings.Join(lines, "\n"))
	})
}

// visitor is a connection that speaks HTTP/1 by hand.
type visitor struct {
	*net.TCPConn
	t *testing.T
	r *bufio.Reader
}

func visit(t *testing.T, addr string) *visitor {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &visitor{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

// send writes lines, each ended by CRLF, and the empty line. What follows has all of patience
// again: tests send hundreds of requests on one connection.
func (v *visitor) send(lines ...string) {
	v.t.Helper()
	v.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(v, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		v.t.Fatal(err)
	}
}

type answer struct {
	*http.Response
	body string
}

// receive reads the answer to a request with method.
func (v *visitor) receive(method string) answer {
	v.t.Helper()
	res, err := http.ReadResponse(v.r, &http.Request{Method: method})
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return answer{res, string(body)}
}

// get sends one request on a connection of its own.
func get(t *testing.T, addr string, lines ...string) answer {
	t.Helper()
	v := visit(t, addr)
	v.send(lines...)
	method, _, _ := strings.Cut(lines[0], " ")
	return v.receive(method)
}

// code is the answer's Tunnel-Error.
func (a answer) code() string { return a.Header.Get(protocol.HeaderError) }

// has reports whether a line of the body is line.
func (a answer) has(line string) bool { return slices.Contains(strings.Split(a.body, "\n"), line) }

// logs is a log that can be read while it is written.
type logs struct{ rig.Buffer }

func (l *logs) lines() []string {
	return strings.Split(strings.TrimSuffix(l.String(), "\n"), "\n")
}

func (l *logs) at(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level}))
}

// isReset reports whether a connection was aborted, not ended.
func isReset(err error) bool {
	return err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && strings.Contains(err.Error(), "connection reset")
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
