package transport

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

const madeUp = "tunnel.example.invalid"

// via is a choice of u for every server.
func via(u *url.URL) func(*url.URL) (*url.URL, error) {
	return func(*url.URL) (*url.URL, error) { return u, nil }
}

// forwardProxy is a forward proxy that knows CONNECT alone, and the one to
// whom the name madeUp means anything.
type forwardProxy struct {
	*httptest.Server
	URL    *url.URL
	target string // host:port of madeUp, whatever its port

	mu    sync.Mutex // guards asked
	asked []string   // the CONNECTs that it granted
	login string     // user:password; "" asks for none
	early string     // is sent in one piece with the 200
	wg    sync.WaitGroup
}

// newProxy starts a proxy in front of target; start is as for newServer.
func newProxy(t *testing.T, target *url.URL, login string, start func(*httptest.Server)) *forwardProxy {
	t.Helper()
	p := &forwardProxy{target: target.Host, login: login}
	p.Server = httptest.NewUnstartedServer(p)
	start(p.Server)
	p.URL = mustParse(t, p.Server.URL)
	t.Cleanup(func() {
		p.Close()
		p.wg.Wait()
	})
	return p
}

func (p *forwardProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.login))
	host, _, _ := net.SplitHostPort(r.Host)
	switch {
	case p.login != "" && r.Header.Get("Proxy-Authorization") != want:
		w.Header().Set("Proxy-Authenticate", `Negotiate, Basic realm="test"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	case r.Method != http.MethodConnect || r.URL.Path != "" || r.Header.Get("Authorization") != "":
		w.WriteHeader(http.StatusMethodNotAllowed)
	case host != madeUp && r.Host != p.target:
		w.WriteHeader(http.StatusBadGateway)
	default:
		p.mu.Lock()
		p.asked = append(p.asked, r.Host)
		p.mu.Unlock()
		p.join(w)
	}
}

// join copies both ways between the client and the target.
func (p *forwardProxy) join(w http.ResponseWriter) {
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, brw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		out.Close()
		return
	}
	io.WriteString(in, "HTTP/1.1 200 Connection established\r\nContent-Length: 0\r\n\r\n"+p.early)
	p.wg.Add(2)
	go func() {
		defer p.wg.Done()
		io.Copy(out, brw)
		out.Close()
	}()
	go func() {
		defer p.wg.Done()
		io.Copy(in, out)
		in.Close()
	}()
}

// trust returns roots with the certificates of all that speak TLS.
func trust(servers ...*httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	for _, s := range servers {
		if cert := s.Certificate(); cert != nil {
			pool.AddCert(cert)
		}
	}
	return &tls.Config{RootCAs: pool}
}

func TestProxy(t *testing.T) {
	start := map[string]func(*httptest.Server){"http": (*httptest.Server).Start, "https": (*httptest.Server).StartTLS}
	for _, tt := range []struct{ server, proxy, login string }{
		{"http", "http", ""},
		{"https", "http", ""},
		{"http", "https", ""},
		{"https", "https", "user:p@ss w/rd"},
		{"http", "http", "user:"},
	} {
		t.Run(tt.server+" via "+tt.proxy+" "+tt.login, func(t *testing.T) {
			both(t, func(t *testing.T, kind Kind) {
				s := newServer(t, start[tt.server])
				p := newProxy(t, s.URL, tt.login, start[tt.proxy])
				user, password, ok := strings.Cut(tt.login, ":")
				if ok {
					p.URL.User = url.UserPassword(user, password)
				}
				choose, err := FixedProxy(p.URL.String())
				if err != nil {
					t.Fatal(err)
				}
				d := &Dialer{Server: s.URL, Token: "token", Proxy: choose, TLS: trust(s.Server, p.Server)}
				client := dial(t, d, kind)
				a := s.next(t)
				exchangeBytes(t, client, a.conn)
				if len(p.asked) != 1 || p.asked[0] != s.URL.Host {
					t.Errorf("the proxy was asked for %q", p.asked)
				}
				if got := a.req.Header.Get("Proxy-Authorization"); got != "" {
					t.Errorf("the server sees %q", got)
				}
			})
		})
	}
}

// What comes in one piece with the proxy's answer is the server's.
func TestProxyReadAhead(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	p := newProxy(t, s.URL, "", (*httptest.Server).Start)
	p.early = "HTTP/1.1 503 X\r\nTunnel-Error: draining\r\nContent-Length: 0\r\n\r\n"
	conn, err := (&Dialer{Server: s.URL, Proxy: via(p.URL)}).Dial(bounded(t), Raw, session)
	if !errors.Is(err, &protocol.Error{Code: protocol.Draining}) {
		t.Errorf("got %v, %v", conn, err)
	}
	(<-s.accepted).conn.Close()
}

func TestProxyRefuses(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	p := newProxy(t, s.URL, "user:secret", (*httptest.Server).Start)
	const form = "--proxy http://user:password@host:port"
	for _, tt := range []struct {
		name   string
		server string
		user   *url.Userinfo
		want   []string
	}{
		{"no password", "", nil, []string{"407", "wants a user and a password", form}},
		{"wrong password", "", url.UserPassword("user", "wrong-secret"), []string{"407", "is wrong", form}},
		{"unknown server", "http://other.invalid", url.UserPassword("user", "secret"), []string{"502", "other.invalid:80", "--server"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Dialer{Server: s.URL, Proxy: via(&url.URL{Scheme: "http", Host: p.URL.Host, User: tt.user})}
			if tt.server != "" {
				d.Server = mustParse(t, tt.server)
			}
			conn, err := d.Dial(bounded(t), Raw, session)
			if err == nil {
				t.Fatalf("got a %T", conn)
			}
			for _, want := range append(tt.want, "proxy http://"+p.URL.Host) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q shows the password", err)
			}
		})
	}
}

func TestProxyAnswers(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"forbidden", "HTTP/1.1 403 X\r\n\r\n", "many proxies allow port 443 alone"},
		{"no proxy", "HTTP/1.1 400 X\r\n\r\n", "check that it is a forward proxy"},
		{"401", "HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n", "it answered 401 Unauthorized: it wants a user and a password"},
		{"other login", "HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\n\r\n", `it offers "NTLM"`},
		{"closed", "", "without an answer"},
		{"garbage", "garbage", "not HTTP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := listen(t, func(conn net.Conn) {
				readRequest(conn)
				io.WriteString(conn, tt.answer)
			})
			conn, err := (&Dialer{Server: mustParse(t, "http://"+madeUp), Proxy: via(addr)}).Dial(bounded(t), Raw, session)
			if err == nil {
				t.Fatalf("got a %T", conn)
			}
			for _, want := range []string{tt.want, "proxy http://" + addr.Host} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// clearProxyEnv takes away what the machine may have set.
func clearProxyEnv(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUEST_METHOD"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
}

// A name that the proxy alone can resolve.
func TestProxyFromEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, kind Kind) {
				start, scheme, port := (*httptest.Server).Start, "http", "80"
				if strings.EqualFold(name, "HTTPS_PROXY") {
					start, scheme, port = (*httptest.Server).StartTLS, "https", "443"
				}
				s := newServer(t, start)
				p := newProxy(t, s.URL, "user:secret", (*httptest.Server).Start)
				clearProxyEnv(t)
				t.Setenv(name, "user:secret@"+p.URL.Host)
				d := &Dialer{Server: &url.URL{Scheme: scheme, Host: madeUp}, Proxy: FromEnvironment(), TLS: trust(s.Server)}
				if scheme == "https" {
					d.TLS.ServerName = "example.com" // what the test's certificate is for
				}
				client := dial(t, d, kind)
				a := s.next(t)
				exchangeBytes(t, client, a.conn)
				if len(p.asked) != 1 || p.asked[0] != madeUp+":"+port {
					t.Errorf("the proxy was asked for %q", p.asked)
				}
				if a.req.Host != madeUp {
					t.Errorf("host %q", a.req.Host)
				}
			})
		})
	}
}

func TestFromEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name   string
		env    map[string]string
		server string
		want   string // "" for none, "error" for one
	}{
		{"none", nil, "http://x.example", ""},
		{"http", map[string]string{"HTTP_PROXY": "http://p:1"}, "http://x.example", "http://p:1"},
		{"not for https", map[string]string{"HTTP_PROXY": "http://p:1"}, "https://x.example", ""},
		{"lower case first", map[string]string{"HTTPS_PROXY": "http://p:1", "https_proxy": "https://q:2"}, "https://x.example", "https://q:2"},
		{"no scheme", map[string]string{"HTTP_PROXY": "p:1"}, "http://x.example", "http://p:1"},
		{"loopback", map[string]string{"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:8080", ""},
		{"localhost", map[string]string{"HTTP_PROXY": "http://p:1"}, "http://localhost:8080", ""},
		{"NO_PROXY", map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "y,.example"}, "http://x.example", ""},
		{"no_proxy", map[string]string{"HTTP_PROXY": "http://p:1", "no_proxy": "x.example:80"}, "http://x.example", ""},
		{"NO_PROXY of others", map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "y.example"}, "http://x.example", "http://p:1"},
		{"not a URL", map[string]string{"HTTP_PROXY": "http://u:sec%ret@p:1"}, "http://x.example", "error"},
		{"SOCKS", map[string]string{"HTTP_PROXY": "socks5://u:secret@p:1"}, "http://x.example", "error"},
		{"not a URL, not wanted", map[string]string{"HTTP_PROXY": "http://%", "NO_PROXY": "*"}, "http://x.example", ""},
		{"not a URL, of the other", map[string]string{"HTTPS_PROXY": "http://%"}, "http://x.example", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clearProxyEnv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			proxy, err := FromEnvironment()(mustParse(t, tt.server))
			got := ""
			switch {
			case err != nil:
				got = "error"
				if text := err.Error(); !strings.Contains(text, "HTTP_PROXY: ") || strings.Contains(text, "sec") {
					t.Errorf("error %q", text)
				}
			case proxy != nil:
				got = proxy.String()
			}
			if got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestFixedProxy(t *testing.T) {
	for raw, want := range map[string]string{
		"http://p:3128":           "http://p:3128",
		"https://u:p%40ss@p:3128": "https://u:p%40ss@p:3128",
		"p:3128":                  "http://p:3128",
		"u:pass@p":                "http://u:pass@p",
	} {
		choose, err := FixedProxy(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		for _, server := range []string{"http://127.0.0.1:1", "https://x.example"} {
			if got, err := choose(mustParse(t, server)); err != nil || got.String() != want {
				t.Errorf("%s: %v, %v", raw, got, err)
			}
		}
	}
	for raw, want := range map[string]string{
		"socks5://u:secret@p:1":      `"socks5"`,
		"http://u:sec ret@p:1":       "percent-encoded",
		"http://u:sec%ret@p:1":       "percent-encoded",
		"http://u:secret@p:no":       "percent-encoded",
		"http://u:secret\x1b[31m@p/": "percent-encoded",
		"http://u:secret@":           "no host",
		"":                           "no host",
	} {
		_, err := FixedProxy(raw)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sec") {
			t.Errorf("%q: %v; want %q", raw, err, want)
		}
	}
}
