package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/revtun/tunnel/internal/server"
)

func TestProxyProtocolThatIsNotSent(t *testing.T) {
	home(t)
	for _, test := range []struct{ args, words []string }{
		{[]string{"http", "3000", "--proxy-protocol", "v1"}, []string{`--proxy-protocol "v1"`, "use v2"}},
		{[]string{"tcp", "22", "--proxy-protocol=v3"}, []string{`--proxy-protocol "v3"`, "use v2"}},
		{[]string{"tls", "8443", "--proxy-protocol", "true"}, []string{`--proxy-protocol "true"`, "use v2"}},
		{[]string{"udp", "53", "--proxy-protocol", "v2"}, []string{"--proxy-protocol is not for udp", "datagrams"}},
		{[]string{"udp", "53", "--proxy-protocol", "v1"}, []string{"--proxy-protocol is not for udp"}},
		{[]string{"connect", "db", "--proxy-protocol", "v2"}, []string{"--proxy-protocol", "connect --help"}},
	} {
		c := startCommand(t, test.args...)
		if code := c.exit(); code != 2 {
			t.Errorf("%q: exit code %d", test.args, code)
		}
		wantText(t, c.stderr.String(), test.words...)
	}
}

// listenApp listens as a local app.
func listenApp(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return l.(*net.TCPListener)
}

// acceptHeader takes one connection of the app's, and returns its header and what
// reads what follows.
func acceptHeader(t *testing.T, l net.Listener) (*proxyproto.Header, net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	header, err := proxyproto.Read(in)
	if err != nil {
		t.Fatal(err)
	}
	return header, c, in
}

// When the client looks whether the app is there it is no visitor, and says so.
func TestProxyProtocolOfTheClientItself(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	l := listenApp(t)
	start(t, l.Addr().String(), "--server", base, "--json=false", "--proxy-protocol", "v2")
	header, _, in := acceptHeader(t, l)
	rest, err := io.ReadAll(in)
	if !header.Command.IsLocal() || len(rest) > 0 || err != nil {
		t.Errorf("the header is %+v, and %q, %v follows", header, rest, err)
	}
}

// The visitor of a private endpoint is the client that connects to it, also where the
// app speaks HTTP.
func TestProxyProtocolOfPrivateEndpoints(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	for _, kind := range []string{"tcp", "http"} {
		l := listenApp(t)
		startCommand(t, kind, l.Addr().String(), "--json", "--server", base, "--private", "--name", kind, "--proxy-protocol", "v2").next("ready")
		at := startCommand(t, "connect", kind, "--json", "--server", base).next("ready").Listen
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "hello\n")
		header, app, in := acceptHeader(t, l)
		if line, err := in.ReadString('\n'); line != "hello\n" || err != nil {
			t.Errorf("%s: %q, %v", kind, line, err)
		}
		from := fmt.Sprint(header.SourceAddr)
		if !header.Command.IsProxy() || !strings.HasPrefix(from, "127.0.0.1:") || from == app.RemoteAddr().String() || from == c.LocalAddr().String() {
			t.Errorf("%s: the header is %+v", kind, header)
		}
	}
}
