package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/internal/server"
)

// TestTransportIsKept: the raw upgrade, which something on the way refuses, is
// tried by the first start alone.
func TestTransportIsKept(t *testing.T) {
	home(t)
	behind, err := url.Parse(startServer(t, server.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	var raws atomic.Int32
	pass := httputil.NewSingleHostReverseProxy(behind)
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			raws.Add(1)
			http.Error(w, "WebSockets alone", http.StatusBadRequest)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	defer way.Close()
	token := filepath.Join(t.TempDir(), "token")
	writeFile(t, token, "secret\n")
	for _, args := range [][]string{{}, {"--name", "demo"}, {"--name", "demo", "--token-file", token}} {
		c := start(t, append([]string{"3000", "--server", way.URL}, args...)...)
		c.next("ready")
		c.signal(syscall.SIGTERM)
		c.next("draining")
		c.next("closed")
		c.exit()
		if n := raws.Load(); n != 1 {
			t.Errorf("%q: raw was asked for %d times", args, n)
		}
	}
	c := start(t, "3000", "--server", way.URL, "--json=false")
	eventually(t, "the log tells of the fallback", func() bool {
		return strings.Contains(c.stderr.String(), "transport=websocket")
	})
}
