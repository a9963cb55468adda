package edge_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// What the benchmarks send and answer: few fields and a small body, as curl and a
// plain app do.
const (
	benchRequest = "GET /a/path?q=1 HTTP/1.1\r\nHost: demo.example.com\r\nUser-Agent: bench/1.0\r\n" +
		"Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n"
	benchAnswer = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 13\r\n\r\nHello, world!"
)

// benchEdge is an edge whose one route leads to the streams that open makes.
func benchEdge(b *testing.B, open func() (mux.Stream, error)) *edge.HTTP {
	b.Helper()
	pool := upstream.NewPool(benchSession{open: open}, 0)
	b.Cleanup(func() { pool.Drain(context.Background()) }) // closes the streams
	names := new(registry.Memory)
	_, err := names.Bind(b.Context(), &registry.Route{
		Name: "demo", Owner: "o", Kind: protocol.KindHTTP,
		Policy: &policy.Policy{Scheme: "http", Host: "localhost:3000"},
		HTTP:   pool.Route("demo"),
	})
	if err != nil {
		b.Fatal(err)
	}
	return &edge.HTTP{
		Registry: names, Domain: "example.com", Park: time.Second, MaxURI: 16 << 10, MaxHeader: 64 << 10,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// benchSession opens streams that are no session's.
type benchSession struct {
	mux.Session
	open func() (mux.Stream, error)
}

func (s benchSession) Open(context.Context) (mux.Stream, error) { return s.open() }
func (s benchSession) Done() <-chan struct{}                    { return nil }

// benchStream is a TCP connection to the app as a stream.
type benchStream struct{ net.Conn }

func (s benchStream) Reset() error                      { return s.Close() }
func (s benchStream) CloseWrite() error                 { return s.Close() }
func (s benchStream) OnAbort(func()) (stop func() bool) { return func() bool { return true } }

// BenchmarkVisitors is a small GET of 1 and of 64 visitors over loopback TCP,
// through all of the edge, to an app that costs next to nothing.
func BenchmarkVisitors(b *testing.B) {
	for name, visitors := range map[string]int{"1": 1, "64": 64} {
		b.Run(name, func(b *testing.B) {
			app := benchApp(b)
			h := benchEdge(b, func() (mux.Stream, error) {
				c, err := net.Dial("tcp", app)
				if err != nil {
					return nil, err
				}
				return benchStream{c}, nil
			})
			limits := edge.Limits{HeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := h.Server(limits)
			done := make(chan struct{})
			go func() { defer close(done); s.Serve((&edge.Door{Limits: limits}).Listener(l)) }()
			defer func() { s.Close(); <-done }()
			b.ReportAllocs()
			b.ResetTimer()
			var visiting sync.WaitGroup
			for i := range visitors {
				visiting.Go(func() { benchVisit(b, l.Addr().String(), (b.N+i)/visitors) })
			}
			visiting.Wait()
		})
	}
}

func benchVisit(b *testing.B, addr string, n int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	buf := make([]byte, len(benchAnswer))
	for range n {
		io.WriteString(c, benchRequest)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Error(err)
			return
		}
	}
}

// benchApp answers every read with the same bytes.
func benchApp(b *testing.B) string {
	return listener.TCP(b, func(c net.Conn) {
		for buf := make([]byte, 4<<10); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
			io.WriteString(c, benchAnswer)
		}
	})
}

// BenchmarkServeHTTP is the handler alone: no system call, no goroutine, and a
// ResponseWriter that costs nothing.
func BenchmarkServeHTTP(b *testing.B) {
	h := benchEdge(b, func() (mux.Stream, error) { return &memoryStream{}, nil })
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(benchRequest)))
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.1:12345"
	w := &memoryWriter{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context()) // as net/http makes one
		h.ServeHTTP(w, r.WithContext(ctx))
		cancel()
		if w.status != 200 || w.body != 13 {
			b.Fatal(w.status, w.body)
		}
		clear(w.header)
		w.status, w.body = 0, 0
	}
}

// memoryStream has the answer once a request was written.
type memoryStream struct {
	mux.Stream
	left int
}

func (s *memoryStream) Close() error                      { return nil }
func (s *memoryStream) OnAbort(func()) (stop func() bool) { return func() bool { return true } }

func (s *memoryStream) Write(p []byte) (int, error) {
	s.left = len(benchAnswer)
	return len(p), nil
}

func (s *memoryStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, errors.New("read before a request")
	}
	n := copy(p, benchAnswer[len(benchAnswer)-s.left:])
	s.left -= n
	return n, nil
}

func (s *memoryStream) SetReadDeadline(time.Time) error { return nil }

type memoryWriter struct {
	header       http.Header
	status, body int
}

func (w *memoryWriter) Header() http.Header { return w.header }
func (w *memoryWriter) WriteHeader(s int)   { w.status = s }
func (w *memoryWriter) Flush()              {}

func (w *memoryWriter) Write(p []byte) (int, error) {
	w.body += len(p)
	return len(p), nil
}

func (w *memoryWriter) EnableFullDuplex() error { return nil }
