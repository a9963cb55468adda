package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/datagram"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// startUDPEcho is a local app that answers each datagram with the address that it came
// from and the datagram.
func startUDPEcho(t *testing.T) (addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(fmt.Appendf(nil, "%s %s", from, buf[:n]), from)
		}
	}()
	return c.LocalAddr().String()
}

// dialUDP is a local address that sends to listen.
func dialUDP(t *testing.T, listen string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// askUDP sends text until it comes back, and returns what the app saw it come from.
func askUDP(t *testing.T, c net.Conn, text string) (seen string) {
	t.Helper()
	buf := make([]byte, 2000)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if from, got, _ := strings.Cut(string(buf[:n]), " "); got == text {
				return from
			}
		}
	}
	t.Fatalf("no answer to %q", text)
	return ""
}

// exposeUDP runs tunnel-client udp --private --name dns.
func exposeUDP(t *testing.T, app, base string, args ...string) *running {
	t.Helper()
	c := startCommand(t, append([]string{"udp", app, "--json", "--private", "--name", "dns", "--server", base}, args...)...)
	if e := c.next("ready"); e.URL != "private:dns" || e.Name != "dns" {
		t.Errorf("the exposing end says %s", e.line)
	}
	return c
}

// Two local addresses are two visitors to the app, each with its own answers. The first
// signal ends connect soon after they are quiet.
func TestConnectUDPCommand(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	exposeUDP(t, startUDPEcho(t), base)
	c := startCommand(t, "connect", "dns", "--udp", "--json", "--server", base, "--grace", "1h")
	e := c.next("ready")
	if want := `{"event":"ready","url":"private:dns","name":"dns","listen":"` + e.Listen + `"}`; e.line != want || !strings.HasPrefix(e.Listen, "127.0.0.1:") {
		t.Errorf("ready is %s, want %s", e.line, want)
	}
	seen := map[string]int{}
	for i := range 5 {
		v := dialUDP(t, e.Listen)
		first, second := askUDP(t, v, fmt.Sprint("first of ", i)), askUDP(t, v, fmt.Sprint("second of ", i))
		if before, ok := seen[first]; first != second || ok {
			t.Errorf("the app saw %d at %s and %s, and %d before", i, first, second, before)
		}
		seen[first] = i
	}
	c.signal(syscall.SIGTERM)
	c.next("draining")
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Who is idle is forgotten: the app sees it at another port afterwards.
func TestConnectUDPIdle(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	exposeUDP(t, startUDPEcho(t), base)
	c := startCommand(t, "connect", "dns", "--udp", "--json", "--server", base, "--idle-timeout", "300ms", "--log-level", "debug")
	v := dialUDP(t, c.next("ready").Listen)
	before := askUDP(t, v, "before")
	eventually(t, "the visit is over", func() bool {
		return strings.Contains(c.stderr.String(), "method=UDP path="+v.LocalAddr().String()+" status=101")
	})
	if after := askUDP(t, v, "after"); after == before {
		t.Errorf("the app saw %s before and after", after)
	}
}

// More local addresses than there may be at once: the one that was idle longest loses its
// place, the server is not asked for more than it gives, and the newest gets answers.
func TestConnectUDPCap(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	exposeUDP(t, startUDPEcho(t), base)
	c := startCommand(t, "connect", "dns", "--udp", "--json", "--server", base, "--log-level", "debug")
	listen := c.next("ready").Listen
	first := dialUDP(t, listen)
	askUDP(t, first, "first")
	for i := range maxLocal + 100 {
		askUDP(t, dialUDP(t, listen), fmt.Sprint(i))
	}
	eventually(t, "the first one's visit is over", func() bool {
		return strings.Contains(c.stderr.String(), "path="+first.LocalAddr().String()+" status=101")
	})
	if strings.Contains(c.stderr.String(), string(protocol.Overloaded)) {
		t.Error("the server was asked for more than it gives")
	}
	askUDP(t, first, "first again")
}

// Either end loses its connection, or is started again: datagrams find the way by
// themselves. While there is none the log says so once.
func TestConnectUDPReconnects(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{Hold: time.Minute})
	app := startUDPEcho(t)
	paths := map[string]*rig.Path{}
	through := func(who string) string {
		path := rig.NewPath(strings.TrimPrefix(base, "http://"), 0, 0)
		l, err := path.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- path.Serve(l) }()
		t.Cleanup(func() { l.Close(); <-served; path.Close() })
		paths[who] = path
		return "http://" + l.Addr().String()
	}
	// The machine's key is that of the server's address.
	t.Setenv("TUNNEL_TOKEN", "token-of-both")
	exposing := exposeUDP(t, app, through("exposing"))
	c := startCommand(t, "connect", "dns", "--udp", "--json", "--server", through("connecting"))
	v := dialUDP(t, c.next("ready").Listen)
	askUDP(t, v, "at first")
	paths["exposing"].Cut()
	exposing.next("disconnected")
	exposing.next("reconnected")
	askUDP(t, v, "when the exposing end is back")
	paths["connecting"].Cut()
	c.next("disconnected")
	c.next("reconnected")
	askUDP(t, v, "when the connecting end is back")
	exposing.signal(syscall.SIGTERM)
	exposing.exit()
	eventually(t, "the log says why", func() bool {
		io.WriteString(v, "nobody is there")
		return strings.Contains(c.stderr.String(), string(protocol.NameUnknown))
	})
	for range 100 {
		io.WriteString(v, "nobody is there")
	}
	exposeUDP(t, app, base)
	askUDP(t, v, "when there is another")
	if n := strings.Count(c.stderr.String(), string(protocol.NameUnknown)); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	wantText(t, c.stderr.String(), "tunnel-client udp TARGET --private --name NAME")
}

// What is not to be reached that way, and why, is in the log. Another owner's endpoint is
// as one that is not there.
func TestConnectUDPRefused(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	exposeUDP(t, startUDPEcho(t), base)
	startCommand(t, "tcp", startEcho(t), "--json", "--private", "--name", "db", "--server", base).next("ready")
	says := func(want string, args ...string) {
		t.Helper()
		c := startCommand(t, append([]string{"connect", "--json", "--server", base}, args...)...)
		listen := c.next("ready").Listen
		if !strings.Contains(strings.Join(args, " "), "--udp") {
			refused(t, listen)
		} else {
			io.WriteString(dialUDP(t, listen), "hello")
		}
		eventually(t, "the log says why", func() bool { return strings.Contains(c.stderr.String(), want) })
	}
	says("not of kind udp", "db", "--udp")
	says("tunnel-client connect NAME --udp", "dns")
	says("name_unknown", "nothing", "--udp")
	t.Setenv("TUNNEL_TOKEN", "another-token")
	says("name_unknown", "dns", "--udp")
	says("name_unknown", "dns")
	says("name_unknown", "db", "--udp")
}

func TestConnectUDPUsage(t *testing.T) {
	home(t)
	for _, args := range [][]string{
		{"dns", "--udp", "--listen", "unix:/tmp/s"}, {"dns", "--udp", "--idle-timeout", "-1s"}, {"dns", "--udp", "--listen", "nonsense"}, {"udp/dns"},
	} {
		if code := startCommand(t, append([]string{"connect"}, args...)...).exit(); code != int(exitUsage) {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if code := startCommand(t, "connect", "dns", "--udp", "--listen", busy.LocalAddr().String()).exit(); code != int(exitRuntime) {
		t.Errorf("with a taken address: exit code %d", code)
	}
	base := startServer(t, server.Config{})
	c := startCommand(t, "connect", "dns", "--udp", "--json", "--listen", "0.0.0.0:0", "--server", base)
	c.next("ready")
	wantText(t, c.stderr.String(), "no loopback address")
}

// recorded is an output that remembers.
type recorded []request

func (r *recorded) change(change)       {}
func (r *recorded) request(one request) { *r = append(*r, one) }
func (r *recorded) close()              {}

// A terminal shows a line for each local address that has gone, and none is red for a
// signal.
func TestVisitIsShown(t *testing.T) {
	var shown recorded
	r := &reached{config: &config{}, out: &shown}
	r.ended(datagram.Visit{Bytes: 7, Began: time.Now()})
	r.ended(datagram.Visit{Err: &protocol.Error{Code: protocol.WrongKind}})
	r.ended(datagram.Visit{Err: fmt.Errorf("ended: %w", context.Canceled)})
	for i, want := range []string{"UDP 101 7 ", "UDP 400 0 wrong_kind", "UDP 0 0 "} {
		e := shown[i]
		if got := fmt.Sprint(e.Method, " ", e.Status, " ", e.Bytes, " ", e.Code); got != want {
			t.Errorf("visit %d is shown as %q, want %q", i, got, want)
		}
	}
}
