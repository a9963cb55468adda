package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

func ptthServer(t *testing.T, handler http.HandlerFunc) *Dialer {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &Dialer{Server: u, Token: "secret"}
}

func ptthOrigins(t *testing.T, all ...string) (origins []protocol.Origin) {
	for _, s := range all {
		o, err := protocol.ParseOrigin(s)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, o)
	}
	return origins
}

// Both ends speak with each other: the list of origins arrives as it was, h2 goes before
// HTTP/1.1, and what either sends right behind the upgrade is the other's.
func TestPTTH(t *testing.T) {
	for _, c := range []struct {
		offer []string
		want  string
	}{
		{[]string{"h2", "http/1.1"}, "h2"},
		{[]string{"http/1.1", "h2"}, "h2"},
		{[]string{"http/1.1"}, "http/1.1"},
	} {
		asked := make(chan *http.Request, 1)
		ended := make(chan string, 1)
		d := ptthServer(t, func(w http.ResponseWriter, r *http.Request) {
			asked <- r
			alpn, err := ChoosePTTH(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			conn, err := AcceptPTTH(w, alpn, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "first words\n")
			line, _ := bufio.NewReader(conn).ReadString('\n')
			ended <- line
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, chosen, err := d.DialPTTH(ctx, ptthOrigins(t, "https://a.example", "https://b.example:8443"), nil, c.offer...)
		if err != nil || chosen != c.want {
			t.Fatalf("%v: got %q, %v", c.offer, chosen, err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "first words\n" {
			t.Errorf("read %q, %v", line, err)
		}
		io.WriteString(conn, "and back\n")
		if line := <-ended; line != "and back\n" {
			t.Errorf("the server read %q", line)
		}
		conn.Close()
		r := <-asked
		if r.RequestURI != "/.well-known/ptth/https%3A%2F%2Fa.example,https%3A%2F%2Fb.example%3A8443/" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked %s %s", r.Method, r.RequestURI)
		}
	}
}

func TestPTTHIsRefused(t *testing.T) {
	ask := func(change func(*http.Request)) (int, http.Header) {
		r := httptest.NewRequest("GET", "/.well-known/ptth/https%3A%2F%2Fa.example/", nil)
		r.Header = http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"ptth"}, "Alpn": {"h2"}}
		change(r)
		w := httptest.NewRecorder()
		_, err := ChoosePTTH(w, r)
		var e *protocol.Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
		Refuse(w, e)
		return w.Code, w.Header()
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"no upgrade":        {func(r *http.Request) { r.Header.Del("Upgrade") }, 426},
		"another upgrade":   {func(r *http.Request) { r.Header.Set("Upgrade", "tunnel.v1") }, 426},
		"no Connection":     {func(r *http.Request) { r.Header.Del("Connection") }, 426},
		"HTTP/2":            {func(r *http.Request) { r.Proto, r.ProtoMajor = "HTTP/2.0", 2 }, 426},
		"POST":              {func(r *http.Request) { r.Method = "POST" }, 400},
		"a body":            {func(r *http.Request) { r.ContentLength = 3 }, 400},
		"a browser":         {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 400},
		"no ALPN":           {func(r *http.Request) { r.Header.Del("ALPN") }, 400},
		"a bad ALPN":        {func(r *http.Request) { r.Header.Set("ALPN", "%") }, 400},
		"h3 alone":          {func(r *http.Request) { r.Header.Set("ALPN", "h3, spdy%2F3") }, 406},
		"the letters' case": {func(r *http.Request) { r.Header.Set("ALPN", "H2") }, 406},
	} {
		status, header := ask(c.change)
		if status != c.status {
			t.Errorf("%s: got %d, want %d", name, status, c.status)
		}
		if status == 426 && name != "HTTP/2" && header.Get("Upgrade") != "ptth" {
			t.Errorf("%s: got Upgrade %q", name, header.Get("Upgrade"))
		}
	}
}

// What proxies that are not ours answer becomes an error that names the cause.
func TestPTTHOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string
		code   protocol.Code
	}{
		"a problem":     {"HTTP/1.1 403 Forbidden\r\nContent-Length: 42\r\n\r\n{\"title\":\"no\",\"detail\":\"not yours\",\"x\":12}", "403 Forbidden: not yours", protocol.Forbidden},
		"no body":       {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "401 Unauthorized", protocol.Unauthorized},
		"a conflict":    {"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno", "409 Conflict", protocol.NameTaken},
		"no such page":  {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found", ""},
		"another ALPN":  {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h3\r\n\r\n", `chose ALPN "h3"`, ""},
		"two ALPN":      {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2, http%2F1.1\r\n\r\n", "which was not offered", ""},
		"no ALPN":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\r\n", "which was not offered", ""},
		"another token": {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nALPN: h2\r\n\r\n", "another protocol than ptth", ""},
	} {
		d := ptthServer(t, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, c.answer)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, _, err := d.DialPTTH(ctx, ptthOrigins(t, "https://a.example"), nil, "h2", "http/1.1")
		cancel()
		if err == nil {
			conn.Close()
			t.Fatalf("%s: got a connection", name)
		}
		var refused *Refused
		if errors.As(err, &refused) != (c.code != "") || refused != nil && refused.Err.Code != c.code {
			t.Errorf("%s: got %#v", name, err)
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, want %q in it", name, err, c.want)
		}
	}
	var none net.Conn
	if conn, _, err := new(Dialer).DialPTTH(t.Context(), nil, nil, "h2"); conn != none || err == nil {
		t.Error("no origin: got a connection")
	}
}
