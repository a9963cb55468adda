//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// tokens writes a token file for a server.
func tokens(t *testing.T, all ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	content := ""
	for _, one := range all {
		content += one + "\n"
	}
	writeFile(t, file, content)
	return file
}

// withToken is cmd for a client that shows a token.
func withToken(cmd *exec.Cmd, token string) *exec.Cmd {
	cmd.Env = append(cmd.Env, "TUNNEL_TOKEN="+token)
	return cmd
}

const (
	tokenA = "e2e-token-a-0123456789abcdef"
	tokenB = "e2e-token-b-0123456789abcdef"
)

// says is an app with one answer.
func says(t *testing.T, what string) string {
	return app(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, what) }))
}

// TestServerKilled kills the server and starts it again on the same port: the
// same URLs answer again, and never with what is another's.
func TestServerKilled(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		file := tokens(t, tokenA, tokenB)
		s := startServer(t, "--token-file", file)
		var clients []*tunnelClient
		var watches []*watch
		for name, token := range map[string]string{"alpha": tokenA, "beta": tokenB} {
			c := readyClient(t, withToken(clientCommand(says(t, name), "--server", s.url, "--name", name, "--transport", transport), token))
			clients = append(clients, c)
			watches = append(watches, watchURL(t, c.url, name))
		}
		for _, w := range watches {
			awaitOn(t, w.answered, "answer before")
		}
		s.kill()
		startServer(t, "--token-file", file, "--listen", s.addr)
		deadline := time.After(patience)
		for _, w := range watches {
			w.restarted.Store(true)
		}
		for _, w := range watches {
			select {
			case <-w.again:
			case <-deadline:
				t.Fatalf("%s: no answer %v after the restart", w.url, patience)
			}
		}
		for _, c := range clients {
			c.await(t, "reconnected")
			if got := c.kinds(); !slices.Equal(got, []string{"ready", "disconnected", "reconnected"}) {
				t.Errorf("events %q", got)
			}
		}
	})
}

// watch polls a URL until the test's end.
type watch struct {
	url             string
	restarted       atomic.Bool
	answered, again chan struct{} // closed at the first answer, and the first of the restarted server
}

func watchURL(t *testing.T, url, want string) *watch {
	w := &watch{url: url, answered: make(chan struct{}), again: make(chan struct{})}
	ended := make(chan struct{})
	var poll sync.WaitGroup
	poll.Go(func() {
		c := visitor(t)
		c.Transport.(*http.Transport).DisableKeepAlives = true
		var first, second sync.Once
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			after := w.restarted.Load()
			if !answers(t, c, url, want) {
				continue
			}
			first.Do(func() { close(w.answered) })
			if after {
				second.Do(func() { close(w.again) })
			}
		}
	})
	t.Cleanup(func() {
		close(ended)
		poll.Wait()
	})
	return w
}

// answers makes one request. What is neither the app's answer nor one that says
// that there is none fails the test.
func answers(t *testing.T, c *http.Client, url, want string) bool {
	res, err := c.Get(url)
	if err != nil {
		return false // the server is away
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	code := res.Header.Get("Tunnel-Error")
	switch {
	case err != nil:
		return false
	case res.StatusCode == http.StatusOK && string(body) == want && code == "":
		return true
	case res.StatusCode == http.StatusNotFound && code == "name_unknown", res.StatusCode == http.StatusServiceUnavailable && code == "client_offline":
		return false
	case res.StatusCode == http.StatusBadGateway && code == "session_lost":
		return false // was under way when the server was killed
	}
	t.Errorf("%s: %s %q %q", url, res.Status, code, body)
	return false
}

// TestClientKilled kills a client. A stranger does not get its name, and the one
// that is started again has it at once, as has one beside which the first only
// hangs.
func TestClientKilled(t *testing.T) {
	s := startServer(t, "--token-file", tokens(t, tokenA, tokenB))
	target := says(t, "mine")
	command := func(token string) *exec.Cmd {
		return withToken(clientCommand(target, "--server", s.url, "--name", "app"), token)
	}
	first := readyClient(t, command(tokenA))
	first.kill()
	if code, out, _ := run(t, command(tokenB)); code != 4 {
		t.Errorf("a stranger ends with %d and prints %q, want exit code 4", code, out)
	}
	second := readyClient(t, command(tokenA))
	if second.url != first.url {
		t.Errorf("the URL was %s and is %s", first.url, second.url)
	}
	if _, body := fetch(t, visitor(t), second.url); body != "mine" {
		t.Errorf("got %q", body)
	}
	if code, out, _ := run(t, command(tokenA)); code != 4 {
		t.Errorf("beside one that lives, a client ends with %d and prints %q, want exit code 4", code, out)
	}
	second.signal(t, syscall.SIGSTOP)
	third := readyClient(t, command(tokenA))
	if _, body := fetch(t, visitor(t), third.url); body != "mine" {
		t.Errorf("got %q", body)
	}
}

// TestNameRace starts two clients at once for one name: one has it.
func TestNameRace(t *testing.T) {
	s := startServer(t, "--token-file", tokens(t, tokenA, tokenB))
	target := says(t, "mine")
	var racers []*process
	for _, token := range []string{tokenA, tokenB} {
		racers = append(racers, start(t, withToken(clientCommand(target, "--server", s.url, "--name", "app"), token)))
	}
	var loser, winner *process
	select {
	case <-racers[0].done:
		loser, winner = racers[0], racers[1]
	case <-racers[1].done:
		loser, winner = racers[1], racers[0]
	case <-time.After(patience):
		t.Fatal("neither ended")
	}
	if code := loser.exit(t); code != 4 {
		t.Errorf("the one without the name ends with %d, want exit code 4", code)
	}
	if out := loser.out.String(); out != "" {
		t.Errorf("and prints %q", out)
	}
	winner.out.await(t, `"ready"`)
}

// download is one under way: half of it has arrived.
type download struct {
	content []byte
	rest    gate // lets the app send the second half
	body    io.ReadCloser
}

// downloadApp sends content in two halves. Its /empty is empty.
func downloadApp(content []byte, rest gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/empty" {
			return
		}
		half := len(content) / 2
		w.Write(content[:half])
		http.NewResponseController(w).Flush()
		if rest.pass(r) {
			w.Write(content[half:])
		}
	})
}

func (d *download) begin(t *testing.T, public string) {
	t.Helper()
	res, err := visitor(t).Get(public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	d.body = res.Body
	d.read(t, d.content[:len(d.content)/2])
}

func (d *download) read(t *testing.T, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(d.body, got); err != nil || sum(got) != sum(want) {
		t.Fatalf("%d bytes are not as they were sent, %v", len(want), err)
	}
}

// end reads the rest and the end.
func (d *download) end(t *testing.T) {
	t.Helper()
	close(d.rest)
	d.read(t, d.content[len(d.content)/2:])
	if n, err := d.body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
}

func beginDownload(t *testing.T, transport string) (*tunnelServer, *tunnelClient, *download) {
	t.Helper()
	d := &download{content: noise(2<<20, 10), rest: make(gate)}
	s := startServer(t)
	c := startClient(t, app(t, downloadApp(d.content, d.rest)), "--server", s.url, "--name", "app", "--transport", transport)
	d.begin(t, c.url)
	return s, c, d
}

// TestDrain ends the client, and the server, in the middle of a download: it is
// completed, and the exit code is 0.
func TestDrain(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(fmt.Sprint("client, ", sig), func(t *testing.T) {
			eachSession(t, func(t *testing.T, transport string) {
				_, c, d := beginDownload(t, transport)
				c.signal(t, sig)
				c.await(t, "draining")
				eventually(t, "end of new requests", func() bool {
					res, _ := fetch(t, visitor(t), c.url+"/empty")
					return res.StatusCode == http.StatusNotFound
				})
				d.end(t)
				if code := c.exit(t); code != 0 {
					t.Errorf("exit code %d", code)
				}
				if got := c.kinds(); !slices.Equal(got, []string{"ready", "draining", "closed"}) {
					t.Errorf("events %q", got)
				}
			})
		})
		t.Run(fmt.Sprint("server, ", sig), func(t *testing.T) {
			eachSession(t, func(t *testing.T, transport string) {
				s, c, d := beginDownload(t, transport)
				s.signal(t, sig)
				c.await(t, "draining")
				eventually(t, "end of new connections", func() bool {
					conn, err := net.Dial("tcp", s.addr)
					if err == nil {
						conn.Close()
					}
					return err != nil
				})
				d.end(t)
				if code := s.exit(t); code != 0 {
					t.Errorf("exit code %d", code)
				}
				c.await(t, "disconnected")
			})
		})
	}
}

// TestSecondSignal does not wait for the download.
func TestSecondSignal(t *testing.T) {
	for _, which := range []string{"client", "server"} {
		t.Run(which, func(t *testing.T) {
			s, c, d := beginDownload(t, "auto")
			p := s.process
			if which == "client" {
				p = c.process
			}
			p.signal(t, syscall.SIGTERM)
			c.await(t, "draining")
			if code := p.insist(t, syscall.SIGTERM); code != 128+int(syscall.SIGTERM) {
				t.Errorf("exit code %d", code)
			}
			mustBreak(t, d.body)
		})
	}
}

// TestKilledInDownload kills the client, and the server, in the middle of a
// download: it never looks complete (R1).
func TestKilledInDownload(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		for _, which := range []string{"client", "server"} {
			t.Run(which, func(t *testing.T) {
				s, c, d := beginDownload(t, transport)
				// To a visitor with HTTP/1.0 the end of the connection is that of the body.
				old := &download{content: d.content, body: getHTTP10(t, s.addr, hostOf(t, c.url))}
				old.read(t, old.content[:len(old.content)/2])
				if which == "client" {
					c.kill()
				} else {
					s.kill()
				}
				mustBreak(t, d.body)
				mustBreak(t, old.body)
			})
		}
	})
}

// mustBreak reads to an end, which must not look like one.
func mustBreak(t *testing.T, body io.Reader) {
	t.Helper()
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("a body that was cut off ends well, after %d bytes more", n)
	}
}

// getHTTP10 returns what follows the header of an answer to HTTP/1.0.
func getHTTP10(t *testing.T, addr, host string) io.ReadCloser {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host)
	for head := ""; !strings.HasSuffix(head, "\r\n\r\n"); {
		b := make([]byte, 1)
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatalf("%q, %v", head, err)
		}
		head += string(b)
	}
	return conn
}
