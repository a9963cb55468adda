package tunnel_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// A server behind TLS is reached with Client.TLS, and not without.
func TestTLS(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			n := start(t, server.Config{})
			to, err := url.Parse(n.url())
			if err != nil {
				t.Fatal(err)
			}
			front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
			front.Config.ErrorLog = log.New(io.Discard, "", 0)
			front.StartTLS()
			t.Cleanup(front.Close)
			trust := front.Client().Transport.(*http.Transport).TLSClientConfig
			c := &tunnel.Client{Server: front.URL, Transport: transport, TLS: &tls.Config{RootCAs: trust.RootCAs}}
			l := listen(t, c, tunnel.Options{Name: "demo"}, hello)
			if status, _ := n.get(t, "demo", "/"); status != 200 {
				t.Errorf("status %d", status)
			}
			l.Close()
			c = &tunnel.Client{Server: front.URL, Transport: transport}
			if _, err := c.Listen(t.Context(), tunnel.Options{}); !errors.Is(err, tunnel.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("without the authority: %v", err)
			}
		})
	}
}

func TestProxy(t *testing.T) {
	proxy, asked := closedPort(t), make(chan string, 10)
	forward := newRelay(t, "nowhere")
	forward.judge(func(head []byte, c net.Conn) verdict {
		line, _, _ := strings.Cut(string(head), "\r\n")
		asked <- line
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return refuse
	})
	fixed, err := tunnel.FixedProxy("http://user:sekret@" + proxy)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&tunnel.Client{Server: "http://127.0.0.1:1", Proxy: fixed}).Listen(t.Context(), tunnel.Options{})
	if !errors.Is(err, tunnel.ErrUnreachable) || !strings.Contains(err.Error(), "proxy at "+proxy) || strings.Contains(err.Error(), "sekret") {
		t.Errorf("got %v, want what is wrong with the proxy", err)
	}
	t.Setenv("HTTP_PROXY", forward.url())
	t.Setenv("NO_PROXY", "")
	if _, err = (&tunnel.Client{Server: "http://tunnel.invalid"}).Listen(t.Context(), tunnel.Options{}); !errors.Is(err, tunnel.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if got := wait(t, "the request to the proxy", asked); got != "CONNECT tunnel.invalid:80 HTTP/1.1" {
		t.Errorf("asked the proxy for %q", got)
	}
	if _, err := tunnel.FixedProxy("socks5://user:sekret@127.0.0.1"); err == nil || strings.Contains(err.Error(), "sekret") {
		t.Errorf("got %v", err)
	}
}

// The server rewrites requests as the client asked, also after a reconnect.
func TestUpstream(t *testing.T) {
	n := start(t, server.Config{})
	r := newRelay(t, n.addr)
	told := newEvents()
	listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{
		Name: "demo", Upstream: &protocol.Upstream{Scheme: "https", Host: "localhost:3000"},
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
	told.next(t, tunnel.Ready)
	for range 2 {
		if _, body := n.get(t, "demo", "/"); body != "localhost:3000" {
			t.Errorf("the app was called as %q", body)
		}
		r.cut()
		told.next(t, tunnel.Disconnected)
		told.next(t, tunnel.Reconnected)
	}
	_, err := (&tunnel.Client{Server: n.url()}).Listen(t.Context(), tunnel.Options{Upstream: &protocol.Upstream{Scheme: "ftp"}})
	if codeOf(err) != protocol.ProtocolViolation {
		t.Errorf("got %v", err)
	}
}
