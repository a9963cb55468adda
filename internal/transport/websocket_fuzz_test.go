package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

// greeted is a connection to a server that opens a WebSocket, and then sends in.
type greeted struct {
	kept
	asked bool
}

func (g *greeted) Read(p []byte) (int, error) {
	if !g.asked {
		g.asked = true
		req, err := http.ReadRequest(bufio.NewReader(&g.out))
		if err != nil {
			return 0, err
		}
		head := "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: tunnel.v1\r\n" +
			"Sec-WebSocket-Accept: " + acceptKey(req.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n"
		g.in = io.MultiReader(strings.NewReader(head), g.in)
	}
	return g.in.Read(p)
}

// opened is one end of a WebSocket whose peer sends in.
func opened(t *testing.T, in []byte, atServer bool) (net.Conn, *bytes.Buffer) {
	t.Helper()
	if atServer {
		conn := &kept{scripted: scripted{in: bytes.NewReader(in)}}
		req := parseRequest(t, webSocketHead)
		got, _, err := Accept(hijacked{httptest.NewRecorder(), conn, bufio.NewReader(conn)}, req)
		if err != nil {
			t.Fatal(err)
		}
		conn.out.Reset()
		return got, &conn.out
	}
	conn := &greeted{kept: kept{scripted: scripted{in: bytes.NewReader(in)}}}
	d := &Dialer{Server: mustParse(t, "http://made-up.invalid"), DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	got, err := d.Dial(context.Background(), WebSocket, session)
	if err != nil {
		t.Fatal(err)
	}
	return got, &conn.out
}

// peerFrames are frames of RFC 6455, section 5.2, as a peer sends them.
type peerFrames struct {
	in       []byte
	atServer bool
	cut      bool // the last frame is not all there
}

// next takes one frame. ok is false where it breaks a rule; what came of it may
// be less than it announced.
func (f *peerFrames) next() (first byte, payload []byte, ok bool) {
	take := func(n uint64) []byte {
		p := f.in[:min(n, uint64(len(f.in)))]
		f.in = f.in[len(p):]
		return p
	}
	head := take(2)
	if len(head) < 2 {
		return 0, nil, false
	}
	first, masked, n := head[0], head[1]&0x80 != 0, uint64(head[1]&0x7f)
	if extended := map[uint64]uint64{126: 2, 127: 8}[n]; extended > 0 {
		length := take(extended)
		if uint64(len(length)) < extended {
			return 0, nil, false
		}
		n = binary.BigEndian.Uint64(append(make([]byte, 8-extended), length...))
	}
	var key []byte
	if masked {
		if key = take(4); len(key) < 4 {
			return 0, nil, false
		}
	}
	f.cut = n > uint64(len(f.in))
	control := first&0x08 != 0
	if n>>63 != 0 || first&0x70 != 0 || f.atServer && !masked || control && (n > 125 || first&0x80 == 0) {
		return 0, nil, false
	}
	payload = bytes.Clone(take(n))
	// A client is to hang up on a masked frame (section 5.1). Package websocket takes it
	// there, and a message as it came: garbage, for the multiplexer to hang up on.
	for i := range payload {
		if masked && (f.atServer || control) {
			payload[i] ^= key[i%4]
		}
	}
	return first, payload, !control || !f.cut
}

// read returns what the bytes carry before they end or break a rule, how much of it
// is in frames that came whole, and how many pings there were.
func (f *peerFrames) read() (data []byte, whole, pings int) {
	inside := false // a message that has begun
	for {
		first, payload, ok := f.next()
		opcode, final := first&0x0f, first&0x80 != 0
		switch {
		case !ok:
			return data, whole, pings
		case opcode == 0x9:
			pings++
		case opcode == 0xa:
		case opcode == 0 && inside, opcode == 2 && !inside:
			data = append(data, payload...)
			inside = !final
			if !f.cut {
				whole = len(data)
			}
		default: // close, text, unknown, or out of order
			return data, whole, pings
		}
	}
}

// FuzzWebSocket holds what is read of a WebSocket, at both ends, to a parser of RFC 6455
// of its own: the bytes of binary messages and no others, up to the first fault; what
// is answered is a pong for each ping, and a close.
func FuzzWebSocket(f *testing.F) {
	const mask = "\x01\x02\x03\x04"
	masked := func(first byte, payload string) string {
		b := []byte{first, 0x80 | byte(len(payload))}
		b = append(b, mask...)
		for i, c := range []byte(payload) {
			b = append(b, c^mask[i%4])
		}
		return string(b)
	}
	plain := func(first byte, payload string) string { return string([]byte{first, byte(len(payload))}) + payload }
	for _, frame := range []func(byte, string) string{masked, plain} {
		for _, in := range []string{
			frame(0x82, "hello") + frame(0x82, "") + frame(0x82, "world"), frame(0x02, "in ") + frame(0x89, "ping") + frame(0x00, "three ") + frame(0x80, "parts"),
			frame(0x81, "text"), frame(0x80, "nothing to continue"), frame(0x02, "begun") + frame(0x82, "again"), frame(0xc2, "compressed"),
			frame(0x82, "hello") + frame(0x88, "\x03\xe8bye") + frame(0x82, "more"), frame(0x88, ""), frame(0x88, "\x03"), frame(0x09, "in parts"), frame(0x8a, "pong"),
			frame(0x82, "hello")[:5], "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask + "x", "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffx", "\x82\xfe\x00\x03" + mask + "abc",
		} {
			f.Add([]byte(in), true)
			f.Add([]byte(in), false)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, atServer bool) {
		conn, out := opened(t, in, atServer)
		defer conn.Close()
		got, err := io.ReadAll(conn)
		want, whole, pings := (&peerFrames{in: in, atServer: atServer}).read()
		if !bytes.HasPrefix(want, got) || len(got) < whole {
			t.Fatalf("%x: read %q, want %q; %v", in, got, want, err)
		}
		if _, again := conn.Read(make([]byte, 1)); again == nil || err == nil && again != io.EOF {
			t.Errorf("%x: after %v came %v", in, err, again)
		}
		answers := &peerFrames{in: out.Bytes(), atServer: !atServer}
		for closed := false; len(answers.in) > 0; {
			first, payload, ok := answers.next()
			switch {
			case !ok || closed:
				t.Fatalf("%x: answered with %x", in, out.Bytes())
			case first == 0x8a && pings > 0:
				pings--
			case first == 0x88:
				closed = true
			default:
				t.Fatalf("%x: answered with a frame %x %q", in, first, payload)
			}
		}
	})
}

// FuzzConnect lets a forward proxy answer anything: a connection is what a 2xx to
// CONNECT and then a 101 made, with each byte behind both; else the error is fit for
// a terminal, and has no password.
func FuzzConnect(f *testing.F) {
	const ok, upgraded = "HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: tunnel.v1\r\n\r\n"
	for _, in := range []string{
		ok + upgraded + "bytes", "HTTP/1.1 103 X\r\n\r\n" + ok + upgraded, "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n" + upgraded, upgraded + ok,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + upgraded, ok + "HTTP/1.1 200 OK\r\n\r\n" + upgraded, ok, "",
		upgraded + upgraded, "HTTP/1.1 302 X\r\n\r\n" + upgraded, "HTTP/1.1 407 X\r\n\r\n" + upgraded, "HTTP/1.1 407 X\r\nProxy-Authenticate: " + strings.Repeat("x", 4*maxText) + "\r\n\r\n",
		"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM \x1b\r\n\r\n", "HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=secret\r\n\r\n", "HTTP/1.1 403 \x9b\r\n\r\n", "HTTP/1.1 302 X\r\nLocation: http://secret\r\n\r\n",
	} {
		f.Add([]byte(in))
	}
	proxy := func() func(*url.URL) (*url.URL, error) {
		p, err := FixedProxy("http://user:pa55word@proxy.invalid")
		if err != nil {
			f.Fatal(err)
		}
		return p
	}()
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Contains(in, []byte("pa55word")) {
			return // an error may quote it
		}
		d := &Dialer{Server: mustParse(t, "http://made-up.invalid"), Proxy: proxy, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &scripted{in: bytes.NewReader(in)}, nil
		}}
		conn, err := d.Dial(context.Background(), Raw, session)
		if err != nil {
			checkConnectError(t, err)
			return
		}
		rest, err := io.ReadAll(conn)
		r := bufio.NewReaderSize(bytes.NewReader(in), max(len(in), 16))
		for want := range 2 {
			res := finalAnswer(t, r, want)
			if want == 0 && res.StatusCode/100 != 2 || want == 1 && (res.StatusCode != 101 || !strings.EqualFold(res.Header.Get("Upgrade"), protocol.Upgrade)) {
				t.Fatalf("%q made a connection, with answer %d %+v", in, want, res)
			}
		}
		if want, _ := io.ReadAll(r); err != nil || !bytes.Equal(rest, want) {
			t.Errorf("%q: %q, %v came behind the answers, want %q", in, rest, err, want)
		}
	})
}

// finalAnswer reads the first answer that is not interim, without its body.
func finalAnswer(t *testing.T, r *bufio.Reader, n int) *http.Response {
	t.Helper()
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", n, err)
		}
		if res.StatusCode/100 != 1 || res.StatusCode == http.StatusSwitchingProtocols {
			return res
		}
	}
}

func checkConnectError(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 3*maxText || text != strings.Map(visible, text) || strings.Contains(text, "pa55word") {
		t.Errorf("%q is not fit for a terminal", text)
	}
	var refused *Refused
	var upgrade *UpgradeError
	if !errors.As(err, &refused) && !errors.As(err, &upgrade) && !strings.HasPrefix(text, "proxy http://proxy.invalid: ") {
		t.Errorf("%q does not say who answered", text)
	}
}

// visible replaces what moves a terminal's cursor, or worse.
func visible(r rune) rune {
	if r < ' ' || 0x7f <= r && r < 0xa0 {
		return '.'
	}
	return r
}
