package edge_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/internal/server"
)

// answered says in a word who answered.
func answered(a answer) string {
	switch app := a.Header.Get("App"); {
	case app != "":
		return app
	case a.code() != "":
		return strconv.Itoa(a.StatusCode) + " " + a.code()
	case a.StatusCode == 200:
		return "own"
	}
	return strconv.Itoa(a.StatusCode)
}

// tenants runs a server of example.com with the names demo and other.
func tenants(t *testing.T, c server.Config) (addr string) {
	addr = serve(t, c)
	publish(t, addr, "demo", nil, seen("demo"))
	publish(t, addr, "other", nil, seen("other"))
	return addr
}

type hostCase struct{ request, host, want string }

// hostCases are for a server of example.com with the public URL
// https://tunnel.example.com:8443, and the names demo and other.
func hostCases() []hostCase {
	const (
		wrong   = "421 wrong_host"
		unknown = "404 name_unknown"
		bad     = "400 bad_request"
		parser  = "400" // net/http's own answer
	)
	return []hostCase{
		{"GET / HTTP/1.1", "Host: demo.example.com", "demo"},
		{"GET / HTTP/1.1", "Host: DeMo.Example.COM", "demo"},
		{"GET / HTTP/1.1", "Host: demo.example.com.", "demo"},
		{"GET / HTTP/1.1", "Host: demo.example.com:8080", "demo"},
		{"GET / HTTP/1.1", "Host: demo.example.com:", "demo"},
		{"GET / HTTP/1.1", "Host: DEMO.example.com.:1", "demo"},
		{"GET / HTTP/1.0", "Host: demo.example.com", "demo"},
		{"GET / HTTP/1.1", "Host: other.example.com", "other"},
		{"GET / HTTP/1.1", "Host: nobody.example.com", unknown},
		{"GET / HTTP/1.1", "Host: xn--bcher-kva.example.com", unknown}, // bücher

		{"GET / HTTP/1.1", "Host: example.com", "own"},
		{"GET / HTTP/1.1", "Host: EXAMPLE.com.:80", "own"},
		{"GET / HTTP/1.1", "Host: localhost:8080", "own"},
		{"GET / HTTP/1.1", "Host: 127.0.0.1", "own"},
		{"GET / HTTP/1.1", "Host: [::1]", "own"},
		{"GET / HTTP/1.1", "Host: [2001:DB8::1]:8080", "own"},
		// The public URL's host is the server's own, though it looks like a name.
		{"GET / HTTP/1.1", "Host: tunnel.example.com", "own"},
		{"GET / HTTP/1.1", "Host: Tunnel.example.com:8443", "own"},

		{"GET / HTTP/1.1", "Host: a.demo.example.com", wrong},
		{"GET / HTTP/1.1", "Host: demo.example.com..", wrong},
		{"GET / HTTP/1.1", "Host: .example.com", wrong},
		{"GET / HTTP/1.1", "Host: demo.example.org", wrong},
		{"GET / HTTP/1.1", "Host: demoexample.com", wrong},
		{"GET / HTTP/1.1", "Host: demo.localhost", wrong},
		{"GET / HTTP/1.1", "Host: -demo.example.com", wrong},
		{"GET / HTTP/1.1", "Host: de_mo.example.com", wrong},
		{"GET / HTTP/1.1", "Host: ab--cd.example.com", wrong},
		{"GET / HTTP/1.1", "Host: user@demo.example.com", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com:80:80", wrong},
		{"GET / HTTP/1.1", "Host: demo.example.com:8o", wrong},
		{"GET / HTTP/1.1", "Host: [demo.example.com]", wrong},
		{"GET / HTTP/1.1", "Host: [127.0.0.1]", wrong},
		{"GET / HTTP/1.1", "Host: [::1", wrong},
		{"GET / HTTP/1.1", "Host: ::1", wrong},
		{"GET / HTTP/1.1", "Host: 0x7f.1", wrong},
		{"GET / HTTP/1.1", "Host:", wrong},
		{"GET / HTTP/1.0", "Accept: */*", wrong}, // HTTP/1.0 may come without Host

		{"GET / HTTP/1.1", "Accept: */*", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com\r\nHost: other.example.com", parser},
		{"GET / HTTP/1.1", "Host: d\xc3\xa9mo.example.com", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com/", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com\\x", parser},
		{"GET / HTTP/1.1", "Host: demo example.com", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com\x00", parser},
		{"GET / HTTP/1.1", "Host: demo.example.com\x1b[2J", parser},

		// The target's authority counts, never Host (RFC 9112, section 3.2.2).
		{"GET http://demo.example.com/ HTTP/1.1", "Host: demo.example.com", "demo"},
		{"GET http://other.example.com/ HTTP/1.1", "Host: demo.example.com", "other"},
		{"GET HTTPS://Other.example.com:1/ HTTP/1.1", "Host: demo.example.com", "other"},
		{"GET http://user:secret@other.example.com/ HTTP/1.1", "Host: demo.example.com", bad},
		{"GET http://example.org/ HTTP/1.1", "Host: demo.example.com", wrong},
		{"GET http://127.0.0.1/ HTTP/1.1", "Host: demo.example.com", "own"},
		{"GET http://example.org/.well-known/tunnel/0123456789abcdef HTTP/1.1", "Host: example.com", wrong},
		// Half an address, which parsers read differently.
		{"GET http:/path HTTP/1.1", "Host: demo.example.com", bad},
		{"GET http:path HTTP/1.1", "Host: demo.example.com", bad},
		{"GET http:///path HTTP/1.1", "Host: demo.example.com", bad},
		{"GET other.example.com:80/ HTTP/1.1", "Host: demo.example.com", bad},
		{"GET //other.example.com/ HTTP/1.1", "Host: demo.example.com", "demo"},
		{"GET /http://other.example.com/ HTTP/1.1", "Host: demo.example.com", "demo"},
		// Never a proxy to wherever the visitor likes (S2).
		{"CONNECT demo.example.com:80 HTTP/1.1", "Host: demo.example.com:80", bad},
		{"CONNECT 127.0.0.1:22 HTTP/1.1", "Host: 127.0.0.1:22", bad},
		{"CONNECT / HTTP/1.1", "Host: demo.example.com", bad},
	}
}

// S5: every spelling of a host leads to one tenant, or to nobody.
func TestHosts(t *testing.T) {
	public, _ := url.Parse("https://tunnel.example.com:8443")
	addr := tenants(t, server.Config{PublicURL: public})
	for _, c := range hostCases() {
		if got := answered(get(t, addr, c.request, c.host, "Connection: close")); got != c.want {
			t.Errorf("%q %q: answered by %s, want %s", c.request, c.host, got, c.want)
		}
	}
}

// What the local app sees of the target is what it would see of a visitor that
// calls it directly.
func TestTargets(t *testing.T) {
	addr := tenants(t, server.Config{})
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/a;b/%2F//../c?x=1;y=%zz&z", "/a;b/%2F//../c?x=1;y=%zz&z"},
		{"GET", "//a//b", "//a//b"},
		{"GET", `/a|b^"{}`, `/a|b^"{}`},
		{"GET", "/\xc3\xa9\xff", "/\xc3\xa9\xff"},
		{"GET", "/?", "/?"},
		{"OPTIONS", "*", "*"},
		{"TRACE", "/", "/"},
		{"PRI", "/", "/"},
		{"BREW", "/pot", "/pot"},
		{"GET", "http://demo.example.com", "/"},
		{"GET", "http://demo.example.com?x=/", "/?x=/"},
		{"GET", "http://demo.example.com/a?b=://c", "/a?b=://c"},
		{"GET", "http://demo.example.com//a", "//a"},
	} {
		a := get(t, addr, c.method+" "+c.target+" HTTP/1.1", "Host: demo.example.com", "Connection: close")
		if !a.has(c.method+" "+c.want) || !a.has("Host: demo.example.com") {
			t.Errorf("%s %s: the app saw %q, want %s", c.method, c.target, a.body, c.want)
		}
	}
}

// S5, HTTP/2 with prior knowledge, where no parser has looked at the pseudo-fields.
func TestHostsHTTP2(t *testing.T) {
	addr := tenants(t, server.Config{})
	for _, c := range []struct {
		method, authority, path string
		host                    []string
		want                    string // "": the stream is reset
	}{
		{"GET", "demo.example.com", "/", nil, "demo"},
		{"GET", "DEMO.example.com.:80", "/", nil, "demo"},
		{"GET", "", "/", []string{"demo.example.com"}, "demo"},
		{"GET", "demo.example.com", "/", []string{"demo.example.com"}, "demo"},
		{"GET", "demo.example.com", "/", []string{"other.example.com"}, "400 bad_request"},
		{"GET", "", "/", []string{"demo.example.com", "other.example.com"}, "400 bad_request"},
		{"GET", "", "/", nil, "421 wrong_host"},
		{"GET", "d\xc3\xa9mo.example.com", "/", nil, "421 wrong_host"},
		{"GET", "\xef\xbd\x84emo.example.com", "/", nil, "421 wrong_host"}, // fullwidth d
		{"GET", "demo.example.com\xe3\x80\x82", "/", nil, "421 wrong_host"},
		{"GET", "nobody\u212a.example.com", "/", nil, "421 wrong_host"}, // a Kelvin sign, whose lower case is k
		{"GET", "demo.example.com x", "/", nil, "421 wrong_host"},
		{"GET", "demo.example.com:80 x", "/", nil, "421 wrong_host"},
		{"GET", "demo.example.com", "http://other.example.com/", nil, "421 wrong_host"},
		{"GET", "demo.example.com", "http://demo.example.com/", nil, "demo"},
		{"GET", "demo.example.com", "http:/x", nil, "400 bad_request"},
		{"GET", "demo.example.com", "/a b", nil, "400 bad_request"},
		{"GET / HTTP/1.1", "demo.example.com", "/", nil, "400 bad_request"},
		{"OPTIONS", "demo.example.com", "*", nil, "demo"},
		{"CONNECT", "other.example.com:80", "", nil, "400 bad_request"},
		{"GET", "demo.example.com\r\nX: y", "/", nil, ""},
		{"GET", "demo.example.com", "/\r\nX: y", nil, ""},
	} {
		fields := [][2]string{{":method", c.method}}
		if c.path != "" {
			fields = append(fields, [2]string{":scheme", "https"}, [2]string{":path", c.path})
		}
		if c.authority != "" {
			fields = append(fields, [2]string{":authority", c.authority})
		}
		for _, host := range c.host {
			fields = append(fields, [2]string{"host", host})
		}
		got := ""
		if a, ok := getHTTP2(t, addr, fields); ok {
			got = answered(a)
			// :scheme is the visitor's word, and there was no TLS.
			if got == "demo" && !a.has("X-Forwarded-Proto: http") {
				t.Errorf("%q: the app saw %q", fields, a.body)
			}
		}
		if got != c.want {
			t.Errorf("%q: answered by %q, want %q", fields, got, c.want)
		}
	}
}

// getHTTP2 sends one request with header fields that no library would send. It
// returns false where the stream was reset.
func getHTTP2(t *testing.T, addr string, fields [][2]string) (answer, bool) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	const most = 16 << 10 // of a frame
	first := block.Next(most)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		next := block.Next(most)
		framer.WriteContinuation(1, block.Len() == 0, next)
	}
	a := answer{Response: &http.Response{Header: http.Header{}}}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			a.StatusCode, _ = strconv.Atoi(f.PseudoValue("status"))
			for _, field := range f.RegularFields() {
				a.Header.Add(field.Name, field.Value)
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			a.body += string(f.Data())
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return a, false
		}
		if ended {
			return a, true
		}
	}
}

// S5: a proxy in front may say which host it was asked for, if it is trusted.
func TestForwardedHost(t *testing.T) {
	for _, c := range []struct {
		trusted, field, want string
	}{
		{"127.0.0.0/8", "other.example.com", "other"},
		{"127.0.0.0/8", "OTHER.example.com:8443", "other"},
		{"127.0.0.0/8", "demo.example.com, other.example.com", "other"}, // the nearest proxy's
		{"127.0.0.0/8", "a.other.example.com", "421 wrong_host"},
		{"127.0.0.0/8", "\xefther.example.com", "421 wrong_host"},
		{"127.0.0.0/8", "example.com", "own"},
		{"127.0.0.0/8", "", "demo"},
		{"192.0.2.0/24", "other.example.com", "demo"},
		{"", "other.example.com", "demo"},
	} {
		t.Run(c.trusted+" "+c.field, func(t *testing.T) {
			var config server.Config
			if c.trusted != "" {
				config.Trusted = []netip.Prefix{netip.MustParsePrefix(c.trusted)}
			}
			a := get(t, tenants(t, config), "GET / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-Host: "+c.field)
			if got := answered(a); got != c.want {
				t.Errorf("answered by %s, want %s", got, c.want)
			}
		})
	}
}
