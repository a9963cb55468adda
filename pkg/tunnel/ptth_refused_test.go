package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// A proxy that says no for good is not asked again, whatever Retry says.
func TestPTTHRefused(t *testing.T) {
	for status, code := range map[int]protocol.Code{401: protocol.Unauthorized, 403: protocol.Forbidden, 406: protocol.ALPNUnsupported, 409: protocol.NameTaken} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			p := newProxy(t, "h2")
			p.refuse = func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(status)
				io.WriteString(w, `{"detail": "because"}`)
				return true
			}
			c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH}
			err := c.Serve(t.Context(), tunnel.Options{Origin: "https://app.test", Retry: true}, hello)
			var said *protocol.Error
			if !errors.As(err, &said) || said.Code != code || !strings.Contains(said.Message, "because") {
				t.Errorf("it ended with %v", err)
			}
			if n := len(p.requests()); n != 1 {
				t.Errorf("it asked %d times", n)
			}
		})
	}
}

// One that says no for now is, and one that says no when it comes back ends the client.
func TestPTTHRetries(t *testing.T) {
	p := newProxy(t, "h2")
	p.refuse = func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch {
		case n <= 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Header.Get("ALPN") == "http%2F1.1":
			w.WriteHeader(http.StatusNotFound)
		case n > 4:
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	}
	told := newEvents()
	c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH, Events: told.tell}
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(t.Context(), tunnel.Options{Origin: "https://app.test", Retry: true}, hello)
	}()
	told.next(t, tunnel.Ready)
	poll.Until(t, "it has asked for another connection", func() bool { return len(p.requests()) == 4 })
	p.conn(t, "h2", 1).raw.Close()
	told.next(t, tunnel.Disconnected)
	e := told.next(t, tunnel.Closed)
	if err := wait(t, "Serve", served); !errors.Is(err, &protocol.Error{Code: protocol.Forbidden}) || !errors.Is(e.Err, &protocol.Error{Code: protocol.Forbidden}) {
		t.Errorf("it ended with %v, and told %v", err, e.Err)
	}
}

// Without an origin the server is asked for one; who is not ours knows none.
func TestPTTHNeedsAnOrigin(t *testing.T) {
	p := newProxy(t, "h2")
	c := &tunnel.Client{Server: p.URL, Transport: tunnel.PTTH}
	_, err := c.Attach(t.Context(), tunnel.Options{Name: "demo", Retry: true}, hello)
	var config *tunnel.ConfigError
	if !errors.As(err, &config) || !strings.Contains(err.Error(), "--origin") {
		t.Errorf("it ended with %v", err)
	}
	if n := len(p.requests()); n != 1 || p.requests()[0].Header.Get("Authorization") != "" {
		t.Errorf("%d requests", n)
	}
}

func TestPTTHOptions(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := &tunnel.Client{Server: "http://127.0.0.1:1", Transport: tunnel.PTTH}
	for want, o := range map[string]tunnel.Options{
		"HTTP alone":   {Kind: protocol.KindTCP},
		"no private":   {Private: true},
		"no ports":     {Port: 80},
		"visitors are": {Visitor: true},
		"generations":  {Name: "demo", Generation: 7},
		"rewrite":      {Upstream: &protocol.Upstream{Scheme: "http", Host: "localhost"}},
		"exclude":      {Name: "demo", Origin: "https://app.test"},
		"is of nobody": {Origin: "null"},
		"hyphen":       {Name: "-"},
		"domain":       {Domains: []string{"x"}},
	} {
		var config *tunnel.ConfigError
		if err := c.Serve(ctx, o, hello); !errors.As(err, &config) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want it to say %q", o, err, want)
		}
	}
	const streams = "PTTH has no streams: use Serve, or another transport"
	if _, err := c.Listen(ctx, tunnel.Options{}); err == nil || err.Error() != streams {
		t.Errorf("Listen: %v", err)
	}
	if _, err := c.Connect(ctx, tunnel.ConnectOptions{}); err == nil || err.Error() != streams {
		t.Errorf("Connect: %v", err)
	}
	raw := &tunnel.Client{Server: c.Server}
	if _, err := raw.Listen(ctx, tunnel.Options{Origin: "https://app.test"}); err == nil || !strings.Contains(err.Error(), "PTTH") {
		t.Errorf("Listen with an origin: %v", err)
	}
}

// Our server tells the origin of a name, and gives a name that was made up.
func TestPTTHOwnServer(t *testing.T) {
	n := start(t, server.Config{})
	for _, name := range []string{"demo", ""} {
		told := newEvents()
		c := &tunnel.Client{Server: n.url(), Transport: tunnel.PTTH, Events: told.tell}
		b, err := c.Attach(t.Context(), tunnel.Options{Name: name}, http.HandlerFunc(everything))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if e := told.next(t, tunnel.Ready); name != "" && e.Name != name || e.Name == "" || e.Protocol != "h2" || e.URL != "http://"+e.Name+".localhost:"+n.addr[strings.LastIndex(n.addr, ":")+1:] {
			t.Errorf("ready is %+v", e)
		}
		// The server has granted the origin, and may be about to use it.
		poll.Until(t, "a visitor gets through", func() bool {
			status, body := n.get(t, b.Name(), "/x")
			return status == 200 && strings.HasPrefix(body, "GET "+b.Name()+".localhost")
		})
		// The spare connection may not be there yet.
		poll.Until(t, "an upgrade gets through", func() bool { return upgraded(t, n, b.Name()) })
		finish(t, "Close", func() { b.Close() })
	}
}

// upgraded reports whether a visitor of everything can upgrade.
func upgraded(t *testing.T, n *node, name string) bool {
	req := n.request(t, "GET", name, "/upgrade", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	both, ok := res.Body.(io.ReadWriter)
	if !ok || res.StatusCode != 101 {
		return false
	}
	io.WriteString(both, "hello")
	got := make([]byte, 5)
	_, err = io.ReadFull(both, got)
	return err == nil && string(got) == "hello"
}
