//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// startConnect runs tunnel-client connect until it is ready, and returns where it
// listens.
func startConnect(t *testing.T, args ...string) (c *tunnelClient, listen string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "tunnel-client"), append([]string{"connect", "--json"}, args...)...)
	cmd.Env = environment("HOME=" + home)
	c = readyClient(t, cmd)
	var ready struct{ URL, Listen string }
	if err := json.Unmarshal([]byte(c.out.await(t, `"ready"`)), &ready); err != nil || ready.Listen == "" {
		t.Fatalf("ready has the address %q: %v", ready.Listen, err)
	}
	return c, ready.Listen
}

// TestPrivateEndpoint has curl ask an app that only the other client's user reaches:
// there is no public side. A stranger's token finds nothing. When the exposing client
// has been killed and is there again, so is the endpoint.
func TestPrivateEndpoint(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	large := noise(4<<20, 1)
	target := "http://" + app(t, curlApp(large))
	tokens, mine, theirs := filepath.Join(c.dir, "tokens"), filepath.Join(c.dir, "mine"), filepath.Join(c.dir, "theirs")
	for path, content := range map[string]string{mine: "a-token-of-mine", theirs: "a-token-of-theirs", tokens: "a-token-of-mine\na-token-of-theirs\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, "--token-file", tokens)
	expose := clientCommand(target, "--server", s.url, "--token-file", mine, "--private", "--name", "app")
	exposing := readyClient(t, expose)
	if exposing.url != "private:app" {
		t.Errorf("the URL is %q", exposing.url)
	}
	connecting, listen := startConnect(t, "app", "--server", s.url, "--token-file", mine)
	get := func() {
		t.Helper()
		mustRun(t, c.command(t, "http://"+listen, "-f", "-o", "body", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "http://"+listen+"/large"))
		if body, err := os.ReadFile(filepath.Join(c.dir, "body")); !bytes.Equal(body, large) {
			t.Errorf("%d bytes came of %d: %v", len(body), len(large), err)
		}
	}
	get()
	if out := mustRun(t, c.command(t, s.url, "-o", "-", "-w", "%{http_code}", "-H", "Host: app.localhost", s.url+"/large")); !bytes.Contains([]byte(out), []byte("name_unknown")) {
		t.Errorf("in public there is %.200q", out)
	}
	_, strange := startConnect(t, "app", "--server", s.url, "--token-file", theirs)
	if conn, err := net.Dial("tcp", strange); err == nil {
		if got, err := io.ReadAll(conn); err == nil || len(got) > 0 {
			t.Errorf("another token's connection reads %q, %v", got, err)
		}
		conn.Close()
	}
	exposing.kill()
	again := clientCommand(target, "--server", s.url, "--token-file", mine, "--private", "--name", "app")
	readyClient(t, again)
	get()
	connecting.signal(t, syscall.SIGTERM)
	if code := connecting.exit(t); code != 0 {
		t.Errorf("connect ended with exit code %d", code)
	}
}
