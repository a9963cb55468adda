package forward

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	ann = "192.0.2.1:1111"
	bob = "[2001:db8::2]:2222"
)

// proxyApp is a local app that takes no connection without a header of the PROXY
// protocol. It answers "VISITOR on CONNECTION by PROTOCOL" or, to an upgrade, with that
// and what is sent to it then.
func proxyApp(t *testing.T, scheme string) (target string) {
	t.Helper()
	var count atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(name, "Tunnel-") {
				fmt.Fprintf(w, "%s got through, ", name)
			}
		}
		answer := fmt.Sprintf("%s on %d by %s", r.RemoteAddr, r.Context().Value(&count), r.Proto)
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, answer)
			return
		}
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"+answer+"\n")
		io.Copy(c, buffered)
	}))
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, &count, count.Add(1))
	}
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Listener = &proxyproto.Listener{Listener: s.Listener, ReadHeaderTimeout: patience}
	if s.EnableHTTP2 = true; scheme == "https" {
		s.Config.Protocols.SetHTTP2(true)
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return scheme + "://" + s.Listener.Addr().String()
}

// from asks on c, which carries many visitors' requests as a tunnel's stream does, for
// the visitor, and returns the app's answer in its parts.
func from(t *testing.T, c net.Conn, in *bufio.Reader, visitor string, fields ...string) (seen, conn, proto string) {
	t.Helper()
	lines := append([]string{"GET / HTTP/1.1", "Host: demo.example.com"}, fields...)
	if visitor != "" {
		lines = append(lines, protocol.HeaderVisitor+": "+visitor)
	}
	io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if _, scan := fmt.Sscanf(string(b), "%s on %s by %s", &seen, &conn, &proto); err != nil || scan != nil {
		t.Fatalf("%s: %s %q, %v", visitor, code(res), b, err)
	}
	return seen, conn, proto
}

// The app sees who each request is from, and a connection to it carries the requests of
// the one visitor that it began with, though they come on one stream; his next request
// is on it again.
func TestVisitorsShareNoConnection(t *testing.T) { onEach(t, testVisitorsShareNoConnection) }

func testVisitorsShareNoConnection(t *testing.T, front frontFunc) {
	for _, test := range []struct{ scheme, kind, proto string }{
		{"http", "text/plain", "HTTP/1.1"}, {"h2c", "text/plain", "HTTP/2.0"},
		{"https", "text/plain", "HTTP/1.1"}, {"https", "application/grpc", "HTTP/2.0"},
	} {
		t.Run(test.scheme+" "+test.kind, func(t *testing.T) {
			c, err := net.Dial("tcp", front(t, proxyApp(t, test.scheme), Options{Insecure: true, Prepare: ProxyV2}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			in := bufio.NewReader(c)
			of := map[string]string{} // connections' visitors
			for range 3 {
				for _, visitor := range []string{ann, bob, "192.0.2.1:1112", "192.0.2.3:0", "", "nonsense"} {
					seen, conn, proto := from(t, c, in, visitor, "Content-Type: "+test.kind)
					if proto != test.proto {
						t.Fatalf("%s: it is spoken to by %s", visitor, proto)
					}
					want := visitor
					if visitor == "" || visitor == "nonsense" {
						want = "unknown"
						if !strings.HasPrefix(seen, "127.0.0.1:") {
							t.Errorf("a request of an unknown visitor has %s", seen)
						}
					} else if seen != visitor {
						t.Errorf("a request of %s is on a connection of %s", visitor, seen)
					}
					if had, ok := of[conn]; ok && had != want {
						t.Errorf("connection %s is %s's, and then %s's", conn, had, want)
					}
					of[conn] = want
				}
			}
			if len(of) != 5 {
				t.Errorf("5 visitors have %d connections: %v", len(of), of)
			}
		})
	}
}

// Visitors come all at once.
func TestVisitorsAtOnce(t *testing.T) { onEach(t, testVisitorsAtOnce) }

func testVisitorsAtOnce(t *testing.T, front frontFunc) {
	for _, scheme := range []string{"http", "h2c"} {
		at := front(t, proxyApp(t, scheme), Options{Prepare: ProxyV2})
		var all sync.WaitGroup
		for stream := range 8 {
			c, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			all.Go(func() {
				in := bufio.NewReader(c)
				for n := range 50 {
					visitor := fmt.Sprintf("192.0.2.%d:%d", (stream*7+n)%5, 1000+n%2)
					fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\n%s: %s\r\n\r\n", protocol.HeaderVisitor, visitor)
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if b, err := io.ReadAll(res.Body); !strings.HasPrefix(string(b), visitor+" on ") || err != nil {
						t.Errorf("%s: the app saw %q, %v", visitor, b, err)
					}
				}
			})
		}
		all.Wait()
	}
}

// An upgrade, such as a WebSocket's, has the header, too, and its connection is taken
// for no other visitor.
func TestProxyHeaderBeforeUpgrade(t *testing.T) { onEach(t, testProxyHeaderBeforeUpgrade) }

func testProxyHeaderBeforeUpgrade(t *testing.T, front frontFunc) {
	c, err := net.Dial("tcp", front(t, proxyApp(t, "http"), Options{Prepare: ProxyV2}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	from(t, c, in, ann)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+protocol.HeaderVisitor+": "+bob+"\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	if line, err := in.ReadString('\n'); line != bob+" on 2 by HTTP/1.1\n" || err != nil {
		t.Errorf("the app saw %q, %v", line, err)
	}
	io.WriteString(c, "hello\n")
	if line, err := in.ReadString('\n'); line != "hello\n" || err != nil {
		t.Errorf("the echo is %q, %v", line, err)
	}
}

// A connection that cannot be prepared is closed, and carries no request.
func TestPrepareFails(t *testing.T) { onEach(t, testPrepareFails) }

func testPrepareFails(t *testing.T, front frontFunc) {
	prepared := make(chan net.Conn, 1)
	at := front(t, app(t, seen), Options{Prepare: func(app net.Conn, _ string) error {
		prepared <- app
		return errors.New("it does not work")
	}})
	if res, _ := exchange(t, at, "GET / HTTP/1.1", "Host: a"); code(res) != "502 app_bad_response" {
		t.Errorf("got %s", code(res))
	}
	if _, err := receive(t, "connection", prepared).Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// What the header says of each visitor and app.
func TestProxyV2(t *testing.T) {
	for _, test := range []struct{ network, listen, visitor, source, destination string }{
		{"tcp", "127.0.0.1:0", ann, ann, "APP"},
		{"tcp", "127.0.0.1:0", "[::ffff:192.0.2.1]:1111", ann, "APP"},
		{"tcp", "127.0.0.1:0", bob, bob, "[::]:0"},
		{"tcp", "127.0.0.1:0", "192.0.2.1:0", "192.0.2.1:0", "APP"},
		{"tcp", "[::1]:0", ann, ann, "0.0.0.0:0"}, // and not ::ffff:192.0.2.1
		{"tcp", "[::1]:0", bob, bob, "APP"},
		{"tcp", "[::1]:0", "[fe80::1%lo]:7", "[fe80::1]:7", "APP"},
		{"unix", filepath.Join(t.TempDir(), "app"), ann, ann, "0.0.0.0:0"},
		{"unix", filepath.Join(t.TempDir(), "app"), bob, bob, "[::]:0"},
		{"tcp", "127.0.0.1:0", "", "", ""},
		{"tcp", "127.0.0.1:0", "192.0.2.1", "", ""},
		{"unix", filepath.Join(t.TempDir(), "app"), "", "", ""},
	} {
		l, err := net.Listen(test.network, test.listen)
		if err != nil {
			if strings.HasPrefix(test.listen, "[::1]") {
				t.Logf("no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		header := receiveHeader(t, l, test.visitor)
		l.Close()
		switch want := strings.Replace(test.destination, "APP", l.Addr().String(), 1); {
		case header.Version != 2:
			t.Errorf("version %d", header.Version)
		case test.source == "" && (!header.Command.IsLocal() || header.TransportProtocol != proxyproto.UNSPEC):
			t.Errorf("%q: the header is %+v, want LOCAL", test.visitor, header)
		case test.source != "" && (!header.Command.IsProxy() || !header.TransportProtocol.IsStream() ||
			header.SourceAddr.String() != test.source || header.DestinationAddr.String() != want):
			t.Errorf("%q at %s: the header is %+v, want %s to %s", test.visitor, l.Addr(), header, test.source, want)
		}
	}
}

// receiveHeader dials l, sends the header, and returns what comes. Nothing comes after.
func receiveHeader(t *testing.T, l net.Listener, visitor string) *proxyproto.Header {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	app, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	if err := ProxyV2(c, visitor); err != nil {
		t.Fatal(err)
	}
	c.Close()
	app.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(app)
	header, err := proxyproto.Read(in)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v follows the header", rest, err)
	}
	return header
}

// The header is the first thing that the app of a raw connection gets, before what the
// visitor sent, also where the client ends TLS.
func TestProxyHeaderOfRawConnections(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	t.Cleanup(cert.Close)
	for name, ends := range map[string]*tls.Config{"passed": nil, "terminated": {Certificates: cert.TLS.Certificates}} {
		for visitor, want := range map[string]string{`for="` + ann + `"`: ann, `for="` + bob + `"`: bob, "": "127.0.0.1", "for=unknown": "127.0.0.1"} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			app := &proxyproto.Listener{Listener: l, ReadHeaderTimeout: patience}
			got := make(chan string, 1)
			go func() {
				defer l.Close()
				c, err := app.Accept()
				if err != nil {
					got <- err.Error()
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				line, err := bufio.NewReader(c).ReadString('\n')
				got <- fmt.Sprint(c.RemoteAddr(), " ", line, err)
			}()
			stream, client := net.Pipe()
			target, err := ParseRawTarget(l.Addr().String(), "tcp")
			if err != nil {
				t.Fatal(err)
			}
			raw := NewRaw(target, RawOptions{Prepare: ProxyV2, TLS: ends})
			var serving sync.WaitGroup
			serving.Go(func() { raw.ServeConn(stream) })
			client.SetDeadline(time.Now().Add(patience))
			sayRaw(t, client, visitor, ends != nil)
			if s := receive(t, "what the app saw", got); !strings.HasPrefix(s, want) || !strings.HasSuffix(s, " hello\n<nil>") {
				t.Errorf("%s, %q: the app saw %q, want %s", name, visitor, s, want)
			}
			client.Close()
			serving.Wait()
		}
	}
}

// sayRaw asks for a connection as visitor and sends a line on it.
func sayRaw(t *testing.T, c net.Conn, visitor string, secure bool) {
	t.Helper()
	request := "CONNECT demo HTTP/1.1\r\nHost: demo\r\n"
	if visitor != "" {
		request += "Forwarded: " + visitor + "\r\n"
	}
	io.WriteString(c, request+"\r\n")
	in := bufio.NewReader(c)
	if res, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect}); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
}
