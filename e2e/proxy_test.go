//go:build unix

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
)

// elsewhere is the server's host where only the forward proxy knows it.
const elsewhere = "tunnel.test"

// tinyproxy is a running forward proxy.
type tinyproxy struct {
	*process
	addr string
}

// startTinyproxy runs one with more lines of configuration.
func startTinyproxy(t *testing.T, lines ...string) tinyproxy {
	t.Helper()
	path := need(t, "tinyproxy", "tinyproxy")
	for range 5 {
		// It cannot choose a port, so another process may be faster.
		port := rig.FreePorts(t, 1)
		conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
		writeFile(t, conf, fmt.Sprintf("Listen 127.0.0.1\nPort %d\nTimeout 600\nMaxClients 50\nLogLevel Info\nAllow 127.0.0.1\n%s\n", port, strings.Join(lines, "\n")))
		p := tinyproxy{start(t, exec.Command(path, "-d", "-c", conf)), fmt.Sprintf("127.0.0.1:%d", port)}
		if _, err := p.out.find(func(line string) (string, bool) { return "", strings.Contains(line, "Accepting connections") }); err == nil {
			return p
		}
		if !strings.Contains(p.errors.String(), "listening sockets") {
			t.Fatal("tinyproxy did not start")
		}
	}
	t.Fatal("no port stayed free")
	return tinyproxy{}
}

// connects is how often the proxy was asked for a connection to host.
func (p tinyproxy) connects(host string) int {
	return strings.Count(p.out.String(), "CONNECT "+host+" HTTP/1.1")
}

// resolver is a forward proxy for tinyproxy, to which every host is this machine.
func resolver(t *testing.T) string {
	return app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, err := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			to.Close()
			return
		}
		go join(readFrom{from, early}, to)
	}))
}

// readFrom is a connection of which some bytes were read already.
type readFrom struct {
	net.Conn
	r io.Reader
}

func (c readFrom) Read(p []byte) (int, error) { return c.r.Read(p) }

// join passes bytes in both directions until either ends.
func join(a, b net.Conn) {
	defer a.Close()
	go func() {
		io.Copy(a, b)
		a.Close()
	}()
	io.Copy(b, a)
	b.Close()
}

// secured is a TLS port before addr.
func secured(t *testing.T, addr string, cert *rig.Certificate) (port string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.TLS}})
	if err != nil {
		t.Fatal(err)
	}
	listener.On(t, l, func(from net.Conn) {
		if to, err := net.Dial("tcp", addr); err == nil {
			join(from, to)
		}
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestForwardProxy has a forward proxy between client and server, which each of
// the ways to name one leads to.
func TestForwardProxy(t *testing.T) {
	const password = "user-password"
	s := startServer(t, "--domain", elsewhere, "--token-file", tokens(t, tokenA))
	_, port, _ := net.SplitHostPort(s.addr)
	cert := rig.NewCertificate(t, elsewhere)
	securePort := secured(t, s.addr, cert)
	upstream := fmt.Sprintf("Upstream http %s %q", resolver(t), elsewhere)
	open := startTinyproxy(t, upstream)
	locked := startTinyproxy(t, upstream, "BasicAuth visitor "+password)
	target := says(t, "through the proxy")
	with := "visitor:" + password + "@"

	for _, way := range []struct {
		name   string
		proxy  tinyproxy
		server string
		args   []string
		env    []string
		asked  int // how many connections of the proxy
	}{
		{"flag", open, s.url, []string{"--proxy", "http://" + open.addr}, nil, 1},
		{"flag with password", locked, s.url, []string{"--proxy", "http://" + with + locked.addr}, nil, 1},
		{"flag, https proxy", locked, s.url, []string{"--proxy", "https://" + with + "127.0.0.1:" + secured(t, locked.addr, cert), "--ca", cert.Cert}, nil, 1},
		{"flag, https server", locked, "https://" + elsewhere + ":" + securePort, []string{"--proxy", "http://" + with + locked.addr, "--ca", cert.Cert}, nil, 1},
		{"flag before environment", open, s.url, []string{"--proxy", "http://" + open.addr}, []string{"HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=*"}, 1},
		{"HTTP_PROXY", locked, "http://" + elsewhere + ":" + port, nil, []string{"HTTP_PROXY=http://" + with + locked.addr}, 1},
		{"http_proxy", open, "http://" + elsewhere + ":" + port, nil, []string{"http_proxy=http://" + open.addr, "no_proxy=other.test"}, 1},
		{"HTTPS_PROXY", locked, "https://" + elsewhere + ":" + securePort, []string{"--ca", cert.Cert}, []string{"HTTPS_PROXY=http://" + with + locked.addr, "HTTP_PROXY=http://127.0.0.1:1"}, 1},
		{"NO_PROXY", open, "http://0.0.0.0:" + port, nil, []string{"HTTP_PROXY=http://" + open.addr, "NO_PROXY=other.test,0.0.0.0"}, 0},
		{"not in NO_PROXY", open, "http://0.0.0.0:" + port, nil, []string{"HTTP_PROXY=http://" + open.addr, "NO_PROXY=other.test"}, 1},
	} {
		t.Run(way.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, transport string) {
				host := hostOf(t, way.server)
				before := way.proxy.connects(host)
				cmd := clientCommand(target, append([]string{"--server", way.server, "--name", "app", "--transport", transport}, way.args...)...)
				cmd.Env = append(cmd.Env, way.env...)
				c := readyClient(t, withToken(cmd, tokenA))
				if res, body := fetch(t, visitor(t), c.url); body != "through the proxy" {
					t.Errorf("%s %q", res.Status, body)
				}
				n := way.proxy.connects(host) - before
				if transport == "ptth" {
					n = min(n, 1) // it has several connections
				}
				if n != way.asked {
					t.Errorf("the proxy was asked for %d connections to %s, want %d", n, host, way.asked)
				}
			})
		})
	}
}

// TestForwardProxyRefuses has proxies that do not let the client through: it
// says what is wrong, and never the password.
func TestForwardProxyRefuses(t *testing.T) {
	const wrong = "wrong-password"
	s := startServer(t)
	locked := startTinyproxy(t, "BasicAuth visitor right-password")
	strict := startTinyproxy(t, "ConnectPort 443")
	away := fmt.Sprintf("127.0.0.1:%d", rig.FreePorts(t, 1))
	for _, way := range []struct {
		name, server string
		args         []string
		says         []string
	}{
		{name: "no password", server: s.url, args: []string{"--proxy", "http://" + locked.addr}, says: []string{locked.addr, "a user and a password", "--proxy"}},
		{name: "wrong password", server: s.url, args: []string{"--proxy", "http://visitor:" + wrong + "@" + locked.addr}, says: []string{locked.addr, "the password is wrong", "--proxy"}},
		{name: "port not allowed", server: s.url, args: []string{"--proxy", "http://" + strict.addr}, says: []string{strict.addr, "does not allow connections to " + s.addr}},
		{name: "not there", server: s.url, args: []string{"--proxy", "http://" + away}, says: []string{"the proxy at " + away + " cannot be reached"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, transport string) {
				cmd := clientCommand("3000", append([]string{"--server", way.server, "--name", "app", "--transport", transport}, way.args...)...)
				code, out, errors := run(t, cmd)
				if code != 5 {
					t.Errorf("exit code %d, want 5", code)
				}
				for _, words := range way.says {
					if !strings.Contains(errors, words) {
						t.Errorf("%q is not in what it says:\n%s", words, errors)
					}
				}
				if strings.Contains(out+errors, wrong) {
					t.Errorf("it shows the password:\n%s", errors)
				}
			})
		})
	}
}
