//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// dig asks bind9, which only the other client's user reaches: there is no public side. A
// stranger's token finds nothing. When the exposing client has been killed and is there
// again, so is the endpoint; bind9 answers over TCP by the same name.
func TestPrivateDNS(t *testing.T) {
	dig := need(t, "dig", "bind9-dnsutils")
	dns, dir := startNamed(t), t.TempDir()
	tokens, mine, theirs := filepath.Join(dir, "tokens"), filepath.Join(dir, "mine"), filepath.Join(dir, "theirs")
	for path, content := range map[string]string{mine: "a-token-of-mine", theirs: "a-token-of-theirs", tokens: "a-token-of-mine\na-token-of-theirs\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, "--token-file", tokens) // and no --udp-ports
	expose := func(kind string) *tunnelClient {
		t.Helper()
		cmd := clientCommand(dns, "--server", s.url, "--token-file", mine, "--private", "--name", "dns")
		cmd.Args[1] = kind
		c := readyClient(t, cmd)
		if c.url != "private:dns" {
			t.Errorf("the URL is %q", c.url)
		}
		return c
	}
	exposing := expose("udp")
	expose("tcp")
	local := fmt.Sprintf("127.0.0.1:%d", rig.FreePorts(t, 1))
	connecting, listen := startConnect(t, "dns", "--udp", "--listen", local, "--server", s.url, "--token-file", mine)
	if listen != local {
		t.Errorf("it listens at %s, want %s", listen, local)
	}
	startConnect(t, "dns", "--listen", local, "--server", s.url, "--token-file", mine)
	command := func(at string, args ...string) *exec.Cmd {
		host, port, _ := net.SplitHostPort(at)
		return exec.Command(dig, append([]string{"@" + host, "-p", port, "+tries=3", "+time=5"}, args...)...)
	}
	ask := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(mustRun(t, command(local, args...)))
	}
	for i := range 20 {
		if got, want := ask("+short", "+notcp", fmt.Sprintf("h%d.example.test", i), "A"), fmt.Sprintf("192.0.2.%d", i); got != want {
			t.Errorf("h%d.example.test is %q, want %q", i, got, want)
		}
	}
	if got := ask("+short", "+notcp", "+bufsize=4096", "long.example.test", "TXT"); len(got) < 2000 {
		t.Errorf("over UDP the long answer has %d bytes", len(got))
	}
	// In 512 bytes it does not fit, and dig asks again over TCP.
	if got := ask("+noedns", "long.example.test", "TXT"); !strings.Contains(got, "(TCP)") || strings.Count(got, "text-") != 20 {
		t.Errorf("the answer that was cut off over UDP:\n%s", got)
	}
	stranger, strange := startConnect(t, "dns", "--udp", "--server", s.url, "--token-file", theirs)
	if out, err := command(strange, "+short", "+notcp", "+tries=1", "+time=1", "h1.example.test", "A").CombinedOutput(); err == nil {
		t.Errorf("another token's dig is answered %s", out)
	}
	stranger.errors.await(t, "name_unknown")
	exposing.kill()
	expose("udp")
	eventually(t, "an answer after the exposing end was started again", func() bool {
		out, err := command(local, "+short", "+notcp", "h7.example.test", "A").Output()
		return err == nil && strings.TrimSpace(string(out)) == "192.0.2.7"
	})
	connecting.signal(t, syscall.SIGTERM)
	if code := connecting.exit(t); code != 0 {
		t.Errorf("connect ended with exit code %d", code)
	}
}
