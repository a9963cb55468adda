package edge_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// https is a server with TLS for *.example.com and example.com.
type https struct {
	*server.Server
	plain, tls string // addresses
	port       string // of tls
	config     *tls.Config
}

// secure runs c with TLS until the test ends.
func secure(t *testing.T, c server.Config) *https {
	t.Helper()
	certificate := rig.NewCertificate(t, "example.com", "*.example.com", "elsewhere.test")
	if c.TLS == nil {
		c.TLS = &server.TLS{}
	}
	c.TLS.Listen = "127.0.0.1:0"
	c.TLS.GetCertificate = certificate.Get
	s := start(t, c)
	h := &https{Server: s, plain: s.Addr().String(), tls: s.TLSAddr().String(), config: &tls.Config{RootCAs: certificate.Roots}}
	_, h.port, _ = net.SplitHostPort(h.tls)
	return h
}

// greeting is a client's configuration with SNI.
func (h *https) greeting(sni string, protos ...string) *tls.Config {
	c := h.config.Clone()
	c.ServerName, c.NextProtos = sni, protos
	return c
}

// dial makes a connection of TLS with SNI.
func (h *https) dial(t *testing.T, sni string, protos ...string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", h.tls, h.greeting(sni, protos...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// client is a real one of the protocol "1", "2" or "3", whose connections all greet
// the server as sni, whatever they ask for; "" as what they ask for.
func (h *https) client(t *testing.T, proto, sni string) *http.Client {
	t.Helper()
	c := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if proto == "3" {
		tr := &http3.Transport{TLSClientConfig: h.greeting(sni), Dial: h.quic(sni)}
		t.Cleanup(func() { tr.Close() })
		c.Transport = tr
		return c
	}
	tr := &http.Transport{TLSClientConfig: h.greeting(sni), Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(proto == "1")
	tr.Protocols.SetHTTP2(proto == "2")
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, h.tls)
	}
	t.Cleanup(tr.CloseIdleConnections)
	c.Transport = tr
	return c
}

// fetch reads an answer to its end.
func fetch(t *testing.T, c *http.Client, req *http.Request) answer {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// protocols are those of HTTPS.
func protocols() []string { return []string{"1", "2", "3"} }

// framed answers with how the request's body came.
func framing(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %d %q %s %v %s", r.Method, r.RequestURI, r.ContentLength, r.TransferEncoding, body, err, r.Header["X-Forwarded-Proto"])
}

// Each protocol leads to the app, which sees the same.
func TestHTTPS(t *testing.T) {
	h := secure(t, server.Config{TLS: &server.TLS{HSTS: time.Hour}})
	publish(t, h.plain, "demo", nil, http.HandlerFunc(framing))
	for _, proto := range protocols() {
		t.Run(proto, func(t *testing.T) {
			c := h.client(t, proto, "")
			url := "https://demo.example.com:" + h.port + "/a%7Cb?c;d"
			for _, test := range []struct {
				method, body string
				want         string
			}{
				{"GET", "", `GET /a%7Cb?c;d 0 []  <nil> [https]`},
				{"DELETE", "", `DELETE /a%7Cb?c;d 0 []  <nil> [https]`},
				{"POST", "hello", `POST /a%7Cb?c;d 5 [] hello <nil> [https]`},
				{"PUT", "chunks", `PUT /a%7Cb?c;d -1 ["chunked"] chunks <nil> [https]`},
			} {
				var body io.Reader
				if test.body != "" {
					body = strings.NewReader(test.body)
				}
				req := request(t, test.method, url, body)
				if test.method == "PUT" {
					req.ContentLength = -1
				}
				a := fetch(t, c, req)
				if a.body != test.want || fmt.Sprint(a.ProtoMajor) != proto {
					t.Errorf("%s: %s with %q, want %q", test.method, a.Proto, a.body, test.want)
				}
				alternative := `h3=":` + h.port + `"; ma=86400`
				if proto == "3" {
					alternative = ""
				}
				if got := a.Header.Get("Alt-Svc"); got != alternative {
					t.Errorf("Alt-Svc is %q", got)
				}
				if got := a.Header.Get("Strict-Transport-Security"); got != "max-age=3600" {
					t.Errorf("HSTS is %q", got)
				}
			}
		})
	}
}

// What the app says of itself holds.
func TestAppAnnounces(t *testing.T) {
	h := secure(t, server.Config{TLS: &server.TLS{HSTS: time.Hour}})
	publish(t, h.plain, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=0")
		w.Header().Set("Alt-Svc", "clear")
	}))
	a := fetch(t, h.client(t, "2", ""), request(t, "GET", "https://demo.example.com:"+h.port+"/", nil))
	if hsts, svc := a.Header["Strict-Transport-Security"], a.Header["Alt-Svc"]; fmt.Sprint(hsts, svc) != "[max-age=0] [clear]" {
		t.Errorf("got %q and %q", hsts, svc)
	}
}

// Without a wish for it nothing is said of HSTS, nor of HTTP/3 where there is none.
func TestNothingAnnounced(t *testing.T) {
	h := secure(t, server.Config{TLS: &server.TLS{NoHTTP3: true}})
	a := fetch(t, h.client(t, "1", ""), request(t, "GET", "https://example.com:"+h.port+"/healthz", nil))
	if a.Header["Strict-Transport-Security"] != nil || a.Header["Alt-Svc"] != nil || a.body != "ok\n" {
		t.Errorf("got %s with %v", a.body, a.Header)
	}
}

// S5: who greets one tenant and asks for another is told to come again, on one
// connection of each protocol; what is one tenant in two spellings is one.
func TestMisdirected(t *testing.T) {
	h := secure(t, server.Config{})
	publish(t, h.plain, "demo", nil, seen("demo"))
	publish(t, h.plain, "other", nil, seen("other"))
	for _, proto := range protocols() {
		for _, test := range []struct {
			sni, host string
			want      int
		}{
			{"demo.example.com", "demo.example.com", 200},
			{"demo.example.com", "DEMO.example.com.:443", 200},
			{"demo.example.com", "other.example.com", 421},
			{"demo.example.com", "example.com", 421},
			{"example.com", "demo.example.com", 421},
			{"example.com", "localhost", 200},
			{"elsewhere.test", "demo.example.com", 421},
			{"demo.example.com", "elsewhere.test", 421},
		} {
			t.Run(proto+" "+test.sni+" "+test.host, func(t *testing.T) {
				c := h.client(t, proto, test.sni)
				for range 2 { // the second on the same connection
					req := request(t, "GET", "https://"+test.sni+":"+h.port+"/", nil)
					req.Host = test.host
					a := fetch(t, c, req)
					if a.StatusCode != test.want || test.want == 421 && a.code() != "wrong_host" {
						t.Errorf("got %s", answered(a))
					}
				}
			})
		}
	}
}

// What the handshake agreed on is spoken, TLS is not old, and the probe of a CA ends
// with the handshake.
func TestHandshake(t *testing.T) {
	h := secure(t, server.Config{})
	t.Run("HTTP/1.1 after h2", func(t *testing.T) {
		c := h.dial(t, "example.com", "h2")
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if b, err := io.ReadAll(c); errTimeout(err) != nil || len(b) > 0 {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("HTTP/2 after http/1.1", func(t *testing.T) {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return h.dial(t, "example.com", "http/1.1"), nil
		}
		defer tr.CloseIdleConnections()
		if a := fetch(t, &http.Client{Transport: tr}, request(t, "GET", "http://example.com/healthz", nil)); a.StatusCode != 400 {
			t.Errorf("got %s", answered(a))
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		config := h.greeting("example.com")
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		c, err := tls.Dial("tcp", h.tls, config)
		if err == nil {
			c.Close()
		}
		// Not for want of a cipher suite alone, which there may be one day.
		if err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
			t.Errorf("it ends with %v", err)
		}
	})
	t.Run("acme-tls/1", func(t *testing.T) {
		c := h.dial(t, "example.com", "acme-tls/1")
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("it ends with %v", err)
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		c, err := net.Dial("tcp", h.tls)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		c.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); errTimeout(err) != nil || strings.Contains(string(b), "200") {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// anybody lets everybody in.
func anybody() auth.Authenticator { return auth.Anonymous{} }
