package edge_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// proxyHeader is a header of the PROXY protocol, version 2.
func proxyHeader(t *testing.T, from string) []byte {
	t.Helper()
	src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	h := proxyproto.HeaderProxyFromAddrs(2, src, &net.TCPAddr{IP: src.IP, Port: 443})
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The address that a trusted proxy names is the visitor's, on either listener; a
// header that is not right ends the connection; from others none is looked for.
func TestProxyProtocol(t *testing.T) {
	right := proxyHeader(t, "203.0.113.7:4711")
	local := append([]byte(nil), right...)
	local[12] = 0x20
	badVersion := append([]byte(nil), right...)
	badVersion[12] = 0x31
	short := append([]byte(nil), right...)
	short[15] = 4
	long := append(append([]byte(nil), right[:14]...), 0xff, 0xff)
	half := right[:20]
	limits := server.Config{HeaderTimeout: time.Second, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	plainly := func(c server.Config) *https {
		c.TLS = &server.TLS{AllowPlain: []string{"demo"}}
		h := secure(t, c)
		publish(t, h.plain, "demo", nil, seen("demo"))
		return h
	}
	h := plainly(limits)
	stranger := limits
	stranger.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	other := plainly(stranger)
	for _, test := range []struct {
		name   string
		h      *https
		header []byte
		want   string // X-Forwarded-For; "": no answer
	}{
		{"IPv4", h, right, "203.0.113.7"},
		{"IPv6", h, proxyHeader(t, "[2001:db8::7]:4711"), "2001:db8::7"},
		{"none", h, nil, "127.0.0.1"},
		{"the proxy's own", h, local, "127.0.0.1"},
		{"version 3", h, badVersion, ""},
		{"too short", h, short, ""},
		{"too long", h, long, ""},
		{"half", h, half, ""},
		{"a stranger's", other, right, ""},
		{"a stranger without", other, nil, "127.0.0.1"},
	} {
		for _, secured := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, " ", secured), func(t *testing.T) {
				addr := test.h.plain
				if secured {
					addr = test.h.tls
				}
				tcp, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer tcp.Close()
				tcp.SetDeadline(time.Now().Add(patience))
				for _, b := range test.header { // in as many pieces as it can come
					tcp.Write([]byte{b})
				}
				c := tcp
				if secured {
					c = tls.Client(tcp, test.h.greeting("demo.example.com"))
				}
				if len(test.header) != len(half) {
					fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n")
				}
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				switch {
				case errTimeout(err) != nil:
					t.Error("it stays open")
				case test.want == "":
					if err == nil && res.StatusCode != 400 {
						t.Errorf("it was answered %s", res.Status)
					}
				case err != nil:
					t.Error(err)
				default:
					body, _ := io.ReadAll(res.Body)
					if a := (answer{res, string(body)}); !a.has("X-Forwarded-For: " + test.want) {
						t.Errorf("%s\n%s", res.Status, body)
					}
				}
			})
		}
	}
}

// Route takes connections by their SNI, whole and however they came, and leaves the
// others as they are.
func TestRoute(t *testing.T) {
	certificate := rig.NewCertificate(t, "mine.test", "other.test")
	h := &edge.HTTP{Domain: "mine.test", Own: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "own") })}
	h.Gate = new(edge.Gate)
	limits := edge.Limits{HeaderTimeout: patience}
	var others sync.WaitGroup
	door := &edge.Door{Limits: limits, GetCertificate: certificate.Get}
	door.Route = func(name string, conn net.Conn) bool {
		if name != "other.test" {
			return false
		}
		others.Go(func() { // another server of TLS, which sees the handshake from its begin
			defer conn.Close()
			s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate.TLS}})
			if _, err := io.Copy(s, s); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
		})
		return true
	}
	l := loopback(t)
	s := h.Server(limits)
	served := make(chan error, 1)
	go func() { served <- s.Serve(door.Listener(h.Gate.Listener(l))) }()
	defer func() { s.Close(); <-served; others.Wait() }()
	for _, piece := range []int{1, 100, 1 << 20} {
		for name, want := range map[string]string{"other.test": "GET / HTTP/1.0\r\nHost: mine.test\r\n\r\n", "mine.test": "own"} {
			tcp, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			tcp.SetDeadline(time.Now().Add(patience))
			c := tls.Client(&pieces{tcp, piece}, &tls.Config{RootCAs: certificate.Roots, ServerName: name})
			fmt.Fprint(c, "GET / HTTP/1.0\r\nHost: mine.test\r\n\r\n")
			if name == "other.test" {
				c.CloseWrite()
			}
			got, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(got), want) {
				t.Errorf("%s in pieces of %d: %q, %v", name, piece, got, err)
			}
			c.Close()
		}
	}
	poll.Until(t, "the end of all connections", func() bool { return edge.Conns(h.Gate) == 0 })
}

// pieces is a connection that writes a few bytes at once.
type pieces struct {
	net.Conn
	size int
}

func (p *pieces) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += p.size {
		if n, err := p.Conn.Write(b[i:min(i+p.size, len(b))]); err != nil {
			return i + n, err
		}
	}
	return len(b), nil
}

// S7 for TLS: 5,000 handshakes that do not end are cut, and others are served.
func TestSlowHandshakes(t *testing.T) {
	const n = 5000
	var most syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most); err != nil || most.Cur < 2*n+500 {
		t.Skipf("needs %d descriptors, and there are %d", 2*n+500, most.Cur)
	}
	h := secure(t, server.Config{HeaderTimeout: 4 * time.Second, TLS: &server.TLS{NoHTTP3: true}})
	var hello bytes.Buffer
	tls.Client(recorder{&hello}, h.greeting("example.com")).Handshake()
	begins := [][]byte{nil, {22}, hello.Bytes()[:50]}
	begin := func(i int) []byte {
		if i%20 == 0 {
			return hello.Bytes() // the server signs its answer: 5,000 such are a trial of the machine
		}
		return begins[i%len(begins)]
	}
	var slow sync.WaitGroup
	dialing := make(chan struct{}, 256)
	open, kept := make(chan struct{}, n), make(chan error, n)
	for i := range n {
		slow.Go(func() {
			dialing <- struct{}{}
			c, err := net.Dial("tcp", h.tls)
			<-dialing
			open <- struct{}{}
			if err != nil {
				kept <- err
				return
			}
			defer c.Close()
			c.Write(begin(i))
			c.SetReadDeadline(time.Now().Add(2 * patience))
			if _, err := io.Copy(io.Discard, c); errTimeout(err) != nil {
				kept <- errors.New("it stays open")
			}
		})
	}
	for range n {
		<-open
	}
	over := make(chan struct{})
	go func() { slow.Wait(); close(over) }()
	good := 0
	for waiting := true; waiting; good++ {
		c := h.client(t, "1", "")
		if a := fetch(t, c, request(t, "GET", "https://example.com:"+h.port+"/healthz", nil)); a.body != "ok\n" {
			t.Fatalf("a good request: %s", answered(a))
		}
		c.CloseIdleConnections()
		select {
		case <-over:
			waiting = false
		case <-time.After(20 * time.Millisecond):
		}
	}
	close(kept)
	for err := range kept {
		t.Fatal(err)
	}
	t.Logf("%d good requests beside them", good)
}

// recorder takes what a client says first.
type recorder struct{ *bytes.Buffer }

func (recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (recorder) Close() error                     { return nil }
func (recorder) LocalAddr() net.Addr              { return nil }
func (recorder) RemoteAddr() net.Addr             { return nil }
func (recorder) SetDeadline(time.Time) error      { return nil }
func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// A listener that is closed amid handshakes waits for none of them.
func TestCloseAmidHandshakes(t *testing.T) {
	g := new(edge.Gate)
	l := loopback(t)
	door := &edge.Door{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}
	listener := door.Listener(g.Listener(l))
	done := make(chan error, 1)
	go func() { _, err := listener.Accept(); done <- err }()
	v := visit(t, l.Addr().String())
	poll.Until(t, "a connection", func() bool { return edge.Conns(g) == 1 })
	listener.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := v.ends(); errTimeout(err) != nil {
		t.Error(err)
	}
	if n := edge.Conns(g); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// Nor for one whose certificate is on order: net/http closes listeners under its lock,
// and all its other connections would stand still.
func TestCloseAmidOrder(t *testing.T) {
	l := loopback(t)
	ordering, over := make(chan struct{}), make(chan struct{})
	door := &edge.Door{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		close(ordering)
		select {
		case <-hello.Context().Done():
		case <-over:
		}
		return nil, errors.New("not yet")
	}}
	listener := door.Listener(l)
	accepted := make(chan error, 1)
	go func() { _, err := listener.Accept(); accepted <- err }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go tls.Client(c, &tls.Config{ServerName: "demo.example.com"}).Handshake()
	<-ordering
	closed := make(chan struct{})
	go func() { defer close(closed); listener.Close() }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("it waits for the order")
	}
	close(over)
	<-closed
	<-accepted
}
