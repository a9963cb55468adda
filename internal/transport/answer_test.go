package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// scripted is a connection that reads in and keeps nothing of what is written.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) Close() error                     { return nil }

// Whatever answers: a connection comes of a 101 for tunnel.v1 alone, with each
// byte behind its head; everything else is an error fit for a terminal.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: tunnel.v1\r\n\r\nbytes",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 101 X\r\nConnection: a, Upgrade\r\nUpgrade: TUNNEL.v1\r\n\r\n",
		"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"HTTP/1.1 503 X\r\nTunnel-Error: draining\r\nRetry-After: 99999\r\n\r\n{\"error\":{\"message\":\"\\u001b\"}}",
		"HTTP/1.1 401 X\r\nTunnel-Error: unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"HTTP/1.1 301 X\r\nLocation: //\x1b/\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\x15\x03\x01", "",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, answer []byte, raw bool) {
		kind := WebSocket
		if raw {
			kind = Raw
		}
		d := &Dialer{Server: mustParse(t, "http://made-up.invalid"), DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &scripted{in: bytes.NewReader(answer)}, nil
		}}
		conn, err := d.Dial(context.Background(), kind, session)
		if err != nil {
			checkFuzzError(t, err)
			return
		}
		if kind == WebSocket {
			t.Fatal("a WebSocket was opened by who does not know its key")
		}
		rest, err := io.ReadAll(conn)
		if err != nil || !bytes.HasSuffix(answer, rest) {
			t.Fatalf("read %q behind the head, %v", rest, err)
		}
		head := answer[:len(answer)-len(rest)]
		if !bytes.Contains(head, []byte("101")) || !bytes.Contains(bytes.ToLower(head), []byte(protocol.Upgrade)) || head[len(head)-1] != '\n' {
			t.Errorf("upgraded by %q", head)
		}
	})
}

func checkFuzzError(t *testing.T, err error) {
	t.Helper()
	var refused *Refused
	var upgrade *UpgradeError
	status := 0
	switch {
	case errors.As(err, &refused):
		status = refused.Status
		if refused.Err.Code == "" || refused.RetryAfter < 0 || refused.RetryAfter > maxRetryAfter {
			t.Errorf("refused: %+v, %+v", refused, refused.Err)
		}
	case errors.As(err, &upgrade):
		status = upgrade.Status
	default:
		t.Errorf("%T: %v", err, err)
	}
	checkAnswerError(t, err, status, codeOf(refused))
}

func codeOf(r *Refused) protocol.Code {
	if r == nil {
		return ""
	}
	return r.Err.Code
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "1.5": 0, "soon": 0,
		"86400": time.Hour, "99999999999999999999": 0,
	} {
		if got := retryAfterOf(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
