package server_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// guess shows token, as a client at from that a proxy tells of, and returns the
// answer's status. It asks for no upgrade: 426 is a login that went well.
func (n *node) guess(from, token string) (*http.Response, *protocol.Error) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), "GET", "http://"+n.addr+protocol.PathPrefix+rand.Text(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Host = "localhost"
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("X-Forwarded-For", from)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	var refusal protocol.Refusal
	if err := json.NewDecoder(res.Body).Decode(&refusal); err != nil || refusal.Error == nil {
		n.t.Fatalf("status %d without a refusal: %v", res.StatusCode, err)
	}
	return res, refusal.Error
}

// S14: who guesses is told to wait, by his own address and not the proxy's, and
// others are not.
func TestLoginThrottled(t *testing.T) {
	const limit = 3
	n := start(t, server.Config{
		LoginFailures: limit, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "correct-token\n"),
	})
	for i := range 10 {
		res, e := n.guess("203.0.113.9", fmt.Sprint("wrong-token-", i))
		if want := protocol.Unauthorized; i < limit {
			if res.StatusCode != 401 || e.Code != want {
				t.Fatalf("guess %d: %d %s", i, res.StatusCode, e.Code)
			}
			continue
		}
		wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
		if res.StatusCode != 429 || e.Code != protocol.LoginThrottled || e.Message == "" || err != nil || wait < 1 || wait > 20 ||
			res.Header.Get(protocol.HeaderError) != string(protocol.LoginThrottled) {
			t.Fatalf("guess %d: %d %v %+v", i, res.StatusCode, res.Header, e)
		}
	}
	for from, want := range map[string]int{
		"203.0.113.9": 429, "198.51.100.7, 203.0.113.9": 429, // what he says himself of where he is
		"198.51.100.7": 426, "203.0.113.9, 198.51.100.7": 426,
	} {
		if res, e := n.guess(from, "correct-token"); res.StatusCode != want {
			t.Errorf("the right token from %s: %d %s, want %d", from, res.StatusCode, e.Code, want)
		}
	}
	n.connect("", "correct-token", "") // from another address, whole
}

// S14: without a trusted proxy nobody is who he says.
func TestLoginThrottledSpoof(t *testing.T) {
	n := start(t, server.Config{LoginFailures: 3, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "correct-token\n")})
	compared := 0
	for i := range 100 {
		if res, _ := n.guess(fmt.Sprint("203.0.113.", i), fmt.Sprint("wrong-token-", i)); res.StatusCode == 401 {
			compared++
		}
	}
	if compared > 4 { // 3, and one more should this last for 20 s
		t.Errorf("%d of 100 guesses were compared", compared)
	}
}

// S14: nothing that a revoked client has opens anything: not its token, not the
// secret of its session with its token or with another.
func TestReplayAfterRevoke(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	n := start(t, server.Config{Hold: time.Hour, Auth: tokens(t, path, "first-token\nother-token\n")})
	c := n.connect("", "first-token", "")
	c.must(c.bind("demo"))
	if err := os.WriteFile(path, []byte("other-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m := c.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.TokenRevoked {
		t.Fatalf("told %+v", m)
	}
	<-c.mux.Done()
	for range 3 {
		if _, err := n.dial(c.id, "first-token"); code(err) != protocol.Unauthorized {
			t.Errorf("the revoked token again: %v", err)
		}
	}
	other := n.connect(c.id, "other-token", c.welcome.Resume)
	if other.welcome.Resumed {
		t.Error("another token resumed the session of the revoked one")
	}
	other.must(other.bind("demo")) // nothing is held for the revoked one
}

// S14: no part of a token is in the server's log, whatever is done with it.
func TestTokenIsNotLogged(t *testing.T) {
	var log rig.Buffer
	path := filepath.Join(t.TempDir(), "tokens")
	const right, wrong = "riiiight-toooken", "wroooong-secreeet"
	n := start(t, server.Config{
		LoginFailures: 2, Auth: tokens(t, path, right+"\nother-token\n"),
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	c := n.connect("", right, "")
	c.must(c.bind("demo"))
	c.serve("hello")
	n.get("demo.localhost", "/?token="+right)
	next := n.connect(c.id, right, c.welcome.Resume)
	for i := range 5 {
		n.guess("203.0.113.9", wrong+strconv.Itoa(i))
	}
	if err := os.WriteFile(path, []byte("other-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for next.read().Bye == nil {
	}
	for _, secret := range []string{"toooken", "wroooong", "secreeet", c.welcome.Resume, next.welcome.Resume} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %q:\n%s", secret, log.String())
		}
	}
	for _, said := range []string{"session started", string(protocol.Unauthorized), string(protocol.LoginThrottled), "throttled", string(protocol.TokenRevoked)} {
		if !strings.Contains(log.String(), said) {
			t.Errorf("the log does not show %q:\n%s", said, log.String())
		}
	}
}

// S14: nobody fills the log by failing, with what is no guess either.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	var log rig.Buffer
	n := start(t, server.Config{
		LoginFailures: 2, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "correct-token\n"),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 100 {
		n.guess("", "")
		n.guess("", "an-old-token")
	}
	if lines := strings.Count(log.String(), "session refused"); lines < 1 || lines > 20 { // over two minutes
		t.Errorf("%d lines of 200 refusals:\n%s", lines, log.String())
	}
}

// Nor by names that are refused, nor by sessions that fail, with a token that is right.
func TestTenantsDoNotFillTheLog(t *testing.T) {
	var log rig.Buffer
	n := start(t, server.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	owner, c := n.connect("", "owner", ""), n.connect("", "tenant", "")
	owner.must(owner.bind("demo"))
	for range 100 {
		c.refused(c.bind("demo"), protocol.NameTaken)
		failing, err := n.dial("", "tenant")
		if err != nil {
			t.Fatal(err)
		}
		failing.send(&protocol.Message{Bind: &protocol.Bind{}}) // before hello
		for failing.read().Bye == nil {
		}
	}
	for _, line := range []string{"name refused", "session failed"} {
		if lines := strings.Count(log.String(), line); lines < 1 || lines > 20 { // over two minutes
			t.Errorf("%d lines of 100 with %q", lines, line)
		}
	}
}

// S12: while the file of tokens is spoilt nobody gets in, whatever is shown, and
// it is no failed login.
func TestSpoiltTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	n := start(t, server.Config{LoginFailures: 1, Auth: tokens(t, path, "correct-token\n")})
	live := n.connect("", "correct-token", "")
	live.must(live.bind("demo"))
	for _, content := range []string{"short\n", "two words\n", "\x00\x00\x00\x00\x00\x00\x00\x00\x00", "correct-token\nx\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{"", "correct-token", "two words", "short", "x"} {
			if res, e := n.guess("", token); res.StatusCode != 503 || e.Code != protocol.AuthUnavailable {
				t.Errorf("file %q, token %q: %d %s", content, token, res.StatusCode, e.Code)
			}
		}
	}
	live.must(live.bind("another")) // who is in stays
	if err := os.WriteFile(path, []byte("correct-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.connect("", "correct-token", "")
}
