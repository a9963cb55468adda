//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// portClient runs tunnel-client KIND TARGET, and returns it and the public port.
func portClient(t *testing.T, s *tunnelServer, kind, target string, args ...string) (*tunnelClient, int) {
	t.Helper()
	cmd := clientCommand(target, append([]string{"--server", s.url}, args...)...)
	cmd.Args[1] = kind
	c := readyClient(t, cmd)
	u, err := url.Parse(c.url)
	if err != nil || u.Scheme != kind || u.Hostname() != "localhost" {
		t.Fatalf("the public URL is %q", c.url)
	}
	port, _ := strconv.Atoi(u.Port())
	return c, port
}

// A DNS server that answers over UDP, and over TCP where an answer is long, both through
// ports of the same number.
func TestDNS(t *testing.T) {
	dig := need(t, "dig", "bind9-dnsutils")
	dns := startNamed(t)
	public := rig.FreePorts(t, 1)
	ports := fmt.Sprintf("%d-%d", public, public)
	s := startServer(t, "--udp-ports", ports, "--tcp-ports", ports)
	_, port := portClient(t, s, "udp", dns)
	if port != public {
		t.Errorf("the port is %d, want %d", port, public)
	}
	portClient(t, s, "tcp", dns, "--name", "dns-tcp", "--remote-port", strconv.Itoa(public))
	ask := func(args ...string) string {
		return strings.TrimSpace(mustRun(t, exec.Command(dig, append([]string{"@127.0.0.1", "-p", strconv.Itoa(public), "+tries=3", "+time=5"}, args...)...)))
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
}

// startNamed runs bind9 for the zone example.test, and returns its host:port.
func startNamed(t *testing.T) string {
	t.Helper()
	named := need(t, "named", "bind9")
	dir, err := os.MkdirTemp("", "named-") // the path is short enough, and it may write there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := rig.FreePorts(t, 1)
	zone := "$TTL 60\n@ SOA ns admin 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n"
	for i := range 20 {
		zone += fmt.Sprintf("h%d A 192.0.2.%d\nlong TXT \"text-%02d %s\"\n", i, i, i, strings.Repeat("x", 100))
	}
	config := fmt.Sprintf(`options {
	directory %q; pid-file none; session-keyfile none; recursion no; dnssec-validation no;
	listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; max-udp-size 4096; edns-udp-size 4096;
};
controls {};
zone "example.test" { type primary; file "zone"; };
`, dir, port)
	for name, text := range map[string]string{"zone": zone, "named.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, exec.Command(named, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")))
	p.errors.await(t, "running")
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// iperf3's datagrams go through a port for UDP, its control connection through that of
// the same number for TCP. Both directions; lost datagrams may be, as on any network, but
// not most, and none comes twice or out of its order.
func TestIperfUDP(t *testing.T) {
	iperf := need(t, "iperf3", "iperf3")
	local, public := rig.FreePorts(t, 1), rig.FreePorts(t, 1)
	target := fmt.Sprintf("127.0.0.1:%d", local)
	app := start(t, exec.Command(iperf, "--server", "--bind", "127.0.0.1", "--port", strconv.Itoa(local), "--forceflush"))
	app.out.await(t, "Server listening")
	ports := fmt.Sprintf("%d-%d", public, public)
	s := startServer(t, "--udp-ports", ports, "--tcp-ports", ports)
	portClient(t, s, "udp", target, "--name", "iperf-udp", "--remote-port", strconv.Itoa(public))
	portClient(t, s, "tcp", target, "--name", "iperf-tcp", "--remote-port", strconv.Itoa(public))
	for _, direction := range [][]string{nil, {"--reverse"}} {
		args := append([]string{"--client", "127.0.0.1", "--port", strconv.Itoa(public), "--udp", "--bitrate", "10M", "--length", "1200", "--time", "2", "--json"}, direction...)
		out := mustRun(t, exec.Command(iperf, args...))
		var report struct {
			End struct {
				Sum struct {
					Packets int `json:"packets"`
					Lost    int `json:"lost_packets"`
				} `json:"sum"`
				Streams []struct {
					UDP struct {
						OutOfOrder int `json:"out_of_order"`
					} `json:"udp"`
				} `json:"streams"`
			} `json:"end"`
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		sum := report.End.Sum
		if sum.Packets < 1000 || sum.Lost > sum.Packets/2 {
			t.Errorf("%v: of %d datagrams %d were lost", direction, sum.Packets, sum.Lost)
		}
		for _, stream := range report.End.Streams {
			if stream.UDP.OutOfOrder != 0 {
				t.Errorf("%v: %d datagrams came out of their order", direction, stream.UDP.OutOfOrder)
			}
		}
		t.Logf("%v: %d datagrams, %d lost", direction, sum.Packets, sum.Lost)
	}
}

// A client that is told to end does not wait for visitors who are quiet, and one that is
// killed has its port again at the next start.
func TestUDPClientEnds(t *testing.T) {
	app, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := app.ReadFrom(buf)
			if err != nil {
				return
			}
			app.WriteTo(buf[:n], from)
		}
	}()
	public := rig.FreePorts(t, 10)
	s := startServer(t, "--udp-ports", fmt.Sprintf("%d-%d", public, public+9))
	first := 0
	for i, end := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM} {
		c, port := portClient(t, s, "udp", app.LocalAddr().String(), "--name", "echo", "--grace", "1h")
		if first == 0 {
			first = port
		}
		if port != first {
			t.Errorf("start %d: the port is %d, and was %d", i, port, first)
		}
		v, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		eventually(t, "an answer", func() bool {
			v.Write([]byte("hello"))
			v.SetReadDeadline(time.Now().Add(time.Second))
			n, err := v.Read(buf)
			return err == nil && string(buf[:n]) == "hello"
		})
		v.Close()
		c.signal(t, end)
		if code := c.exit(t); end == syscall.SIGTERM && code != 0 {
			t.Errorf("start %d: exit code %d", i, code)
		}
	}
}
