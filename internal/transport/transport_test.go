package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

func TestUpgrade(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		s := newServer(t, (*httptest.Server).Start)
		d := &Dialer{Server: mustParse(t, s.Server.URL+"/a%2Fb/"), Token: "token-123", Agent: "test/1"}
		ctx, cancel := context.WithCancel(bounded(t))
		client, err := d.Dial(ctx, kind, session)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		a := s.next(t)
		cancel() // has no hold on what it made
		exchangeBytes(t, client, a.conn)

		if a.kind != kind {
			t.Errorf("accepted as %q, dialled as %q", a.kind, kind)
		}
		if want := "/a%2Fb/.well-known/tunnel/" + session; a.req.URL.EscapedPath() != want {
			t.Errorf("path %q, want %q", a.req.URL.EscapedPath(), want)
		}
		if a.req.Host != s.URL.Host {
			t.Errorf("host %q, want %q", a.req.Host, s.URL.Host)
		}
		for name, want := range map[string]string{"Authorization": "Bearer token-123", "User-Agent": "test/1"} {
			if got := a.req.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got := client.RemoteAddr().String(); got != s.Listener.Addr().String() {
			t.Errorf("client's remote address is %v", got)
		}
		if a.conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("server sees %v, client is %v", a.conn.RemoteAddr(), client.LocalAddr())
		}
	})
}

func TestNoTokenNoHeader(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		s := newServer(t, (*httptest.Server).Start)
		dial(t, &Dialer{Server: s.URL}, kind)
		if got := s.next(t).req.Header.Values("Authorization"); len(got) != 0 {
			t.Errorf("Authorization is %q", got)
		}
	})
}

// A raw connection is the socket itself, so that its options can be set and
// its ends closed one by one.
func TestRawIsTheSocket(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	client := dial(t, &Dialer{Server: s.URL}, Raw)
	other := s.next(t).conn
	for name, conn := range map[string]net.Conn{"client": client, "server": other} {
		if _, ok := conn.(*net.TCPConn); !ok {
			t.Errorf("the %s's end is a %T", name, conn)
		}
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(other); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v", rest, err)
	}
	if _, err := io.WriteString(other, "late"); err != nil {
		t.Fatal(err)
	}
	expect(t, client, "late")
}

// Megabytes both ways at once, in pieces of every size.
func TestBulk(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		s := newServer(t, (*httptest.Server).Start)
		client := dial(t, &Dialer{Server: s.URL}, kind)
		other := s.next(t).conn
		data := make([]byte, 4<<20)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		ends := make(chan error, 3)
		for _, conn := range []net.Conn{client, other} {
			go func() { ends <- writePieces(conn, data) }()
		}
		go func() { ends <- readSame(other, data) }()
		if err := readSame(client, data); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
	})
}

func writePieces(w io.Writer, data []byte) error {
	for len(data) > 0 {
		n := min(rand.IntN(100_000), len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func readSame(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("read other bytes than were written")
	}
	return nil
}

// Bytes that come in one piece with the request belong to the new protocol.
func TestPipelinedBehindRequest(t *testing.T) {
	frame := []byte{0x82, 0x85, 0, 0, 0, 0, 'e', 'a', 'r', 'l', 'y'} // masked with zeros
	for _, tt := range []struct {
		kind  Kind
		head  string
		early []byte
	}{
		{Raw, "Upgrade: tunnel.v1\r\n", []byte("early")},
		{WebSocket, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: tunnel.v1\r\n", frame},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			s := newServer(t, (*httptest.Server).Start)
			conn, err := net.Dial("tcp", s.URL.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			head := "GET /.well-known/tunnel/x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, UPGRADE\r\n" + tt.head + "\r\n"
			if _, err := conn.Write(append([]byte(head), tt.early...)); err != nil {
				t.Fatal(err)
			}
			a := s.next(t)
			expect(t, a.conn, "early")
			below := a.conn
			if ws, ok := below.(*webSocketConn); ok {
				below = ws.NetConn()
			}
			if rest, ok := below.(*restConn); !ok {
				t.Errorf("nothing was read ahead: %T", below)
			} else if _, ok := rest.NetConn().(*net.TCPConn); !ok {
				t.Errorf("the socket is out of reach: %T", rest.NetConn())
			}
		})
	}
}

// Bytes that come in one piece with the 101 belong to the new protocol.
func TestPipelinedBehindAnswer(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		addr := listen(t, func(conn net.Conn) {
			req := readRequest(conn)
			answer, early := "Upgrade: tunnel.v1\r\n", "early"
			if kind == WebSocket {
				answer = "Upgrade: WebSocket\r\nSec-WebSocket-Protocol: tunnel.v1\r\nSec-WebSocket-Accept: " + acceptKey(req.Header.Get("Sec-WebSocket-Key")) + "\r\n"
				early = "\x82\x05early"
			}
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 Go\r\nConnection: foo, upgrade\r\n"+answer+"\r\n"+early)
			io.Copy(io.Discard, conn)
		})
		conn := dial(t, &Dialer{Server: addr}, kind)
		expect(t, conn, "early")
		if rest, ok := conn.(*restConn); kind == Raw && !ok {
			t.Errorf("nothing was read ahead: %T", conn)
		} else if ok {
			if err := rest.CloseWrite(); err != nil {
				t.Errorf("close the writing side: %v", err)
			}
		}
	})
}

// The peer's close is an end, our own close is none, and it is immediate.
func TestClose(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		for _, clientCloses := range []bool{true, false} {
			s := newServer(t, (*httptest.Server).Start)
			one, other := dial(t, &Dialer{Server: s.URL}, kind), s.next(t).conn
			if !clientCloses {
				one, other = other, one
			}
			reading := make(chan error, 1)
			go func() {
				_, err := one.Read(make([]byte, 1))
				reading <- err
			}()
			if err := one.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if err := <-reading; !errors.Is(err, net.ErrClosed) {
				t.Errorf("own end read %v, want net.ErrClosed", err)
			}
			if _, err := one.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("own end wrote: %v, want net.ErrClosed", err)
			}
			for range 2 {
				if n, err := other.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("the other end read %d, %v; want io.EOF", n, err)
				}
			}
		}
	})
}

func TestDeadline(t *testing.T) {
	both(t, func(t *testing.T, kind Kind) {
		s := newServer(t, (*httptest.Server).Start)
		conns := []net.Conn{dial(t, &Dialer{Server: s.URL}, kind), s.next(t).conn}
		exchangeBytes(t, conns[0], conns[1])
		for _, conn := range conns {
			if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
			if err := conn.SetWriteDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
		}
	})
}

// A peer that breaks the rules of RFC 6455 ends the connection with an error.
func TestWebSocketViolations(t *testing.T) {
	for name, frame := range map[string]string{
		"unmasked":           "\x82\x05early",
		"text":               "\x81\x85\x00\x00\x00\x00early",
		"reserved bit":       "\xc2\x85\x00\x00\x00\x00early",
		"unknown opcode":     "\x83\x85\x00\x00\x00\x00early",
		"lone continuation":  "\x80\x85\x00\x00\x00\x00early",
		"negative length":    "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
		"long control frame": "\x89\xfe\x01\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, (*httptest.Server).Start)
			client := dial(t, &Dialer{Server: s.URL}, WebSocket)
			other := s.next(t).conn
			if _, err := io.WriteString(client.(*webSocketConn).Conn, frame); err != nil {
				t.Fatal(err)
			}
			if n, err := other.Read(make([]byte, 8)); n > 0 || err == nil || err == io.EOF {
				t.Errorf("read %d, %v; want an error", n, err)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		code   protocol.Code
		status int
		header map[string]string
	}{
		{protocol.Unauthorized, 401, map[string]string{"Www-Authenticate": "Bearer"}},
		{protocol.SessionTaken, 409, nil},
		{protocol.UpgradeRequired, 426, nil},
		{protocol.TooManyNames, 429, map[string]string{"Retry-After": "5"}},
		{protocol.Draining, 503, map[string]string{"Retry-After": "5"}},
	} {
		t.Run(string(tt.code), func(t *testing.T) {
			w := httptest.NewRecorder()
			Refuse(w, &protocol.Error{Code: tt.code, Message: "because", Hint: "do <this>"})
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			for _, name := range []string{"Www-Authenticate", "Retry-After"} {
				if got := w.Header().Get(name); got != tt.header[name] {
					t.Errorf("%s: %q, want %q", name, got, tt.header[name])
				}
			}
			for name, want := range map[string]string{
				"Tunnel-Error": string(tt.code), "Cache-Control": "no-store", "Content-Type": "application/json",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			want := `{"error":{"code":"` + string(tt.code) + `","message":"because","hint":"do \u003cthis\u003e"}}`
			if got := w.Body.String(); got != want {
				t.Errorf("body %s, want %s", got, want)
			}
		})
	}
}

func readRequest(conn net.Conn) *http.Request {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		panic(err)
	}
	return req
}

// acceptKey is Sec-WebSocket-Accept (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A refusal does not wait for a body, and the connection does not wait for it long.
func TestRefuseWithBody(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	for _, upgrade := range []string{"Connection: Upgrade\r\nUpgrade: tunnel.v1\r\n", ""} {
		conn, err := net.Dial("tcp", s.URL.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+upgrade+"Content-Length: 1000\r\n\r\n")
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !res.Close || res.Header.Get("Tunnel-Error") == "" || upgrade == "" && res.Header.Get("Upgrade") == "" {
			t.Errorf("got %d with %q", res.StatusCode, res.Header)
		}
		_, err = io.Copy(io.Discard, res.Body)
		if err == nil {
			_, err = r.ReadByte()
		}
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Error("the connection stays open")
		}
		<-s.accepted
	}
}
