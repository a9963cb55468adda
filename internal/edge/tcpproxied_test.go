package edge_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/server"
)

// TestTCPProxyProtocol: at a port, too, the address that a trusted proxy names is the
// visitor's, and its header is not the app's; a header that is not right ends the
// connection; from others none is looked for. Who waits for the app to speak, or sends
// what could become a header and does not, is served as well.
func TestTCPProxyProtocol(t *testing.T) {
	right := string(proxyHeader(t, "203.0.113.7:4711"))
	local := right[:12] + "\x20" + right[13:]
	p, visitors := portBehind(t, "127.0.0.1/32")
	other, strangers := portBehind(t, "192.0.2.0/24")
	for _, test := range []struct {
		name      string
		p         *port
		visitors  chan string
		sent      []string // in as many writes
		from, app string   // "": the visitor's own; what the app reads
	}{
		{"header", p, visitors, []string{right, "said"}, "203.0.113.7:4711", "said"},
		{"header with the rest", p, visitors, []string{right + "said"}, "203.0.113.7:4711", "said"},
		{"header in pieces", p, visitors, []string{right[:1], right[1:13], right[13:], "said"}, "203.0.113.7:4711", "said"},
		{"IPv6", p, visitors, []string{string(proxyHeader(t, "[2001:db8::7]:4711")), "said"}, "[2001:db8::7]:4711", "said"},
		{"the proxy's own", p, visitors, []string{local, "said"}, "", "said"},
		{"none", p, visitors, []string{"said"}, "", "said"},
		{"an end", p, visitors, nil, "", ""},
		{"the beginning of one, and an end", p, visitors, []string{right[:5]}, "", right[:5]},
		{"a stranger's", other, strangers, []string{right, "said"}, "", right + "said"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := test.p.visit()
			for _, part := range test.sent {
				io.WriteString(v, part)
			}
			v.CloseWrite()
			app := <-test.p.apps
			defer app.Close()
			if got, err := io.ReadAll(app); string(got) != test.app || err != nil {
				t.Errorf("the app reads %q, %v", got, err)
			}
			want := test.from
			if want == "" {
				want = v.LocalAddr().String()
			}
			if from := <-test.visitors; from != want {
				t.Errorf("the visitor is %q, want %q", from, want)
			}
			io.WriteString(app, "answer")
			app.Close()
			if got, err := io.ReadAll(v); string(got) != "answer" || err != nil {
				t.Errorf("the visitor reads %q, %v", got, err)
			}
		})
	}
	for name, wrong := range map[string]string{"version 3": right[:12] + "\x31" + right[13:], "too long": right[:14] + "\xff\xff", "half": right[:20]} {
		t.Run(name, func(t *testing.T) {
			v := p.visit()
			io.WriteString(v, wrong)
			if name == "half" {
				v.CloseWrite()
			}
			if _, err := v.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the visitor reads %v", err)
			}
		})
	}
	t.Run("the app speaks first", func(t *testing.T) {
		for _, first := range []string{"", right[:2]} {
			v := p.visit()
			io.WriteString(v, first)
			app := <-p.apps
			defer app.Close()
			<-visitors
			io.WriteString(app, "welcome")
			if got := make([]byte, 7); !bytes.Equal(read(t, v, got), []byte("welcome")) {
				t.Errorf("%q", got)
			}
			io.WriteString(v, "late")
			want := first + "late"
			if got := read(t, app, make([]byte, len(want))); string(got) != want {
				t.Errorf("the app reads %q", got)
			}
			v.CloseWrite()
			app.Close()
		}
	})
}

func read(t *testing.T, r io.Reader, p []byte) []byte {
	t.Helper()
	if n, err := io.ReadFull(r, p); err != nil {
		t.Errorf("%q, then %v", p[:n], err)
	}
	return p
}

// portBehind is an exposed port of a server that trusts one proxy, and who its visitors
// are, as the client is told.
func portBehind(t *testing.T, proxy string) (*port, chan string) {
	t.Helper()
	visitors := make(chan string, 100)
	p := exposedPort(t, server.Config{Trusted: []netip.Prefix{netip.MustParsePrefix(proxy)}}, forward.RawOptions{
		Prepare: func(_ net.Conn, visitor string) error { visitors <- visitor; return nil },
	})
	return p, visitors
}
