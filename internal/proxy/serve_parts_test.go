package proxy

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/mux"
)

// serveConns is serve on a Server. When the test ends it waits until nothing is
// served any more.
func serveConns(t testing.TB, l net.Listener, h http.Handler) {
	serveWith(t, l, &Server{Handler: h.ServeHTTP, Log: slog.New(slog.NewTextHandler(panicLog{t}, nil))})
}

func serveWith(t testing.TB, l net.Listener, s *Server) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.ServeConn(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
}

// serveTCP serves on TCP, and returns the address.
func serveTCP(t testing.TB, s *Server) string {
	t.Helper()
	l := loopback(t)
	serveWith(t, l, s)
	return l.Addr().String()
}

// serveStream serves one stream, and returns the other end and the session.
func serveStream(t testing.TB, s *Server) (mux.Stream, mux.Session) {
	t.Helper()
	server, client := sessions(t)
	serveWith(t, streams{client}, s)
	stream, err := server.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.SetDeadline(time.Now().Add(patience))
	return stream, server
}
