package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// secret is a token, and a password; nothing that is shown may hold it.
const secret = "hunter2-hunter2"

// direct goes to server without a forward proxy.
func direct(server string) *Doctor {
	return &Doctor{Client: tunnel.Client{Server: server, Token: secret, Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }}}
}

// found is what a doctor says of each step.
type found map[string]Step

func examine(t *testing.T, d *Doctor) found {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	shown := 0
	show := d.Show
	d.Show = func(s Step) {
		shown++
		if show != nil {
			show(s)
		}
	}
	steps, err := d.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if shown != len(steps) {
		t.Errorf("%d of %d steps were shown", shown, len(steps))
	}
	all := make(found)
	for _, s := range steps {
		if _, twice := all[s.Name]; twice {
			t.Errorf("%s is there twice", s.Name)
		}
		all[s.Name] = s
		if bad := s.Verdict == Fail || s.Verdict == Warn; bad && (s.Hint == "" || s.Detail == "" && s.Code == "") {
			t.Errorf("%s is %s without a word or a way out: %+v", s.Name, s.Verdict, s)
		}
		if strings.Contains(s.Detail+s.Hint, secret) {
			t.Errorf("%s shows a secret: %+v", s.Name, s)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, s := range steps {
				t.Logf("%+v", s)
			}
		}
	})
	for _, name := range []string{DNS, TCP, Proxy, TLS, Server, Clock, Raw, WebSocket, PTTH, Token, App, Idle} {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	return all
}

// want checks the verdict of a step, and that it says words.
func (f found) want(t *testing.T, name string, verdict Verdict, words ...string) {
	t.Helper()
	s := f[name]
	if s.Verdict != verdict {
		t.Errorf("%s is %s, want %s", name, s.Verdict, verdict)
	}
	for _, w := range words {
		if !strings.Contains(s.Detail+"\n"+s.Hint+"\n"+string(s.Code), w) {
			t.Errorf("%s does not say %q: %+v", name, w, s)
		}
	}
}

// all checks that steps have a verdict.
func (f found) all(t *testing.T, verdict Verdict, names ...string) {
	t.Helper()
	for _, name := range names {
		f.want(t, name, verdict)
	}
}

func TestFine(t *testing.T) {
	d := direct(startServer(t, tokens(t, secret)))
	d.Idle = 10 * time.Millisecond
	f := examine(t, d)
	f.all(t, OK, TCP, Server, Clock, Raw, WebSocket, PTTH, Token)
	f.want(t, DNS, Skip, "127.0.0.1 is an address")
	f.want(t, Proxy, Skip, "none")
	f.want(t, TLS, Skip, "http")
	f.want(t, App, Skip, "no TARGET")
	f.want(t, Idle, OK, "silent for 10ms", "round trip")
	for _, s := range f {
		if s.Verdict == OK && s.Name != Token && s.Name != Clock && s.Took <= 0 {
			t.Errorf("%s took no time", s.Name)
		}
	}
}

func TestClosedPort(t *testing.T) {
	d := direct("http://" + rig.FreePort(t))
	d.Idle = time.Millisecond
	f := examine(t, d)
	f.want(t, TCP, Fail, "connection refused", "--server", "firewall")
	for _, name := range []string{Proxy, TLS, Server, Clock, Raw, WebSocket, PTTH, Token, Idle} {
		f.want(t, name, Skip, "needs tcp")
	}
}

// nameserver knows no name but those in hosts.
func nameserver(t *testing.T, hosts map[string]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		ip, ok := hosts[q.Question[0].Name]
		switch {
		case !ok:
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			for one := range strings.FieldsSeq(ip) {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(one)})
			}
		}
		w.WriteMsg(m)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestNames(t *testing.T) {
	base := startServer(t, server.Config{})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
	d := direct("http://nowhere.test.:" + port)
	d.Resolver = nameserver(t, nil)
	f := examine(t, d)
	f.want(t, DNS, Fail, "nowhere.test", "no such host", "--server")
	f.want(t, TCP, Skip, "needs dns")

	// Two addresses, of which nobody listens at one.
	d = direct("http://both.test.:" + port)
	d.Resolver = nameserver(t, map[string]string{"both.test.": "127.0.0.1 127.0.0.77"})
	f = examine(t, d)
	f.want(t, DNS, OK, "127.0.0.1", "127.0.0.77")
	f.want(t, TCP, Warn, "reached at 127.0.0.1:"+port, "not at 127.0.0.77:"+port, "connection refused")
	f.want(t, TLS, Warn, "in the clear", "https://")
}

func TestUnknownAuthority(t *testing.T) {
	base := startServer(t, server.Config{})
	cert, trusted := authority(t, "Corp Root", time.Now().Add(time.Hour))
	d := direct(behindTLS(t, base, cert))
	f := examine(t, d)
	f.want(t, TCP, OK)
	f.want(t, TLS, Fail, `signed by "Corp Root"`, "--ca FILE")
	f.want(t, Raw, Skip, "needs tls")
	d.Client.TLS = trusted
	f = examine(t, d)
	f.want(t, TLS, OK, "TLS 1.3", `signed by "Corp Root"`, "trusted by --ca alone")
	f.all(t, OK, Server, Clock, Raw, WebSocket, PTTH, Token)

	own := rig.NewCertificate(t, "own.example")
	examine(t, direct(behindTLS(t, base, own.TLS))).want(t, TLS, Fail, `"own.example"`, "signed itself", "--ca FILE")
	expired, trusted := authority(t, "Corp Root", time.Now().Add(-time.Hour))
	d = direct(behindTLS(t, base, expired))
	d.Client.TLS = trusted
	examine(t, d).want(t, TLS, Fail, "this machine's clock says", "set the clock")
	examine(t, direct("https"+strings.TrimPrefix(base, "http"))).want(t, TLS, Fail, "does not speak TLS", "http://")
}

// A company's proxy that looks into TLS, with an authority of its own.
func TestInterceptingProxy(t *testing.T) {
	base := startServer(t, server.Config{})
	cert, trusted := authority(t, "Zscaler Intermediate Root CA", time.Now().Add(time.Hour))
	proxy := forwardProxy(t, behindTLS(t, base, cert), "")
	d := &Doctor{Client: tunnel.Client{Server: "https://127.0.0.1:443"}}
	var err error
	if d.Client.Proxy, err = tunnel.FixedProxy(proxy); err != nil {
		t.Fatal(err)
	}
	f := examine(t, d)
	f.want(t, Proxy, OK, "127.0.0.1:443")
	f.want(t, TLS, Fail, `"Zscaler Intermediate Root CA"`, "your company's proxy", "--ca FILE")
	d.Client.TLS = trusted
	f = examine(t, d)
	f.want(t, TLS, Warn, `"Zscaler Intermediate Root CA"`, "look into TLS")
	f.all(t, OK, Raw, WebSocket)
}

func TestForwardProxy(t *testing.T) {
	base := startServer(t, server.Config{Domain: "made-up.invalid"})
	proxy := forwardProxy(t, base, "Basic dXNlcjpodW50ZXIyLWh1bnRlcjI=") // user:secret
	host := strings.TrimPrefix(proxy, "http://")
	for given, check := range map[string]func(found){
		proxy:                                 func(f found) { f.want(t, Proxy, Fail, "407", "wants a user and a password", "--proxy") },
		"http://user:" + secret + "x@" + host: func(f found) { f.want(t, Proxy, Fail, "407", "password is wrong") },
		"http://user:" + secret + "@" + host: func(f found) {
			f.want(t, Proxy, OK, host+" connects to made-up.invalid")
			f.all(t, OK, TCP, Server, Raw, WebSocket, PTTH)
		},
		"http://" + rig.FreePort(t): func(f found) {
			f.want(t, TCP, Fail, "connection refused", "--proxy")
			f.want(t, Proxy, Skip, "needs tcp")
		},
		base: func(f found) { f.want(t, Proxy, Fail, "CONNECT") }, // no proxy at all
	} {
		choose, err := tunnel.FixedProxy(given)
		if err != nil {
			t.Fatal(err)
		}
		check(examine(t, &Doctor{Client: tunnel.Client{Server: "http://made-up.invalid", Proxy: choose}}))
	}
}

func TestStrippedUpgrade(t *testing.T) {
	base := startServer(t, server.Config{})
	strip := func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Upgrade")
		r.Header.Del("Connection")
		return true
	}
	f := examine(t, direct(middlebox(t, base, strip, nil)))
	f.want(t, Server, OK)
	f.want(t, Raw, Fail, "upgrade_required", "without its Upgrade", "pass Upgrade and Connection on")
	f.all(t, Fail, WebSocket, PTTH)
	f.want(t, Token, Skip, "no upgrade came through")
	f.want(t, Idle, Skip)
}

// What takes WebSockets alone is no failure but for who wants raw.
func TestWebSocketsAlone(t *testing.T) {
	base := startServer(t, server.Config{})
	only := func(w http.ResponseWriter, r *http.Request) bool {
		u := r.Header.Get("Upgrade")
		if u == "" || strings.EqualFold(u, "websocket") {
			return true
		}
		http.Error(w, "no", http.StatusBadRequest)
		return false
	}
	d := direct(middlebox(t, base, only, nil))
	d.Idle = time.Millisecond
	f := examine(t, d)
	f.want(t, Raw, Warn, "400", "by themselves")
	f.want(t, WebSocket, OK)
	f.want(t, PTTH, Warn, "400")
	f.all(t, OK, Token, Idle)
	d.Client.Transport = tunnel.Raw
	examine(t, d).want(t, Raw, Fail, "400")
}

func TestClock(t *testing.T) {
	base := startServer(t, server.Config{})
	for off, want := range map[time.Duration]Verdict{time.Hour: Fail, -time.Hour: Fail, time.Minute * 2: Warn} {
		at := middlebox(t, base, nil, func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			return nil
		})
		word := "behind"
		if off < 0 {
			word = "ahead"
		}
		examine(t, direct(at)).want(t, Clock, want, word, "NTP")
	}
}

func TestToken(t *testing.T) {
	base := startServer(t, tokens(t, secret))
	d := direct(base)
	d.Client.Token, d.Idle = "", time.Millisecond
	f := examine(t, d)
	f.want(t, Token, Fail, "unauthorized", "--token-file")
	f.want(t, Raw, Skip, "needs token")
	f.want(t, Idle, Skip, "needs token")
	d.Client.Token = "wrong-" + secret
	examine(t, d).want(t, Token, Fail, "unauthorized", "operator")
	d.Client.Token = secret
	examine(t, d).want(t, Token, OK, "accepted")
}

// A token with few rights may not claim the name that PTTH is tried with.
func TestFewRights(t *testing.T) {
	f := examine(t, direct(startServer(t, tokens(t, secret+" name=demo"))))
	f.all(t, OK, Raw, WebSocket, Token)
	f.want(t, PTTH, Skip, "may not claim")
}

func TestNoTunnelServer(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	f := examine(t, direct(web.URL))
	f.want(t, Server, Warn, "no tunnel server", "--server")
	f.want(t, Raw, Fail, "404")
	f.want(t, PTTH, Skip)
	ssh := listen(t, nil, func(c net.Conn) { c.Write([]byte("SSH-2.0-x\r\n")); c.Read(make([]byte, 1024)) })
	f = examine(t, direct("http://"+ssh))
	f.want(t, Server, Fail, "not HTTP")
	f.want(t, Clock, Skip, "needs server")
}

func TestIdleCut(t *testing.T) {
	q := newQuiet(t, startServer(t, server.Config{}))
	d := direct(q.url)
	d.Idle = 10 * time.Second // a ping comes later
	d.Show = func(s Step) { q.armed.Store(q.armed.Load() || s.Name == App) }
	f := examine(t, d)
	f.all(t, OK, Raw, WebSocket)
	f.want(t, Idle, Fail, "was cut after", "proxy_read_timeout")
}

func TestBadServer(t *testing.T) {
	for _, bad := range []string{"ftp://x", "tunnel.example.com", "https://user:" + secret + "@x"} {
		_, err := direct(bad).Run(t.Context())
		var config *tunnel.ConfigError
		if !errors.As(err, &config) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
