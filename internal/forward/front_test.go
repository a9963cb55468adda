package forward

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/inspect"
	"github.com/revtun/tunnel/pkg/mux"
)

// A frontFunc serves a new HTTP for target, and returns its address.
type frontFunc func(t *testing.T, target string, o Options) (addr string)

// onEach runs a test on an http.Server, and on ServeConn, as the tunnel's client
// does on streams; and on both with a recorder before the app, which may change nothing.
func onEach(t *testing.T, test func(*testing.T, frontFunc)) {
	for name, serve := range map[string]frontFunc{"http.Server": front, "ServeConn": connFront} {
		t.Run(name, func(t *testing.T) { test(t, serve) })
		t.Run(name+" inspected", func(t *testing.T) {
			test(t, func(t *testing.T, target string, o Options) string {
				store := new(inspect.Store)
				o.Watch = func(next http.Handler) http.Handler { return store.Record("", next) }
				return serve(t, target, o)
			})
		})
	}
}

func connFront(t *testing.T, target string, o Options) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveConns(t, l.Accept, l.Close, target, o)
	return l.Addr().String()
}

func serveConns(t *testing.T, accept func() (net.Conn, error), end func() error, target string, o Options) *HTTP {
	t.Helper()
	parsed, err := ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	f := New(parsed, o)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.ServeConn(c) })
		}
	})
	t.Cleanup(func() {
		end()
		serving.Wait()
		f.Close()
		if n := f.InFlight(); n != 0 {
			t.Errorf("%d requests are in flight at the end", n)
		}
	})
	return f
}

// A stream that is aborted ends the app's request, and is no failure of the app's:
// nothing is logged, and the code is none.
func TestStreamAborted(t *testing.T) {
	begun, left := make(chan bool), make(chan bool)
	target := app(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		begun <- true
		<-r.Context().Done()
		left <- true
	})
	for _, framing := range []string{"\r\n", "Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"} {
		for _, scheme := range []string{"http://", "h2c://"} {
			a, b := net.Pipe()
			client, err := mux.Client(a, mux.Config{})
			if err != nil {
				t.Fatal(err)
			}
			server, err := mux.Server(b, mux.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			done := make(chan Exchange, 1)
			f := serveConns(t, func() (net.Conn, error) { return client.Accept() }, client.Close, scheme+target,
				Options{Done: func(e Exchange) { done <- e }})
			stream, err := server.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(stream, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			receive(t, "request", begun)
			if n := f.InFlight(); n != 1 {
				t.Errorf("%d requests are in flight", n)
			}
			stream.Reset()
			receive(t, "end of the app's request", left)
			if e := receive(t, "end of the request", done); e.Status != 0 || e.Code != "" {
				t.Errorf("told of %+v", e)
			}
		}
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
	}
	return v
}
