package tunnel_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

var transports = []tunnel.Transport{tunnel.Raw, tunnel.WebSocket}

func TestListen(t *testing.T) {
	for _, transport := range append(transports, tunnel.Auto, "") {
		t.Run("transport="+string(transport), func(t *testing.T) {
			n := start(t, server.Config{Hold: time.Hour}) // for those that do not say bye
			told := newEvents()
			c := &tunnel.Client{Server: n.url(), Transport: transport, Events: told.tell}
			l := listen(t, c, tunnel.Options{Name: "demo"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
			}))
			_, port, _ := net.SplitHostPort(n.addr)
			want := "http://demo.localhost:" + port
			if l.URL() != want || l.Addr().String() != want || l.Name() != "demo" {
				t.Errorf("URL %q, Addr %q, Name %q; want %q and demo", l.URL(), l.Addr(), l.Name(), want)
			}
			if ready := told.next(t, tunnel.Ready); ready.Name != "demo" || ready.URL != want || ready.Err != nil {
				t.Errorf("event %+v", ready)
			}
			req := n.request(t, "POST", "demo", "/a;b?c=%2F", strings.NewReader("body"))
			res, body, err := do(req)
			if err != nil || res.StatusCode != 200 || body != "POST demo.localhost /a;b?c=%2F body" {
				t.Errorf("got %v %q, %v", res, body, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if status, _ := n.get(t, "demo", "/"); status != 404 {
				t.Errorf("after Close: status %d, want 404", status)
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v, want net.ErrClosed", err)
			}
			if closed := told.next(t, tunnel.Closed); closed.Err != nil {
				t.Errorf("closed because of %v", closed.Err)
			}
			told.none(t)
		})
	}
}

func TestListenPicksName(t *testing.T) {
	n := start(t, server.Config{})
	l := listen(t, &tunnel.Client{Server: n.url()}, tunnel.Options{}, hello)
	if err := protocol.CheckName(l.Name()); err != nil {
		t.Error(err)
	}
	if u, err := url.Parse(l.URL()); err != nil || u.Hostname() != l.Name()+".localhost" {
		t.Errorf("URL %q of name %q, %v", l.URL(), l.Name(), err)
	}
	if status, _ := n.get(t, l.Name(), "/"); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestConfigError(t *testing.T) {
	bad := func(*url.URL) (*url.URL, error) { return nil, errors.New("no such proxy") }
	for name, c := range map[string]*tunnel.Client{
		"scheme":    {Server: "ftp://127.0.0.1"},
		"no scheme": {Server: "tunnel.example.com"},
		"no host":   {Server: "http://:80"},
		"not a URL": {Server: "http://%zz"},
		"user":      {Server: "http://sekret:sekret@127.0.0.1"},
		"bad user":  {Server: "http://sekret:sek ret@127.0.0.1"},
		"transport": {Transport: "quic"},
		"token":     {Token: "sekret\nsekret"},
		"proxy":     {Proxy: bad},
	} {
		t.Run(name, func(t *testing.T) {
			// Retry would try for ever what can't work.
			_, err := c.Listen(t.Context(), tunnel.Options{Retry: true})
			var config *tunnel.ConfigError
			if !errors.As(err, &config) {
				t.Fatalf("got %v, want a ConfigError", err)
			}
			if errors.Is(err, tunnel.ErrUnreachable) || strings.Contains(err.Error(), "sek") {
				t.Errorf("error %v", err)
			}
		})
	}
	_, err := (&tunnel.Client{}).Listen(t.Context(), tunnel.Options{Name: "Not A Name"})
	var config *tunnel.ConfigError
	if !errors.As(err, &config) || codeOf(err) != protocol.NameInvalid {
		t.Errorf("name: got %v", err)
	}
}
