package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
	"github.com/revtun/tunnel/pkg/protocol"
)

// sniEdge is a listener whose own certificate is "server", in front of a registry.
type sniEdge struct {
	t        *testing.T
	addr     string
	registry *registry.Memory
	tls      *edge.TLS
	served   atomic.Int64 // connections that had the server's own certificate
}

func startSNI(t *testing.T, limits edge.Limits, park time.Duration) *sniEdge {
	t.Helper()
	s := &sniEdge{t: t, registry: new(registry.Memory)}
	s.tls = &edge.TLS{Registry: s.registry, Domain: "example.com", Park: park}
	own := rig.NewCertificate(t, "server")
	door := &edge.Door{Limits: limits, Route: s.tls.Route, GetCertificate: own.Get}
	tcp := loopback(t)
	s.addr = tcp.Addr().String()
	l := door.Listener(tcp)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.served.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.tls.Shutdown(ctx)
	})
	return s
}

// bind binds name to the app at target, until the release is called.
func (s *sniEdge) bind(name string, kind protocol.Kind, dial func() (net.Conn, error)) registry.Release {
	s.t.Helper()
	release, err := s.registry.Bind(context.Background(), &registry.Route{Name: name, Owner: "a", Kind: kind, Dial: func(_ context.Context, from netip.AddrPort) (net.Conn, error) {
		if !from.IsValid() {
			s.t.Error("the visitor's address is not known")
		}
		return dial()
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return release
}

// secret runs an app of TLS whose certificate's subject is who. It sends back what it
// gets, and ends when the visitor has.
func secret(t *testing.T, who string) (dial func() (net.Conn, error)) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{rig.NewCertificate(t, who).TLS}, NextProtos: []string{"acme-tls/1", "http/1.1"}}
	addr := listener.TCP(t, func(c net.Conn) {
		conn := tls.Server(c, config)
		io.Copy(conn, conn)
		conn.Close()
	})
	return func() (net.Conn, error) { return net.Dial("tcp", addr) }
}

// greet does a handshake, and returns whose certificate was shown.
func (s *sniEdge) greet(conn net.Conn, c *tls.Config) (*tls.Conn, string, error) {
	c = c.Clone()
	c.InsecureSkipVerify = true
	conn.SetDeadline(time.Now().Add(patience))
	v := tls.Client(conn, c)
	if err := v.Handshake(); err != nil {
		return nil, "", err
	}
	return v, v.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func (s *sniEdge) visit() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// Who a visitor gets to talk to is what its SNI says, in each spelling, and for a
// name of kind TLS never the server (S5).
func TestRouteBySNI(t *testing.T) {
	s := startSNI(t, edge.Limits{}, 0)
	s.bind("demo", protocol.KindTLS, secret(t, "demo"))
	s.bind("other", protocol.KindTLS, secret(t, "other"))
	s.bind("app.example.org", protocol.KindTLS, secret(t, "custom"))
	s.bind("web", protocol.KindHTTP, secret(t, "web"))
	s.bind("tcp/20001", protocol.KindTCP, secret(t, "port"))
	s.bind("private/demo", protocol.KindTLS, secret(t, "private"))
	for sni, want := range map[string]string{
		"demo.example.com": "demo", "DEMO.Example.COM": "demo", "other.example.com": "other",
		"app.example.org": "custom", "App.Example.ORG": "custom",
		"": "server", "example.com": "server", "web.example.com": "server", "nobody.example.com": "server",
		"a.demo.example.com": "server", "demo": "server", "demo.example.org": "server", "xexample.com": "server",
		"tcp/20001": "server", "tcp/20001.example.com": "server", "private/demo": "server", "private/demo.example.com": "server",
		"demo.example.com:443": "server", "127.0.0.1": "server", "demo\x00.example.com": "server", "demo..example.com": "server",
	} {
		for _, protos := range [][]string{nil, {"http/1.1"}, {"acme-tls/1"}} {
			_, who, err := s.greet(s.visit(), &tls.Config{ServerName: sni, NextProtos: protos})
			if err != nil || who != want {
				t.Errorf("SNI %q, ALPN %q: %q, %v, want %s", sni, protos, who, err, want)
			}
		}
	}
}

// records sends the first message of a handshake in records of size bytes, and those
// in segments of their own; or byte by byte.
type records struct {
	*net.TCPConn
	size     int
	bytewise bool
	done     bool
}

func (r *records) Write(p []byte) (int, error) {
	if r.done {
		return r.TCPConn.Write(p)
	}
	r.done = true
	r.SetNoDelay(true)
	for message := p[5:]; len(message) > 0; {
		n := min(r.size, len(message))
		record := append([]byte{p[0], p[1], p[2], byte(n >> 8), byte(n)}, message[:n]...)
		message = message[n:]
		for len(record) > 0 {
			m := len(record)
			if r.bytewise {
				m = 1
			}
			if _, err := r.TCPConn.Write(record[:m]); err != nil {
				return 0, err
			}
			record = record[m:]
		}
	}
	return len(p), nil
}

// However a greeting comes, it is understood, and arrives as it came.
func TestSNIInPieces(t *testing.T) {
	s := startSNI(t, edge.Limits{HeaderTimeout: patience}, 0)
	s.bind("demo", protocol.KindTLS, secret(t, "demo"))
	for _, size := range []int{1, 2, 7, 50, 1 << 14} {
		for _, bytewise := range []bool{false, true} {
			conn := &records{TCPConn: s.visit().(*net.TCPConn), size: size, bytewise: bytewise}
			v, who, err := s.greet(conn, &tls.Config{ServerName: "demo.example.com"})
			if err != nil || who != "demo" {
				t.Errorf("records of %d bytes, bytewise %v: %q, %v", size, bytewise, who, err)
				continue
			}
			echoed(t, v, "hello")
		}
	}
}

// echoed sends text, ends its side, and reads to the end.
func echoed(t *testing.T, v *tls.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(v, text); err != nil {
		t.Error(err)
	}
	v.CloseWrite()
	if got, err := io.ReadAll(v); string(got) != text || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// greeting is what a visitor sends first: one record.
func greeting(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		tls.Client(near, c).Handshake()
		near.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(far, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// unhex reads a line of test data.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// hostile are greetings that name demo.example.com, or nearly, and are to lead nowhere.
func hostile(t testing.TB) map[string][]byte {
	good := greeting(t, &tls.Config{ServerName: "demo.example.com"})
	sni := bytes.Index(good, []byte("demo.example.com")) - 9 // of its extension
	sniLength := 9 + len("demo.example.com")
	patched := func(at int, with ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], with)
		return b
	}
	// added has an extension more.
	added := func(extension []byte) []byte {
		b := bytes.Clone(good)
		b = append(b[:sni:sni], append(bytes.Clone(extension), b[sni:]...)...)
		grow := func(at, size int) {
			n := 0
			for _, c := range b[at : at+size] {
				n = n<<8 | int(c)
			}
			n += len(extension)
			for i := range size {
				b[at+i] = byte(n >> (8 * (size - 1 - i)))
			}
		}
		grow(3, 2)
		grow(6, 3)
		// The list of extensions begins behind version, random, session, suites, and
		// compression.
		at := 9 + 2 + 32
		at += 1 + int(b[at])
		at += 2 + (int(b[at])<<8 | int(b[at+1]))
		at += 1 + int(b[at])
		grow(at, 2)
		return b
	}
	endless := []byte{}
	for range 40_000 {
		endless = append(endless, 0x16, 3, 1, 0, 1, 1)
	}
	return map[string][]byte{
		"nothing":             nil,
		"HTTP":                []byte("GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n"),
		"HTTP/2":              []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"SSLv2":               unhex("802e 01 0002 0015 0000 0010 010080 020080 030080 040080 050080 060040 0700c0 000102030405060708090a0b0c0d0e0f"),
		"alert":               unhex("15 0301 0002 0228"),
		"application data":    append(unhex("17 0303 0010"), make([]byte, 16)...),
		"two names":           patched(sni, append(unhex("0000 0016 0014 00 0007 64656d6f2e6578 00 0007"), "abcdefg"...)...),
		"two extensions":      added(good[sni : sni+sniLength]),
		"trailing dot":        bytes.Replace(good, []byte("demo.example.com"), []byte("demo.example.co."), 1),
		"short name":          patched(sni+7, 0, 1),
		"long name":           patched(sni+7, 0, 200),
		"long list":           patched(sni+4, 0, 200),
		"long extension":      patched(sni+2, 0xff, 0xff),
		"long message":        patched(6, 0xff, 0xff, 0xff),
		"longer record":       patched(3, 0x48, 0x01),
		"cut off":             good[:len(good)-1],
		"cut off amid a name": good[:sni+15],
		"ends with a record":  append(bytes.Clone(good[:5]), good[5:len(good)-1]...),
		"another message":     patched(5, 2),
		"empty records":       bytes.Repeat(unhex("16 0301 0000"), 1000),
		"endless":             append(unhex("16 0301 0004 01 00ffff"), endless...),
	}
}

// Whatever comes that is no greeting ends its connection, and never reaches a client.
func TestHostileGreetings(t *testing.T) {
	s := startSNI(t, edge.Limits{HeaderTimeout: patience}, 0)
	s.bind("demo", protocol.KindTLS, func() (net.Conn, error) {
		t.Error("it was routed")
		return nil, errors.New("no")
	})
	for name, sent := range hostile(t) {
		conn := s.visit().(*net.TCPConn)
		conn.SetDeadline(time.Now().Add(patience))
		go func() {
			conn.Write(sent)
			conn.CloseWrite()
		}()
		answer, err := io.ReadAll(conn)
		if errTimeout(err) != nil {
			t.Errorf("%s: it was not closed", name)
		}
		if len(answer) > 7 && answer[0] != 0x15 {
			t.Errorf("%s: answered % x", name, answer[:7])
		}
		conn.Close()
	}
	if n := s.served.Load(); n > 0 {
		t.Errorf("%d connections were served", n)
	}
}

// S7: a greeting that does not come is cut, wherever it stops.
func TestSlowGreeting(t *testing.T) {
	s := startSNI(t, edge.Limits{HeaderTimeout: 50 * time.Millisecond}, 0)
	s.bind("demo", protocol.KindTLS, secret(t, "demo"))
	good := greeting(t, &tls.Config{ServerName: "demo.example.com"})
	for _, n := range []int{0, 1, 5, 6, len(good) / 2, len(good) - 1} {
		conn := s.visit()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(good[:n])
		if _, err := io.ReadAll(conn); errTimeout(err) != nil {
			t.Errorf("with %d bytes it was not cut", n)
		}
	}
	// A whole one is not under that time any more.
	v, _, err := s.greet(s.visit(), &tls.Config{ServerName: "demo.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	idle := s.visit()
	idle.SetDeadline(time.Now().Add(patience))
	io.ReadAll(idle) // as long as the time-out
	echoed(t, v, "hello")
}

// While its client is away a visitor waits, and is not given to the server.
func TestSNIWhileAway(t *testing.T) {
	s := startSNI(t, edge.Limits{}, patience)
	dial := secret(t, "demo")
	s.bind("demo", protocol.KindTLS, dial)(time.Hour)
	conn := s.visit()
	greeted := make(chan string, 1)
	go func() {
		_, who, err := s.greet(conn, &tls.Config{ServerName: "demo.example.com"})
		greeted <- who
		if err != nil {
			t.Error(err)
		}
	}()
	// Somebody else is served meanwhile.
	if _, who, err := s.greet(s.visit(), &tls.Config{ServerName: "nobody.example.com"}); who != "server" {
		t.Error(who, err)
	}
	s.bind("demo", protocol.KindTLS, dial)
	if who := <-greeted; who != "demo" {
		t.Errorf("greeted by %q", who)
	}
}

// Where the client cannot be reached the visitor sees a reset: the server does not
// speak in its place.
func TestSNIReset(t *testing.T) {
	s := startSNI(t, edge.Limits{}, time.Nanosecond)
	s.bind("away", protocol.KindTLS, nil)(time.Hour)
	s.bind("down", protocol.KindTLS, func() (net.Conn, error) { return nil, errors.New("refused") })
	for _, name := range []string{"away", "down"} {
		conn := s.visit()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(greeting(t, &tls.Config{ServerName: name + ".example.com"}))
		if got, err := io.ReadAll(conn); len(got) > 0 || !isReset(err) {
			t.Errorf("%s: % x, %v, want a reset", name, got, err)
		}
	}
}

// What comes with the greeting, and after it, is passed on as it is, with its end
// (R16), and its abort (R17).
func TestSNIPassesOn(t *testing.T) {
	l := loopback(t)
	s := startSNI(t, edge.Limits{}, 0)
	s.bind("demo", protocol.KindTLS, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
	sent := append(greeting(t, &tls.Config{ServerName: "demo.example.com"}), bytes.Repeat([]byte("early"), 10_000)...)
	begin := func() (visitor, app *net.TCPConn) {
		visitor = s.visit().(*net.TCPConn)
		go visitor.Write(sent)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		app = c.(*net.TCPConn)
		for _, c := range []*net.TCPConn{visitor, app} {
			c.SetDeadline(time.Now().Add(patience))
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(app, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("the app got something else: %v", err)
		}
		return visitor, app
	}
	visitor, app := begin()
	visitor.CloseWrite()
	if rest, err := io.ReadAll(app); len(rest) > 0 || err != nil {
		t.Errorf("the app got %q, %v, want the end", rest, err)
	}
	io.WriteString(app, "answer")
	app.Close()
	if got, err := io.ReadAll(visitor); string(got) != "answer" || err != nil {
		t.Errorf("the visitor got %q, %v", got, err)
	}
	visitor, app = begin()
	app.SetLinger(0)
	app.Close()
	if _, err := io.ReadAll(visitor); !isReset(err) {
		t.Errorf("the visitor got %v, want a reset", err)
	}
	visitor, app = begin()
	visitor.SetLinger(0)
	visitor.Close()
	if _, err := io.ReadAll(app); !isReset(err) {
		t.Errorf("the app got %v, want a reset", err)
	}
}

// The end waits for what is open, and not for ever.
func TestSNIShutdown(t *testing.T) {
	s := startSNI(t, edge.Limits{}, 0)
	s.bind("demo", protocol.KindTLS, secret(t, "demo"))
	hello := &tls.Config{ServerName: "demo.example.com"}
	v, _, err := s.greet(s.visit(), hello)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.tls.Shutdown(ctx) }()
	for { // until no more are taken
		other, _, err := s.greet(s.visit(), hello)
		if err == nil {
			other.Close()
			continue
		}
		if !isReset(err) {
			t.Error("while it shuts down:", err)
		}
		break
	}
	echoed(t, v, "still there")
	v.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cancel()
}
