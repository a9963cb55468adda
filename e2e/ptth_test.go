//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// startOrigin runs one of examples/ptth, which attaches itself to s as name, and returns
// the public URL.
func startOrigin(t *testing.T, s *tunnelServer, name string, command ...string) (*process, string) {
	t.Helper()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	public := "http://" + name + ".localhost:" + port
	for i, arg := range command {
		command[i] = strings.NewReplacer("PROXY", s.url, "ORIGIN", public).Replace(arg)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = filepath.Join("..", "examples", "ptth")
	cmd.Env = environment("HOME="+home, "TUNNEL_TOKEN=token-of-ann")
	p := start(t, cmd)
	return p, public
}

// buildOrigin builds the example in Go.
func buildOrigin(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ptth")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("..", "examples", "ptth")
	mustRun(t, build)
	return path
}

// Servers with no code of ours attach themselves, and curl reaches them.
func TestPTTHExamples(t *testing.T) {
	curl := need(t, "curl", "curl")
	s := startServer(t, "--token-file", tokens(t, "token-of-ann"))
	for name, c := range map[string]struct {
		command []string
		out     func(*process) *output
		want    string
	}{
		"go":     {[]string{buildOrigin(t), "-proxy", "PROXY", "-origin", "ORIGIN"}, func(p *process) *output { return p.errors }, "Hello from behind NAT by HTTP/2.0: "},
		"node":   {[]string{need(t, "node", "nodejs"), "origin.mjs", "PROXY", "ORIGIN"}, func(p *process) *output { return p.out }, "Hello from Node.js behind NAT by HTTP/2: "},
		"python": {[]string{need(t, "python3", "python3"), "origin.py", "PROXY", "ORIGIN"}, func(p *process) *output { return p.out }, "Hello from Python behind NAT by HTTP/1.1: "},
	} {
		t.Run(name, func(t *testing.T) {
			p, public := startOrigin(t, s, name, c.command...)
			c.out(p).await(t, "leads here")
			u, err := url.Parse(public)
			if err != nil {
				t.Fatal(err)
			}
			var curls sync.WaitGroup
			for i := range 8 { // more than Python's connections
				curls.Go(func() {
					path := fmt.Sprintf("/a%%2Fb//%d?x;y", i)
					cmd := exec.Command(curl, "-sS", "--max-time", "20", "--path-as-is", "--resolve", u.Host+":127.0.0.1", public+path)
					cmd.Env = environment("HOME=" + home)
					out, err := cmd.Output()
					if err != nil || string(out) != c.want+"GET "+path+"\n" {
						t.Errorf("curl %s: %q, %v", path, out, err)
					}
				})
			}
			curls.Wait()
		})
	}
}

// An origin is back by itself when its proxy was away, here for being killed with its
// connection: what it does is the example's part, what it finds is the server's.
func TestPTTHOriginIsBack(t *testing.T) {
	s := startServer(t, "--token-file", tokens(t, "token-of-ann"))
	origin := buildOrigin(t)
	p, public := startOrigin(t, s, "demo", origin, "-proxy", "PROXY", "-origin", "ORIGIN")
	p.errors.await(t, "leads here")
	p.kill()
	p, _ = startOrigin(t, s, "demo", origin, "-proxy", "PROXY", "-origin", "ORIGIN")
	p.errors.await(t, "leads here")
	if _, body := fetch(t, visitor(t), public+"/again"); !strings.Contains(body, "GET /again") {
		t.Errorf("got %q", body)
	}
}

// A visitor's WebSocket reaches an origin of HTTP/2 by extended CONNECT (RFC 8441), and
// what is none of that gets 501.
func TestPTTHWebSocket(t *testing.T) {
	s := startServer(t, "--token-file", tokens(t, "token-of-ann"))
	p, public := startOrigin(t, s, "demo", need(t, "node", "nodejs"), "origin.mjs", "PROXY", "ORIGIN")
	p.out.await(t, "leads here")
	u, _ := url.Parse(public)
	upgrade := func(protocol string) (net.Conn, *bufio.Reader, *http.Response) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", u.Host, protocol)
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn, r, res
	}
	conn, r, res := upgrade("websocket")
	// The answer is RFC 6455's example.
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("got %s %v", res.Status, res.Header)
	}
	for _, what := range []string{"a frame", strings.Repeat("more", 1<<18)} {
		go io.WriteString(conn, what)
		got := make([]byte, len(what))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != what {
			t.Fatalf("%d bytes came back as %d, %v", len(what), len(got), err)
		}
	}
	conn.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after the end came %q, %v", rest, err)
	}
	if _, _, res := upgrade("other"); res.StatusCode != http.StatusNotImplemented || res.Header.Get("Tunnel-Error") != "no_upgrade" {
		t.Errorf("another protocol got %s %v", res.Status, res.Header)
	}
}
