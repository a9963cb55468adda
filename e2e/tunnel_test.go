//go:build unix

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tunnelServer is a running tunnel-server.
type tunnelServer struct {
	*process
	addr string // host:port that it listens on
	url  string // http://addr
}

// startServer runs tunnel-server serve on a free port, unless args say another.
func startServer(t *testing.T, args ...string) *tunnelServer {
	t.Helper()
	all := append([]string{"serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"}, args...)
	cmd := exec.Command(filepath.Join(bin, "tunnel-server"), all...)
	cmd.Env = environment("HOME=" + home)
	s := &tunnelServer{process: start(t, cmd)}
	var err error
	s.addr, err = s.errors.find(func(line string) (string, bool) {
		var entry struct{ Msg, Addr string }
		json.Unmarshal([]byte(line), &entry)
		return entry.Addr, entry.Msg == "listening"
	})
	if err != nil {
		t.Fatalf("tunnel-server did not start: %v", err)
	}
	s.url = "http://" + s.addr
	return s
}

// tunnelClient is a running tunnel-client.
type tunnelClient struct {
	*process
	url string // public
}

// event is a line of --json.
type event struct {
	Event, URL, Name, Target string
}

// clientCommand is tunnel-client http TARGET ARGS.
func clientCommand(target string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "tunnel-client"), append([]string{"http", target, "--json"}, args...)...)
	cmd.Env = environment("HOME=" + home)
	return cmd
}

func startClient(t *testing.T, target string, args ...string) *tunnelClient {
	t.Helper()
	return readyClient(t, clientCommand(target, args...))
}

// readyClient starts cmd and waits until it is ready.
func readyClient(t *testing.T, cmd *exec.Cmd) *tunnelClient {
	t.Helper()
	c := &tunnelClient{process: start(t, cmd)}
	ready := c.await(t, "ready")
	if _, err := url.Parse(ready.URL); err != nil || ready.URL == "" {
		t.Fatalf("ready has the URL %q", ready.URL)
	}
	c.url = strings.TrimSuffix(ready.URL, "/")
	return c
}

// await waits for the first event of that kind.
func (c *tunnelClient) await(t *testing.T, kind string) event {
	t.Helper()
	var e event
	_, err := c.out.find(func(line string) (string, bool) {
		return "", json.Unmarshal([]byte(line), &e) == nil && e.Event == kind
	})
	if err != nil {
		t.Fatalf("tunnel-client told no event %q: %v", kind, err)
	}
	return e
}

// kinds are the events so far, in order.
func (c *tunnelClient) kinds() []string {
	var all []string
	for line := range strings.Lines(c.out.String()) {
		var e event
		json.Unmarshal([]byte(line), &e)
		all = append(all, e.Event)
	}
	return all
}

// expose runs a server and a client for target, and returns the public URL.
func expose(t *testing.T, target, transport string, args ...string) string {
	t.Helper()
	s := startServer(t)
	return startClient(t, target, append([]string{"--server", s.url, "--name", "app", "--transport", transport}, args...)...).url
}

// eachTransport runs f for each way to upgrade the client's connection.
func eachTransport(t *testing.T, f func(t *testing.T, transport string)) {
	eachSession(t, f)
	t.Run("ptth", func(t *testing.T) { f(t, "ptth") })
}

// eachSession leaves PTTH out, which has no messages of ours: its clients hear of the
// server's end when that has come, and their names are held and not given back.
func eachSession(t *testing.T, f func(t *testing.T, transport string)) {
	for _, transport := range []string{"raw", "websocket"} {
		t.Run(transport, func(t *testing.T) { f(t, transport) })
	}
}

// app serves h on loopback as the local app, over HTTP/1 and HTTP/2 without TLS,
// and returns its host:port.
func app(t *testing.T, h http.Handler) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.DisableGeneralOptionsHandler = true
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// loopback dials this machine whatever the host is: NAME.localhost does not
// resolve everywhere.
func loopback(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
}

// visitor returns an HTTP client for public URLs.
func visitor(t *testing.T) *http.Client {
	tr := &http.Transport{DialContext: loopback, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		Timeout:       2 * patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch returns the answer and its whole body.
func fetch(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return res, string(body)
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// fileSum is sum of a file.
func fileSum(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sum(b)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hostOf is a URL's host:port.
func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// gate lets the local app go on when the visitor says so, which makes order a
// matter of cause and not of time.
type gate chan struct{}

func (g gate) pass(r *http.Request) bool {
	select {
	case <-g:
		return true
	case <-r.Context().Done():
		return false
	case <-time.After(patience):
		return false
	}
}
