package transport

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

const rawHead = "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: tunnel.v1"

const webSocketHead = "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\n" +
	"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-WebSocket-Protocol: tunnel.v1"

// What is no upgrade is refused, as an HTTP response, and stays HTTP.
func TestAcceptRefuses(t *testing.T) {
	change := strings.NewReplacer
	for _, tt := range []struct {
		name, head string
		code       protocol.Code
	}{
		{"no upgrade", "GET / HTTP/1.1", protocol.UpgradeRequired},
		{"other upgrade", "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c, tunnel.v2", protocol.UpgradeRequired},
		{"part of a token", "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: tunnel.v1x", protocol.UpgradeRequired},
		{"no Connection", "GET / HTTP/1.1\nUpgrade: tunnel.v1", protocol.UpgradeRequired},
		{"other Connection", "GET / HTTP/1.1\nConnection: keep-alive\nUpgrade: tunnel.v1", protocol.UpgradeRequired},
		{"HTTP/1.0", change("1.1", "1.0").Replace(rawHead), protocol.UpgradeRequired},
		{"HTTP/1.0 WebSocket", change("1.1", "1.0").Replace(webSocketHead), protocol.UpgradeRequired},
		{"POST", change("GET", "POST").Replace(rawHead), protocol.ProtocolViolation},
		{"POST WebSocket", change("GET", "POST").Replace(webSocketHead), protocol.ProtocolViolation},
		{"body", rawHead + "\nContent-Length: 5", protocol.ProtocolViolation},
		{"chunked body", rawHead + "\nTransfer-Encoding: chunked", protocol.ProtocolViolation},
		{"body WebSocket", webSocketHead + "\nContent-Length: 5", protocol.ProtocolViolation},
		{"browser", webSocketHead + "\nOrigin: http://x", protocol.ProtocolViolation},
		{"sandboxed browser", webSocketHead + "\nOrigin: null", protocol.ProtocolViolation},
		{"browser, empty origin", webSocketHead + "\nOrigin:", protocol.ProtocolViolation},
		{"browser, raw", rawHead + "\nOrigin: http://x", protocol.ProtocolViolation},
		{"no key", change("Sec-WebSocket-Key", "X").Replace(webSocketHead), protocol.ProtocolViolation},
		{"two keys", webSocketHead + "\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", protocol.ProtocolViolation},
		{"short key", change("AAAA", "AA").Replace(webSocketHead), protocol.ProtocolViolation},
		{"old version", change("Version: 13", "Version: 8").Replace(webSocketHead), protocol.ProtocolViolation},
		{"no subprotocol", change("Sec-WebSocket-Protocol", "X").Replace(webSocketHead), protocol.VersionUnsupported},
		{"other subprotocol", change("tunnel.v1", "tunnel.v2, chat").Replace(webSocketHead), protocol.VersionUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, (*httptest.Server).Start)
			conn, err := net.Dial("tcp", s.URL.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			head := strings.ReplaceAll(tt.head, "\n", "\r\n") + "\r\nHost: x\r\n\r\n"
			if strings.Contains(head, "chunked") {
				head += "5\r\nhello\r\n0\r\n\r\n"
			} else if strings.Contains(head, "Content-Length: 5") {
				head += "hello"
			}
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			checkRefusal(t, resp, tt.code)
			lists := resp.Header.Get("Upgrade") == spoken
			if !resp.Close { // as it is to HTTP/1.0
				lists = lists && resp.Header.Get("Connection") == "Upgrade"
			}
			if lists != (tt.code == protocol.UpgradeRequired) {
				t.Errorf("Upgrade: %q, Connection: %q", resp.Header.Get("Upgrade"), resp.Header.Get("Connection"))
			}
			if a := <-s.accepted; a.conn != nil || !errors.Is(a.err, &protocol.Error{Code: tt.code}) {
				t.Errorf("Accept returned %v, %v", a.conn, a.err)
			}
		})
	}
}

func checkRefusal(t *testing.T, resp *http.Response, code protocol.Code) {
	t.Helper()
	if resp.StatusCode != code.Status() || resp.Header.Get("Tunnel-Error") != string(code) {
		t.Errorf("got %s with Tunnel-Error %q, want %d with %q", resp.Status, resp.Header.Get("Tunnel-Error"), code.Status(), code)
	}
	var body protocol.Refusal
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || body.Error == nil || body.Error.Code != code || body.Error.Message == "" {
		t.Errorf("body: %v, %+v", err, body.Error)
	}
}

// A head that has no fault but one in TestAcceptRefuses has none there.
func TestAcceptPlainHead(t *testing.T) {
	for _, head := range []string{
		webSocketHead,
		"GET / HTTP/1.1\nConnection: close\nConnection: x,uPGRADE\nUpgrade: h2c\nUpgrade: TUNNEL.V1\nContent-Length: 0",
	} {
		s := newServer(t, (*httptest.Server).Start)
		conn, err := net.Dial("tcp", s.URL.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")+"\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		s.next(t)
	}
}

func TestAcceptHTTP2(t *testing.T) {
	s := newServer(t, (*httptest.Server).StartTLS)
	resp, err := s.Client().Get(s.Server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Fatalf("the test spoke %s", resp.Proto)
	}
	checkRefusal(t, resp, protocol.UpgradeRequired)
	for _, name := range []string{"Upgrade", "Connection"} { // RFC 9113, section 8.2.2
		if got := resp.Header.Values(name); len(got) > 0 {
			t.Errorf("HTTP/2 with %s: %q", name, got)
		}
	}
	<-s.accepted
}

// Where the connection cannot be taken over nothing is written but the refusal.
func TestAcceptWithoutHijack(t *testing.T) {
	for _, head := range []string{rawHead, webSocketHead} {
		r := parseRequest(t, head)
		w := httptest.NewRecorder()
		conn, _, err := Accept(w, r)
		var e *protocol.Error
		if conn != nil || !errors.As(err, &e) {
			t.Fatalf("got %v, %v", conn, err)
		}
		Refuse(w, e)
		checkRefusal(t, w.Result(), protocol.UpgradeRequired)
	}
}

// hijackable is a ResponseWriter of which only the connection works.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// A connection that is lost before the 101 is closed, and no refusal is due.
func TestAcceptLost(t *testing.T) {
	for _, head := range []string{rawHead, webSocketHead} {
		conn, other := net.Pipe()
		other.Close()
		r := parseRequest(t, head)
		lost := &noted{Conn: conn}
		got, _, err := Accept(hijackable{httptest.NewRecorder(), lost}, r)
		var e *protocol.Error
		if got != nil || err == nil || errors.As(err, &e) {
			t.Errorf("got %v, %v", got, err)
		}
		if !lost.closed {
			t.Error("the connection stays open")
		}
	}
}

// noted notes that it was closed.
type noted struct {
	net.Conn
	closed bool
}

func (n *noted) Close() error {
	n.closed = true
	return n.Conn.Close()
}

// parseRequest makes a request of the lines of head.
func parseRequest(t *testing.T, head string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(head, "\n", "\r\n") + "\r\nHost: x\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
