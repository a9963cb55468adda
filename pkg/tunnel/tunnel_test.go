package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// start runs a server for the test and returns its URL.
func start(t *testing.T, c server.Config) string {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Auth == nil {
		c.Auth = auth.Anonymous{}
	}
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
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
	return "http://" + s.Addr().String()
}

// visitor returns an HTTP client for which every name is the loopback address.
func visitor() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := visitor().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestServeHandler(t *testing.T) {
	for _, transport := range []tunnel.Transport{tunnel.Raw, tunnel.WebSocket, tunnel.Auto} {
		t.Run(string(transport), func(t *testing.T) {
			url := start(t, server.Config{})
			c := &tunnel.Client{Server: url, Transport: transport}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			l, err := c.Listen(ctx, tunnel.Options{Name: "demo"})
			if err != nil {
				t.Fatal(err)
			}
			go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
			}))
			if status, body := get(t, l.URL()+"/a;b?c=%2F"); status != 200 || !strings.HasPrefix(body, "GET demo.localhost:") || !strings.HasSuffix(body, " /a;b?c=%2F ") {
				t.Errorf("got %d %q", status, body)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if status, _ := get(t, l.URL()); status != 404 {
				t.Errorf("after Close: status %d, want 404", status)
			}
		})
	}
}
