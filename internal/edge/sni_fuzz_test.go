package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// scripted is a connection on which data comes in pieces, and then nothing.
type scripted struct {
	tcpConn
	data  []byte
	piece int
	sent  bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p[:min(len(p), s.piece)], s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return s.sent.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzGreeting: whatever comes, in whatever pieces, the name that is routed by is the
// one that a plain reading of the greeting finds, who takes the connection over gets
// each byte that came and can still come, and nothing is said in his place.
func FuzzGreeting(f *testing.F) {
	for name, sent := range greetings(f) {
		f.Add(sent, uint8(len(name)))
		f.Add(sent, uint8(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		conn := &scripted{data: bytes.Clone(data), piece: int(piece) + 1}
		calls, name := 0, ""
		var taken []byte
		door := &Door{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") },
			Route: func(sni string, c net.Conn) bool {
				calls++
				name = sni
				taken, _ = io.ReadAll(c)
				return true
			},
		}
		l := &listener{door: door, config: door.config(), accepting: t.Context()}
		_, err := l.handshake(conn, nil, time.Time{})
		if calls == 0 {
			if errors.Is(err, errRouted) {
				t.Error("routed by nobody")
			}
			return
		}
		if calls > 1 || !errors.Is(err, errRouted) {
			t.Errorf("%d calls, %v", calls, err)
		}
		if !bytes.Equal(taken, data) {
			t.Errorf("%d bytes came, %d arrived", len(data), len(taken))
		}
		if conn.sent.Len() > 0 {
			t.Errorf("the server sent % x", conn.sent.Bytes())
		}
		if want, ok := plainSNI(data); !ok || want != name {
			t.Errorf("routed by %q, and the greeting says %q, %v", name, want, ok)
		}
	})
}

// plainSNI reads the server name of a greeting as RFC 8446, section 4.1.2, and RFC
// 6066, section 3, have it.
func plainSNI(data []byte) (name string, ok bool) {
	records := cryptobyte.String(data)
	var message []byte
	for {
		var kind uint8
		var version uint16
		var body cryptobyte.String
		if !records.ReadUint8(&kind) || !records.ReadUint16(&version) || !records.ReadUint16LengthPrefixed(&body) || kind != 22 {
			return "", false
		}
		message = append(message, body...)
		rest := cryptobyte.String(message)
		var hello, random, session, suites, compressions, extensions cryptobyte.String
		if !rest.ReadUint8(&kind) || !rest.ReadUint24LengthPrefixed(&hello) {
			continue
		}
		if kind != 1 || !hello.Skip(2) || !hello.ReadBytes((*[]byte)(&random), 32) || !hello.ReadUint8LengthPrefixed(&session) ||
			!hello.ReadUint16LengthPrefixed(&suites) || !hello.ReadUint8LengthPrefixed(&compressions) {
			return "", false
		}
		if hello.Empty() {
			return "", true
		}
		if !hello.ReadUint16LengthPrefixed(&extensions) {
			return "", false
		}
		for !extensions.Empty() {
			var id uint16
			var body, names, one cryptobyte.String
			if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&body) {
				return "", false
			}
			if id != 0 {
				continue
			}
			if !body.ReadUint16LengthPrefixed(&names) {
				return "", false
			}
			for !names.Empty() {
				if !names.ReadUint8(&kind) || !names.ReadUint16LengthPrefixed(&one) || kind == 0 && name != "" {
					return "", false
				}
				if kind == 0 {
					name = string(one)
				}
			}
		}
		return name, true
	}
}

// greetings are whole ones: with SNI and without, of each version, with what browsers
// add, and with ECH's outer one.
func greetings(t testing.TB) map[string][]byte {
	all := map[string][]byte{"HTTP": []byte("GET / HTTP/1.1\r\n\r\n"), "SSLv2": {0x80, 0x2e, 1, 0, 2}, "nothing": {}}
	for name, c := range map[string]*tls.Config{
		"TLS 1.3":     {ServerName: "demo.example.com"},
		"TLS 1.2":     {ServerName: "Demo.Example.com", MaxVersion: tls.VersionTLS12},
		"no SNI":      {InsecureSkipVerify: true},
		"address":     {ServerName: "192.0.2.1"},
		"challenge":   {ServerName: "demo.example.com", NextProtos: []string{"acme-tls/1"}},
		"old":         {ServerName: "demo.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"with GREASE": {ServerName: "demo.example.com", NextProtos: []string{"\x0a\x0a", "h2", "http/1.1"}},
	} {
		near, far := net.Pipe()
		go func() {
			tls.Client(near, c).Handshake()
			near.Close()
		}()
		head := make([]byte, 5)
		io.ReadFull(far, head)
		body := make([]byte, int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(far, body); err != nil {
			t.Fatal(err)
		}
		far.Close()
		whole := append(head, body...)
		all[name] = whole
		half := len(body) / 2
		all[name+" in two records"] = append(append([]byte{22, 3, 1, byte(half >> 8), byte(half)}, body[:half]...),
			append([]byte{22, 3, 1, byte((len(body) - half) >> 8), byte(len(body) - half)}, body[half:]...)...)
	}
	return all
}

// A greeting that does not come to an end is bounded in what is kept of it, however
// little of it is in each record.
func TestGreetingBound(t *testing.T) {
	data := []byte{22, 3, 1, 0, 4, 1, 0, 0xff, 0xff}
	for range 60_000 {
		data = append(data, 22, 3, 1, 0, 1, 0)
	}
	for _, piece := range []int{1, 600} {
		conn := &scripted{data: bytes.Clone(data), piece: piece}
		door := &Door{Route: func(string, net.Conn) bool { t.Error("routed"); return false }}
		l := &listener{door: door, config: door.config(), accepting: t.Context()}
		_, err := l.handshake(conn, nil, time.Time{})
		if read := len(data) - len(conn.data); !errors.Is(err, errLongHello) || read > maxHello+piece {
			t.Errorf("in pieces of %d: %d bytes were read, %v", piece, read, err)
		}
	}
}
