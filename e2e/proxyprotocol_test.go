//go:build unix

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/revtun/tunnel/internal/rig"
)

// proxiedNginx is nginx as the local app. It takes no connection without a header of
// the PROXY protocol, and answers with what that says, and which connection it is.
const proxiedNginx = `
server {
    listen 127.0.0.1:%d proxy_protocol;
    listen 127.0.0.1:%d ssl proxy_protocol;
    ssl_certificate %s;
    ssl_certificate_key %s;
    keepalive_timeout 60;
    location / {
        return 200 "$proxy_protocol_addr $proxy_protocol_port $connection";
    }
    location /socket {
        proxy_pass http://%s;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
        proxy_set_header Seen "$proxy_protocol_addr $proxy_protocol_port";
    }
}
`

// startProxiedNginx returns the addresses without and with TLS.
func startProxiedNginx(t *testing.T, cert *rig.Certificate) (plain, secure string) {
	t.Helper()
	nginx := need(t, "nginx", "nginx")
	behind := app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		c.Write(r.Context(), websocket.MessageText, []byte(r.Header.Get("Seen")))
		c.Close(websocket.StatusNormalClosure, "")
	}))
	for range 5 {
		// nginx cannot choose a port, so another process may be faster.
		one, two := rig.FreePorts(t, 1), rig.FreePorts(t, 1)
		if one != two && runNginx(t, nginx, fmt.Sprintf(proxiedNginx, one, two, cert.Cert, cert.Key, behind), one) {
			return fmt.Sprintf("127.0.0.1:%d", one), fmt.Sprintf("127.0.0.1:%d", two)
		}
	}
	t.Fatal("no port stayed free")
	return "", ""
}

// traveller is a visitor with an address of its own, who keeps the connection.
type traveller struct {
	t    *testing.T
	from string // address
	http *http.Client
	seen map[string]bool // nginx's connections
}

func newTraveller(t *testing.T, from, at string, config *tls.Config) *traveller {
	tr := &http.Transport{TLSClientConfig: config, MaxConnsPerHost: 1}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, network, at)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &traveller{t, from, &http.Client{Transport: tr, Timeout: patience}, map[string]bool{}}
}

// ask makes a request, and compares what nginx says of the visitor to the truth.
func (v *traveller) ask(public string) {
	v.t.Helper()
	port := ""
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(v.t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { _, port, _ = net.SplitHostPort(i.Conn.LocalAddr().String()) },
	}), "GET", public+"/", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, name := range []string{"Tunnel-Visitor", "X-Forwarded-For"} {
		req.Header.Set(name, "6.6.6.6:6")
	}
	res, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	seen, ok := strings.CutPrefix(string(b), v.from+" "+port+" ")
	if err != nil || !ok {
		v.t.Errorf("the app saw %q, %v, and it was %s %s", b, err, v.from, port)
	}
	v.seen[seen] = true
}

// travel has two visitors make requests in turn. They keep their connections, and
// neither the tunnel's streams nor those connections to nginx are one visitor's only.
func travel(t *testing.T, public, at string, config *tls.Config) {
	t.Helper()
	a, b := newTraveller(t, "127.0.0.2", at, config), newTraveller(t, "127.0.0.3", at, config)
	for range 5 {
		a.ask(public)
		b.ask(public)
	}
	for conn := range a.seen {
		if b.seen[conn] {
			t.Errorf("connection %s to the app is both visitors'", conn)
		}
	}
	if len(a.seen) != 1 || len(b.seen) != 1 {
		t.Errorf("connections are not kept: %v, %v", a.seen, b.seen)
	}
}

// TestProxyProtocol has nginx as the local app learn each visitor's address by the
// PROXY protocol, of each kind of tunnel.
func TestProxyProtocol(t *testing.T) {
	own, sealed := rig.NewCertificate(t, "tunnel.example.com", "*.tunnel.example.com"), rig.NewCertificate(t, "demo.tunnel.example.com")
	plain, secure := startProxiedNginx(t, sealed)
	server := startServer(t, "--domain", "tunnel.example.com", "--tls-listen", "127.0.0.1:0", "--cert", own.Cert, "--key", own.Key,
		"--allow-plain", "demo", "--tcp-ports", fmt.Sprintf("%[1]d-%[1]d", rig.FreePorts(t, 1)))
	state := t.TempDir() // one: the name goes to who had it
	for _, test := range []struct {
		name string
		args []string
	}{
		{"http", []string{"http", plain}},
		{"https target", []string{"http", "https://" + secure, "--insecure-upstream"}},
		{"tcp", []string{"tcp", plain}},
		{"tls", []string{"tls", secure}},
		{"tls --terminate", []string{"tls", plain, "--terminate", "--cert", sealed.Cert, "--key", sealed.Key}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "tunnel-client"), append(test.args, "--json", "--server", server.url, "--name", "demo", "--proxy-protocol", "v2")...)
			cmd.Env = environment("HOME="+home, "XDG_STATE_HOME="+state)
			client := readyClient(t, cmd)
			u, err := url.Parse(client.url)
			if err != nil {
				t.Fatal(err)
			}
			at := "127.0.0.1:" + u.Port()
			switch u.Scheme {
			case "tls", "https":
				roots := sealed.Roots
				if u.Scheme == "https" {
					roots = own.Roots
				}
				travel(t, "https://"+u.Host, at, &tls.Config{RootCAs: roots})
			case "tcp":
				travel(t, "http://"+u.Host, at, nil)
			}
			if test.args[0] == "http" {
				travel(t, "http://demo.tunnel.example.com", server.addr, nil)
				proxiedWebSocket(t, server.addr)
			}
		})
	}
}

// proxiedWebSocket opens a WebSocket by hand, to know the visitor's port.
func proxiedWebSocket(t *testing.T, at string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 4)}}
	c, err := d.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: demo.tunnel.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	frame := make([]byte, 2)
	if _, err := io.ReadFull(in, frame); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, frame[1])
	_, err = io.ReadFull(in, message)
	if want := strings.Replace(c.LocalAddr().String(), ":", " ", 1); string(message) != want || err != nil {
		t.Errorf("the app behind the WebSocket saw %q, %v, and it was %s", message, err, want)
	}
}
