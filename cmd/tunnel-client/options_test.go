package main

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/internal/server"
)

// startTLS is the server at base behind TLS, and a file with the certificate of
// its authority.
func startTLS(t *testing.T, base string) (url, ca string) {
	t.Helper()
	origin := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(origin.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: origin.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	listener.On(t, l, func(c net.Conn) {
		if up, err := net.Dial("tcp", strings.TrimPrefix(base, "http://")); err == nil {
			join(c, up)
		}
	})
	ca = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: origin.Certificate().Raw})))
	return "https://" + l.Addr().String(), ca
}

func TestCA(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	url, ca := startTLS(t, base)
	c := start(t, "3000", "--server", url)
	if code := c.exit(); code != 5 {
		t.Errorf("without --ca: exit code %d", code)
	}
	wantText(t, c.stderr.String(), "--ca")
	start(t, "3000", "--server", url, "--ca", ca).next("ready")
}

func TestTransport(t *testing.T) {
	home(t)
	for given, want := range map[string]string{"": "raw", "auto": "raw", "raw": "raw", "websocket": "websocket"} {
		var log rig.Buffer
		base := startServer(t, server.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		start(t, "3000", "--server", base, "--transport", given).next("ready")
		wantText(t, log.String(), "transport="+want)
	}
}

func TestProxyAndTokenInTheClear(t *testing.T) {
	home(t)
	t.Setenv("TUNNEL_TOKEN", "some-token")
	base := startServer(t, server.Config{Domain: "tunnel.test"})
	proxy := connectProxy(t, base)
	c := start(t, "3000", "--server", "http://tunnel.test", "--proxy", proxy)
	c.next("ready")
	wantText(t, c.stderr.String(), "the token crosses the network in the clear", "https://")

	t.Setenv("TUNNEL_TOKEN", "")
	t.Setenv("HTTP_PROXY", proxy)
	c = start(t, "3000", "--server", "http://tunnel.test")
	c.next("ready")
	if strings.Contains(c.stderr.String(), "in the clear") {
		t.Errorf("it warns without a token:\n%s", c.stderr)
	}
	t.Setenv("TUNNEL_TOKEN", "some-token")
	c = start(t, "3000", "--server", base)
	c.next("ready")
	if strings.Contains(c.stderr.String(), "in the clear") {
		t.Errorf("it warns of a loopback address:\n%s", c.stderr)
	}
}

func TestInsecureUpstream(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }))
	app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	app.StartTLS()
	t.Cleanup(app.Close)
	c := start(t, app.URL, "--server", base)
	if got := get(t, base, c.next("ready").URL); got == "hello" {
		t.Error("an unknown certificate is accepted")
	}
	c = start(t, app.URL, "--server", base, "--insecure-upstream")
	if got := get(t, base, c.next("ready").URL); got != "hello" {
		t.Errorf("with --insecure-upstream the body is %q", got)
	}
}

func TestAppTimeout(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := start(t, app, "--server", base, "--app-timeout", "10ms")
	resp, err := visitor(t, base).Get(c.next("ready").URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Tunnel-Error"); resp.StatusCode != 504 || got != "app_timeout" {
		t.Errorf("%s %s", resp.Status, got)
	}
}

func TestRequestsInTheLog(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	for _, level := range []string{"info", "debug"} {
		c := start(t, app, "--server", base, "--log-level", level, "--log-format", "json")
		get(t, base, c.next("ready").URL+"/the-path")
		c.signal(os.Interrupt)
		c.exit()
		if got := strings.Contains(c.stderr.String(), "/the-path"); got != (level == "debug") {
			t.Errorf("at %s a request is logged: %v\n%s", level, got, c.stderr)
		}
	}
}
