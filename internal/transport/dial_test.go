package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

func roots(s *server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

func TestTLS(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		offered := make(chan []string, 1)
		s := newServer(t, func(s *httptest.Server) {
			s.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				offered <- h.SupportedProtos
				return nil, nil
			}}
			s.StartTLS()
		})
		config := roots(s)
		config.NextProtos = []string{"h2", "http/1.1"}
		client := dial(t, &Dialer{Server: s.URL, TLS: config}, kind)
		exchangeBytes(t, client, s.next(t).conn)
		if got := strings.Join(<-offered, " "); got != "http/1.1" {
			t.Errorf("ALPN offers %q", got)
		}
		if len(config.NextProtos) != 2 || config.ServerName != "" {
			t.Error("the caller's tls.Config was changed")
		}
		if _, ok := client.(*tls.Conn); kind == Raw && !ok {
			t.Errorf("the connection is a %T", client)
		}
	})
}

func TestTLSFailures(t *testing.T) {
	s := newServer(t, (*httptest.Server).StartTLS)
	plain := newServer(t, (*httptest.Server).Start)
	otherName := roots(s)
	otherName.ServerName = "other.example"
	for _, tt := range []struct {
		name string
		d    *Dialer
		want string
	}{
		{"unknown authority", &Dialer{Server: s.URL}, "--ca FILE"},
		{"wrong name", &Dialer{Server: s.URL, TLS: otherName}, "other.example"},
		{"no TLS", &Dialer{Server: &url.URL{Scheme: "https", Host: plain.URL.Host}}, "use http://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := tt.d.Dial(bounded(t), Raw, session)
			if conn != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.d.Server.Host) {
				t.Errorf("got %v, %v; want the address and %q", conn, err, tt.want)
			}
			var u *UpgradeError
			if errors.As(err, &u) {
				t.Errorf("%v is an UpgradeError: no other transport would help", err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		for _, want := range []*protocol.Error{
			{Code: protocol.Unauthorized, Message: "the server does not know this token", Hint: "check it"},
			{Code: protocol.Draining, Message: "going away"},
			{Code: "code_of_next_year", Message: "new"},
		} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Refuse(w, want) }))
			base := new(watched)
			conn, err := (&Dialer{Server: mustParse(t, s.URL), DialContext: base.dial}).Dial(bounded(t), kind, session)
			s.Close()
			if !errors.Is(base.SetDeadline(time.Time{}), net.ErrClosed) {
				t.Error("the connection stays open")
			}
			var refused *Refused
			if conn != nil || !errors.As(err, &refused) {
				t.Fatalf("got %v, %v", conn, err)
			}
			if *refused.Err != *want || refused.Status != want.Code.Status() {
				t.Errorf("got %d %+v, want %d %+v", refused.Status, refused.Err, want.Code.Status(), want)
			}
			if wait := refused.RetryAfter; (want.Code == protocol.Draining) != (wait == retryAfter) {
				t.Errorf("%s: retry after %v", want.Code, wait)
			}
			if !errors.Is(err, &protocol.Error{Code: want.Code}) || !strings.Contains(err.Error(), want.Message) {
				t.Errorf("%v hides its cause", err)
			}
		}
	})
}

// Answers of what is no tunnel server, or a damaged one, each with an error
// that tells what it was and what to do.
func TestAnswers(t *testing.T) {
	const ours = "HTTP/1.1 503 X\r\nTunnel-Error: draining\r\nConnection: close\r\n"
	for _, tt := range []struct {
		name, answer string
		status       int
		code         protocol.Code
		want         []string
	}{
		{"page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n<html>", 200, "", []string{"200 OK", "--server"}},
		{"not found", "HTTP/1.1 404 Nope\r\nContent-Length: 6\r\n\r\n<html>", 404, "", []string{"404 Not Found", "--server"}},
		{"unauthorized by another", "HTTP/1.1 401 X\r\n\r\n", 401, "", []string{"401", "does not come from a tunnel server"}},
		{"redirect", "HTTP/1.1 301 X\r\nLocation: https://user:pass@other.example/x\r\n\r\n", 301, "", []string{`"https://other.example"`, "--server"}},
		{"redirect to a page", "HTTP/1.1 302 X\r\nLocation: /login\r\n\r\n", 302, "", []string{"302 Found, and"}},
		{"redirect to nowhere", "HTTP/1.1 302 X\r\n\r\n", 302, "", []string{"302 Found, and"}},
		{"gateway", "HTTP/1.1 502 \x1b[31mred\r\n\r\n", 502, "", []string{"502 Bad Gateway", "in front of it"}},
		{"unknown status", "HTTP/1.1 599 \x1b\r\n\r\n", 599, "", []string{"599,"}},
		{"closed at once", "", 0, "", []string{"without an answer", "EOF", "https://"}},
		{"cut", "HTTP/1.1 101 Switch", 0, "", []string{"in the middle of the answer"}},
		{"garbage", "SSH-2.0-OpenSSH_9.2\x1b[31m\r\n", 0, "", []string{"not HTTP", `"SSH-2.0-OpenSSH_9.2\x1b[31m"`}},
		{"bad header", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0, "", []string{"not well-formed"}},
		{"TLS alert", "\x15\x03\x01\x00\x02\x02\x46", 0, "", []string{"https://"}},
		{"endless head", "HTTP/1.1 101 X\r\nX: " + strings.Repeat("x", maxAnswer) + "\r\n\r\n", 0, "", []string{"over 65536 bytes"}},
		{"endless hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxAnswer/28+1), 0, "", []string{"over 65536 bytes"}},
		{"switch to another", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 101, "", []string{"another protocol"}},
		{"switch without Connection", "HTTP/1.1 101 X\r\nUpgrade: UPGRADE\r\n\r\n", 101, "", []string{"another protocol"}},
		{"switch without Upgrade", "HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n", 101, "", []string{"another protocol"}},

		{"refusal", ours + "\r\n" + `{"error":{"code":"ignored","message":"a\u001b[31m\nb","hint":"c\td"}}`, 503, "draining", []string{"a [31m b (draining): c d"}},
		{"refusal without body", ours + "Content-Length: 0\r\n\r\n", 503, "draining", []string{"503 Service Unavailable (draining)"}},
		{"refusal with a page", ours + "\r\n<html>", 503, "draining", []string{"503 Service Unavailable (draining)"}},
		{"refusal, cut", ours + "Content-Length: 99\r\n\r\n{", 503, "draining", []string{"503 Service Unavailable (draining)"}},
		{"refusal, endless", ours + "\r\n" + `{"error":{"message":"` + strings.Repeat("x", 2*maxAnswer) + `"}}`, 503, "draining", []string{"503 Service Unavailable (draining)"}},
		{"code that is none", "HTTP/1.1 503 X\r\nTunnel-Error: Not a code\r\n\r\n", 503, "", []string{"503"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both(t, func(t *testing.T, kind Kind) {
				addr := listen(t, func(conn net.Conn) {
					readRequest(conn)
					answer := strings.ReplaceAll(tt.answer, "UPGRADE", map[Kind]string{Raw: "tunnel.v1", WebSocket: "websocket"}[kind])
					io.WriteString(conn, answer)
				})
				conn, err := (&Dialer{Server: addr, Token: "secret-token"}).Dial(bounded(t), kind, session)
				if err == nil {
					t.Fatalf("got a %T", conn)
				}
				checkAnswerError(t, err, tt.status, tt.code)
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
			})
		})
	}
}

// checkAnswerError checks what holds for each error after the connection.
func checkAnswerError(t *testing.T, err error, status int, code protocol.Code) {
	t.Helper()
	var refused *Refused
	var upgrade *UpgradeError
	switch {
	case errors.As(err, &refused):
		if refused.Status != status || refused.Err.Code != code {
			t.Errorf("refused with %d %s, want %d %s", refused.Status, refused.Err.Code, status, code)
		}
	case errors.As(err, &upgrade):
		if upgrade.Status != status || code != "" {
			t.Errorf("no upgrade, with status %d; want %d %s", upgrade.Status, status, code)
		}
	default:
		t.Errorf("%T: %v", err, err)
	}
	text := err.Error()
	if len(text) > 3*maxText || text != printable(text) && len(text) <= maxText || strings.Contains(text, "secret") {
		t.Errorf("%q is not fit for a terminal", text)
	}
}

// WebSocket has faults of its own. None of them waits for the peer to hang up.
func TestWebSocketAnswers(t *testing.T) {
	for name, head := range map[string]string{
		"wrong key":      "Sec-WebSocket-Accept: AAAA\r\nSec-WebSocket-Protocol: tunnel.v1\r\n",
		"no subprotocol": "Sec-WebSocket-Accept: KEY\r\n",
		"other":          "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: chat\r\n",
		"escapes":        "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: a, \u009b31m\r\n",
		"long":           "Sec-WebSocket-Accept: " + strings.Repeat("x", maxAnswer/2) + "\r\n",
		"compression":    "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: tunnel.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan struct{})
			addr := listen(t, func(conn net.Conn) {
				req := readRequest(conn)
				head := strings.ReplaceAll(head, "KEY", acceptKey(req.Header.Get("Sec-WebSocket-Key")))
				io.WriteString(conn, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"+head+"\r\n")
				io.Copy(io.Discard, conn) // until the client gives up
				close(closed)
			})
			base := new(watched)
			conn, err := (&Dialer{Server: addr, DialContext: base.dial}).Dial(bounded(t), WebSocket, session)
			if err == nil {
				t.Fatalf("got a %T", conn)
			}
			checkAnswerError(t, err, 101, "")
			if base.more {
				t.Error("it waited for more of an answer that is of no use")
			}
			<-closed
		})
	}
}

func TestUnreachable(t *testing.T) {
	gone := listen(t, func(net.Conn) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Host = l.Addr().String()
	l.Close()
	noHost := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "made-up.invalid", IsNotFound: true}}
	}
	for _, tt := range []struct {
		name string
		d    *Dialer
		want []string
	}{
		{"refused", &Dialer{Server: gone}, []string{gone.Host, "connection refused", "--server", "running"}},
		{"no such host", &Dialer{Server: mustParse(t, "https://made-up.invalid"), DialContext: noHost}, []string{"made-up.invalid:443", "no such host", "--server"}},
		{"proxy refused", &Dialer{Server: mustParse(t, "http://x.invalid"), Proxy: via(gone)}, []string{"the proxy at " + gone.Host, "--proxy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := tt.d.Dial(bounded(t), Raw, session)
			if err == nil {
				t.Fatalf("got a %T", conn)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q shows the proxy's password", err)
			}
		})
	}
}

func TestDialerChecks(t *testing.T) {
	ok := mustParse(t, "http://127.0.0.1:1")
	for name, tt := range map[string]struct {
		d    Dialer
		kind Kind
		id   string
	}{
		"kind":    {Dialer{Server: ok}, "quic", session},
		"session": {Dialer{Server: ok}, Raw, ""},
		"nil":     {Dialer{}, Raw, session},
		"scheme":  {Dialer{Server: mustParse(t, "ftp://x")}, Raw, session},
		"host":    {Dialer{Server: mustParse(t, "http:///x")}, Raw, session},
		"user":    {Dialer{Server: mustParse(t, "http://u:secret@x")}, Raw, session},
		"token":   {Dialer{Server: ok, Token: "secret\r\nX: y"}, Raw, session},
		"agent":   {Dialer{Server: ok, Agent: "secret\n"}, WebSocket, session},
		"proxy":   {Dialer{Server: ok, Proxy: via(mustParse(t, "socks5://u:secret@x"))}, Raw, session},
	} {
		t.Run(name, func(t *testing.T) {
			tt.d.DialContext = func(context.Context, string, string) (net.Conn, error) {
				t.Error("it dialled")
				return nil, io.EOF
			}
			conn, err := tt.d.Dial(bounded(t), tt.kind, tt.id)
			if conn != nil || err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, %v", conn, err)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"http://Example.com":        "example.com:80",
		"https://example.com":       "example.com:443",
		"https://example.com:8443":  "example.com:8443",
		"http://[::1]":              "[::1]:80",
		"http://[::1]:8080":         "[::1]:8080",
		"http://[fe80::1%25lo]:1":   "[fe80::1%lo]:1",
		"http://under_score.test:1": "under_score.test:1",
		"https://bücher.example":    "xn--bcher-kva.example:443",
	} {
		if got := address(mustParse(t, raw)); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// Wherever the other side falls silent, ctx ends the dial and the connection.
func TestCancel(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server string // scheme
		proxy  string // scheme, "" for none
		step   string // of silence, see silent
	}{
		{"upgrade", "http", "", "upgrade"},
		{"TLS", "https", "", "connect"},
		{"CONNECT", "http", "http", "connect"},
		{"TLS of the proxy", "http", "https", "connect"},
		{"TLS through a proxy", "https", "http", "tunnel"},
		{"upgrade through a proxy", "http", "http", "tunnel"},
		{"refusal's body", "http", "", "body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both(t, func(t *testing.T, kind Kind) {
				reached, closed := make(chan struct{}), make(chan struct{})
				addr := listen(t, func(conn net.Conn) {
					silent(conn, tt.step)
					close(reached)
					io.Copy(io.Discard, conn)
					close(closed)
				})
				d := &Dialer{Server: &url.URL{Scheme: tt.server, Host: addr.Host}}
				if tt.proxy != "" {
					d.Server.Host = "made-up.invalid"
					d.Proxy = via(&url.URL{Scheme: tt.proxy, Host: addr.Host})
				}
				ctx, cancel := context.WithCancel(bounded(t))
				go func() {
					<-reached
					cancel()
				}()
				conn, err := d.Dial(ctx, kind, session)
				if conn != nil || err == nil {
					t.Fatalf("got %v, %v", conn, err)
				}
				if refused := new(Refused); !errors.Is(err, context.Canceled) && !errors.As(err, &refused) {
					t.Errorf("got %v", err)
				}
				<-closed
			})
		})
	}
	t.Run("connect", func(t *testing.T) {
		ctx, cancel := context.WithCancel(bounded(t))
		d := &Dialer{Server: mustParse(t, "http://x.invalid"), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		if _, err := d.Dial(ctx, Raw, session); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("after the answer", func(t *testing.T) {
		s := newServer(t, (*httptest.Server).Start)
		ctx, cancel := context.WithCancel(bounded(t))
		base := &watched{headRead: cancel}
		conn, err := (&Dialer{Server: s.URL, DialContext: base.dial}).Dial(ctx, Raw, session)
		if conn != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", conn, err)
		}
		if rest, _ := io.ReadAll(s.next(t).conn); len(rest) > 0 {
			t.Errorf("the server read %q", rest)
		}
	})
	t.Run("before", func(t *testing.T) {
		s := newServer(t, (*httptest.Server).Start)
		ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
		defer cancel()
		if conn, err := (&Dialer{Server: s.URL}).Dial(ctx, Raw, session); conn != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", conn, err)
		}
	})
}

// silent speaks up to a step and no further.
func silent(conn net.Conn, step string) {
	one := make([]byte, 1)
	switch step {
	case "connect":
		conn.Read(one)
	case "tunnel":
		readRequest(conn)
		io.WriteString(conn, "HTTP/1.0 200 Connection established\r\n\r\n")
		conn.Read(one)
	case "upgrade":
		readRequest(conn)
	case "body":
		readRequest(conn)
		io.WriteString(conn, "HTTP/1.1 503 X\r\nTunnel-Error: draining\r\nContent-Length: 99\r\n\r\n{")
	}
}

// watched is the dialled connection, watched.
type watched struct {
	net.Conn
	headRead func()

	seen []byte
	more bool // was read from after the answer's head
}

func (w *watched) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	w.Conn = conn
	return w, err
}

func (w *watched) Read(p []byte) (int, error) {
	end := []byte("\r\n\r\n")
	w.more = w.more || bytes.Contains(w.seen, end)
	n, err := w.Conn.Read(p)
	if w.seen = append(w.seen, p[:n]...); bytes.Contains(w.seen, end) && w.headRead != nil {
		w.headRead()
	}
	return n, err
}
