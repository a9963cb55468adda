package tunnel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// middlebox lets WebSockets pass, and does raw to what asks for the other
// upgrade. It counts both.
type middlebox struct {
	raw        func(client net.Conn) verdict
	raws, webs atomic.Int32
}

func (m *middlebox) front(head []byte, client net.Conn) verdict {
	if bytes.Contains(bytes.ToLower(head), []byte("upgrade: websocket")) {
		m.webs.Add(1)
		return pass
	}
	m.raws.Add(1)
	return m.raw(client)
}

// answering is what a middlebox says instead of the server.
func answering(status string) func(net.Conn) verdict {
	return func(c net.Conn) verdict {
		fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry", status)
		return refuse
	}
}

func TestFallback(t *testing.T) {
	// What says nothing of the way, and may be gone the next time.
	passing := map[string]bool{"502": true, "closed": true}
	for name, raw := range map[string]func(net.Conn) verdict{
		"400":    answering("400 Bad Request"),
		"426":    answering("426 Upgrade Required"),
		"502":    answering("502 Bad Gateway"),
		"200":    answering("200 OK"),
		"closed": func(net.Conn) verdict { return refuse },
		"mangled behind the 101": func(net.Conn) verdict {
			return mangle
		},
		"the server's own 426, as the header was taken away": func(c net.Conn) verdict {
			io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nTunnel-Error: upgrade_required\r\nContent-Length: 0\r\n\r\n")
			return refuse
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, server.Config{})
			r := newRelay(t, n.addr)
			m := &middlebox{raw: raw}
			r.judge(m.front)
			told := newEvents()
			listen(t, &tunnel.Client{Server: r.url(), Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
			if e := <-told; e.Type != tunnel.Ready || e.RawShut == passing[name] {
				t.Errorf("%s, RawShut %v", e.Type, e.RawShut)
			}
			if status, _ := n.get(t, "demo", "/"); status != 200 {
				t.Errorf("status %d", status)
			}
			if raws, webs := m.raws.Load(), m.webs.Load(); raws != 1 || webs != 1 {
				t.Errorf("asked %d times for raw and %d for websocket, want once each", raws, webs)
			}
			r.cut()
			told.next(t, tunnel.Disconnected)
			told.next(t, tunnel.Reconnected)
			if raws, webs := m.raws.Load(), m.webs.Load(); raws != 1 || webs != 2 {
				t.Errorf("the way that worked was forgotten: %d times raw, %d websocket", raws, webs)
			}
		})
	}
}

// TestTryFirst starts with what an earlier process learned, and tells what it
// uses.
func TestTryFirst(t *testing.T) {
	for first, want := range map[tunnel.Transport]struct {
		raws, webs int32
		used       tunnel.Transport
	}{
		"":               {1, 1, tunnel.WebSocket},
		tunnel.Raw:       {1, 1, tunnel.WebSocket},
		tunnel.WebSocket: {0, 1, tunnel.WebSocket},
	} {
		n := start(t, server.Config{})
		r := newRelay(t, n.addr)
		m := &middlebox{raw: answering("400 Bad Request")}
		r.judge(m.front)
		told := newEvents()
		listen(t, &tunnel.Client{Server: r.url(), TryFirst: first, Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
		if e := <-told; e.Type != tunnel.Ready || e.Transport != want.used {
			t.Errorf("first %q: %s on %q, want %q", first, e.Type, e.Transport, want.used)
		}
		if raws, webs := m.raws.Load(), m.webs.Load(); raws != want.raws || webs != want.webs {
			t.Errorf("first %q: asked %d times for raw and %d for websocket", first, raws, webs)
		}
	}
	n := start(t, server.Config{})
	told := newEvents()
	listen(t, &tunnel.Client{Server: "http://" + n.addr, Events: told.tell}, tunnel.Options{Name: "demo"}, hello)
	if e := <-told; e.Transport != tunnel.Raw {
		t.Errorf("nothing in the way: %q, want raw", e.Transport)
	}
	if _, err := (&tunnel.Client{TryFirst: "pigeon"}).Listen(t.Context(), tunnel.Options{}); err == nil || !strings.Contains(err.Error(), "pigeon") {
		t.Errorf("a transport that is none: %v", err)
	}
}

// A transport that was chosen is the only one.
func TestNoFallback(t *testing.T) {
	r := newRelay(t, "nowhere")
	m := &middlebox{raw: answering("502 Bad Gateway")}
	r.judge(m.front)
	if _, err := (&tunnel.Client{Server: r.url(), Transport: tunnel.Raw}).Listen(t.Context(), tunnel.Options{}); err == nil {
		t.Error("connected")
	}
	if raws, webs := m.raws.Load(), m.webs.Load(); raws != 1 || webs != 0 {
		t.Errorf("asked %d times for raw and %d for websocket", raws, webs)
	}
}

// What the server itself refuses, another transport does not get either. Where
// the refusal is for good, Retry changes nothing.
func TestRefusalIsNoFallback(t *testing.T) {
	for code, final := range map[protocol.Code]bool{
		protocol.Unauthorized: true, protocol.NotFound: true, protocol.NameTaken: true,
		protocol.SessionTaken: false, protocol.TooManySessions: false, protocol.Draining: false,
	} {
		t.Run(string(code), func(t *testing.T) {
			r := newRelay(t, "nowhere")
			var asked atomic.Int32
			r.judge(func(_ []byte, c net.Conn) verdict {
				asked.Add(1)
				body := `{"error":{"code":"` + string(code) + `","message":"no"}}`
				fmt.Fprintf(c, "HTTP/1.1 %d No\r\nTunnel-Error: %s\r\nContent-Length: %d\r\n\r\n%s", code.Status(), code, len(body), body)
				return refuse
			})
			_, err := (&tunnel.Client{Server: r.url()}).Listen(t.Context(), tunnel.Options{Retry: final})
			if codeOf(err) != code || asked.Load() != 1 {
				t.Errorf("got %v after %d requests, want %s after one", err, asked.Load(), code)
			}
		})
	}
}

// Both ways closed: the error tells of both.
func TestFallbackFails(t *testing.T) {
	r := newRelay(t, "nowhere")
	r.judge(func(head []byte, c net.Conn) verdict {
		if bytes.Contains(head, []byte("websocket")) {
			return answering("403 Forbidden")(c)
		}
		return answering("502 Bad Gateway")(c)
	})
	_, err := (&tunnel.Client{Server: r.url()}).Listen(t.Context(), tunnel.Options{})
	if err == nil || !strings.Contains(err.Error(), "502") || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v, want both answers", err)
	}
}

// What answers and is no tunnel server is told from one that is away, and what
// both ways were told alike is said once.
func TestNotTunnelServer(t *testing.T) {
	front := func(raw, web func(net.Conn) verdict) func([]byte, net.Conn) verdict {
		return func(head []byte, c net.Conn) verdict {
			if bytes.Contains(head, []byte("websocket")) {
				return web(c)
			}
			return raw(c)
		}
	}
	closed := func(net.Conn) verdict { return refuse }
	notHTTP := func(c net.Conn) verdict {
		io.WriteString(c, "220 mail.example ESMTP\r\n")
		return refuse
	}
	for name, test := range map[string]struct {
		raw, web func(net.Conn) verdict
		only     tunnel.Transport
		want     bool
	}{
		"a web server":             {answering("404 Not Found"), answering("404 Not Found"), tunnel.Auto, true},
		"two answers":              {answering("200 OK"), answering("403 Forbidden"), tunnel.Auto, true},
		"one way only":             {answering("404 Not Found"), nil, tunnel.Raw, true},
		"a mail server":            {notHTTP, notHTTP, tunnel.Auto, true},
		"a gateway without server": {answering("502 Bad Gateway"), answering("502 Bad Gateway"), tunnel.Auto, false},
		"the same, raw forbidden":  {answering("400 Bad Request"), answering("503 No"), tunnel.Auto, false},
		"closed":                   {closed, closed, tunnel.Auto, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, "nowhere")
			r.judge(front(test.raw, test.web))
			_, err := (&tunnel.Client{Server: r.url(), Transport: test.only}).Listen(t.Context(), tunnel.Options{})
			if !errors.Is(err, tunnel.ErrUnreachable) || errors.Is(err, tunnel.ErrNotTunnelServer) != test.want {
				t.Errorf("got %v: ErrNotTunnelServer is to be %t", err, test.want)
			}
			if alike := strings.Count(err.Error(), "upgrade at") == 1; alike == (name == "two answers" || name == "the same, raw forbidden") {
				t.Errorf("got %v: equal causes are said once, different ones both", err)
			}
		})
	}
}
