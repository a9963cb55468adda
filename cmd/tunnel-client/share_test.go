package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
)

// visitAs returns the status of a public URL for who shows this field, the code, and the
// body.
func visitAs(t *testing.T, base, url, field string) (status int, code, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if name, value, ok := strings.Cut(field, ": "); ok {
		req.Header.Set(name, value)
	}
	res, err := visitor(t, base).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Tunnel-Error"), string(b)
}

// echoing is an app that tells what it has got.
func echoing(t *testing.T) string {
	return startApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "app")
		fmt.Fprintf(w, "%s key=%q agent=%q cookie=%q auth=%q", r.URL, r.Header["X-Key"], r.Header["User-Agent"], r.Header["Cookie"], r.Header["Authorization"])
	})
}

const asAlice = "Authorization: Basic YWxpY2U6c2UsYW1l" // alice:se,ame

func TestBasicAuthFlags(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := echoing(t)
	if err := os.WriteFile("users", []byte("\xef\xbb\xbf# who may visit\r\n\r\nalice:se,ame\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"flag": {"--basic-auth", "bob:x", "--basic-auth", "alice:se,ame"}, "by PTTH": {"--basic-auth", "alice:se,ame", "--transport", "ptth"}, "file": {"--basic-auth-file", "users"}, "variable": nil,
	} {
		t.Run(name, func(t *testing.T) {
			if args == nil {
				t.Setenv("TUNNEL_BASIC_AUTH", "bob:x\nalice:se,ame\n")
			}
			c := start(t, append([]string{app, "--server", base}, args...)...)
			url := c.next("ready").URL
			if status, code, _ := visitAs(t, base, url, ""); status != 401 || code != "login_required" {
				t.Errorf("without a password: %d %s", status, code)
			}
			eventually(t, "the app is reached", func() bool { status, _, _ := visitAs(t, base, url, asAlice); return status != 503 })
			if status, _, body := visitAs(t, base, url, asAlice); status != 200 || !strings.Contains(body, "auth=[]") {
				t.Errorf("with the password: %d %s", status, body)
			}
			if strings.Contains(c.stderr.String(), "ame") {
				t.Errorf("the password is in the log:\n%s", c.stderr)
			}
		})
	}
}

func TestHeaderFlags(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	c := start(t, echoing(t), "--server", base, "--request-header", "X-Key: a, b", "--remove-request-header", "User-Agent",
		"--response-header", "Cache-Control: no-store, private", "--remove-response-header", "server", "--noindex")
	res, err := visitor(t, base).Get(c.next("ready").URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	wantText(t, string(body), `key=["a, b"] agent=[]`)
	if h := res.Header; h.Get("Cache-Control") != "no-store, private" || h["Server"] != nil || h.Get("X-Robots-Tag") != "noindex, nofollow" {
		t.Errorf("the answer has %v", h)
	}
}

// A link outlives the command, until it is taken back.
func TestShareLinkFlags(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	app := echoing(t)
	once := func(t *testing.T, args ...string) (link string, status func(link string) int) {
		t.Helper()
		c := start(t, append([]string{app, "--server", base, "--share-link", "24h"}, args...)...)
		e := c.next("ready")
		link = valueOf(t, e.line, `"share_url":"`)
		if !strings.HasPrefix(link, e.URL+"/?tunnel-share=") {
			t.Fatalf("the link is %s", e.line)
		}
		t.Cleanup(func() { c.signal(syscall.SIGTERM); c.exit() })
		return link, func(link string) int {
			token := link[strings.LastIndex(link, "=")+1:]
			status, _, body := visitAs(t, base, e.URL, "Cookie: a=b; tunnel-share="+token)
			if status == 200 && !strings.Contains(body, `cookie=["a=b"]`) {
				t.Errorf("the app saw %s", body)
			}
			return status
		}
	}
	var first, other string
	t.Run("first", func(t *testing.T) {
		link, status := once(t) // the name is not known before
		if status, _, _ := visitAs(t, base, link, ""); status != http.StatusSeeOther {
			t.Errorf("the link leads to %d", status)
		}
		if got := status(link); got != 200 {
			t.Errorf("status %d", got)
		}
		first = link
	})
	t.Run("again", func(t *testing.T) {
		if _, status := once(t); status(first) != 200 {
			t.Error("the link is good no more")
		}
	})
	t.Run("another name", func(t *testing.T) {
		var status func(string) int
		if other, status = once(t, "--name", "other"); status(first) != 403 || status(other) != 200 {
			t.Error("the link is good for another name")
		}
	})
	t.Run("revoked", func(t *testing.T) {
		if link, status := once(t, "--revoke-links"); status(first) != 403 || status(link) != 200 {
			t.Error("it is not taken back")
		}
	})
	t.Run("after that", func(t *testing.T) {
		if _, status := once(t); status(first) != 403 {
			t.Error("it is good again")
		}
	})
	t.Run("of the other name", func(t *testing.T) {
		if _, status := once(t, "--name", "other"); status(other) != 200 {
			t.Error("it was taken back, too")
		}
	})
	keys, _ := filepath.Glob(filepath.Join(os.Getenv("XDG_STATE_HOME"), "tunnel-client", "links", "*"))
	if len(keys) != 2 {
		t.Errorf("keys are kept in %v", keys)
	}
	for _, key := range keys {
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// valueOf is the value behind a key of a JSON line.
func valueOf(t *testing.T, line, key string) string {
	t.Helper()
	_, value, ok := strings.Cut(line, key)
	if !ok {
		t.Fatalf("no %s in %s", key, line)
	}
	value, _, _ = strings.Cut(value, `"`)
	return value
}

func TestTTLFlag(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	c := start(t, echoing(t), "--server", base, "--ttl", "2s")
	ready := c.next("ready")
	at, err := time.Parse(time.RFC3339, valueOf(t, ready.line, `"expires_at":"`))
	if err != nil || time.Until(at) > 2*time.Second {
		t.Errorf("it expires at %v, %v", at, err)
	}
	c.next("disconnected")
	if e := c.next("closed"); e.Code != "ended" || !strings.Contains(e.Cause, "time to live is over") {
		t.Errorf("closed: %s", e.line)
	}
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if status, code, _ := visitAs(t, base, ready.URL, ""); status != 410 || code != "ended" {
		t.Errorf("afterwards: %d %s", status, code)
	}
}

func TestShareFlagsThatCannotBe(t *testing.T) {
	home(t)
	os.WriteFile("empty", []byte("# nobody\n"), 0o600)
	os.WriteFile("bad", []byte("alice:x\nsecret-without-colon\n"), 0o600)
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"http 3000 --basic-auth sesame", []string{"--basic-auth", "USER:PASSWORD"}},
		{"http 3000 --basic-auth alice:", []string{"--basic-auth", "password is empty"}},
		{"http 3000 --basic-auth=", []string{"--basic-auth", "TUNNEL_BASIC_AUTH", "is empty"}},
		{"http 3000 --basic-auth-file empty", []string{"holds no user"}},
		{"http 3000 --basic-auth-file bad", []string{"bad, line 2", "USER:PASSWORD"}},
		{"http 3000 --basic-auth-file none", []string{"--basic-auth-file", "none"}},
		{"http 3000 --allow-cidr=", []string{"--allow-cidr", "is empty"}},
		{"http 3000 --allow-cidr 192.0.2.0/33", []string{"--allow-cidr", "192.0.2.0/33", "192.0.2.0/24"}},
		{"tcp 22 --deny-cidr ::ffff:192.0.2.1", []string{"192.0.2.0/24"}},
		{"http 3000 --allow-cidr ,", []string{"--allow-cidr", "empty member"}},
		{"http 3000 --allow-cidr 192.0.2.1,", []string{"--allow-cidr", "empty member"}},
		{"tcp 22 --deny-cidr ,192.0.2.1", []string{"--deny-cidr", "empty member"}},
		{"tcp 22 --deny-cidr 192.0.2.1,,192.0.2.2", []string{"--deny-cidr", "empty member"}},
		{"tcp 22 --deny-cidr 192.0.2.1 --deny-cidr=", []string{"--deny-cidr", "is empty"}},
		{"http 3000 --share-link 0", []string{"--share-link"}},
		{"http 3000 --share-link 0s --revoke-links", []string{"--share-link 0s"}},
		{"http 3000 --share-link=", []string{"share-link"}},
		{"http 3000 --ttl 0", []string{"--ttl"}},
		{"http 3000 --ttl=", []string{"ttl"}},
		{"http 3000 --share-link -1h", []string{"--share-link"}},
		{"http 3000 --revoke-links", []string{"--share-link"}},
		{"http 3000 --ttl -1s", []string{"--ttl"}},
		{"http 3000 --request-header X-A", []string{"--request-header", "NAME: VALUE"}},
		{"http 3000 --request-header Host:a", []string{"--request-header", "--host-header"}},
		{"http 3000 --request-header X-Forwarded-For:1.2.3.4", []string{"--request-header", "who the visitor is"}},
		{"http 3000 --remove-request-header transfer-encoding", []string{"--remove-request-header", "transfer"}},
		{"http 3000 --response-header Content-Length:1", []string{"--response-header", "transfer"}},
		{"http 3000 --remove-response-header Tunnel-Error", []string{"--remove-response-header", "tunnel's own"}},
		{"http 3000 --private --noindex", []string{"--private"}},
		{"http 3000 --private --share-link 1h", []string{"--private"}},
		{"tcp 22 --basic-auth a:b", []string{"basic-auth", "not defined"}},
	} {
		c := startCommand(t, strings.Fields(tt.args)...)
		if code := c.exit(); code != 2 {
			t.Errorf("%s: exit code %d", tt.args, code)
		}
		wantText(t, c.stderr.String(), tt.want...)
		if strings.Contains(c.stderr.String(), "secret-without") || strings.Contains(c.stderr.String(), "sesame") {
			t.Errorf("%s: a password is shown:\n%s", tt.args, c.stderr)
		}
	}
}

// A variable that is there and empty was meant to be filled in.
func TestShareVariablesThatCannotBe(t *testing.T) {
	home(t)
	for _, tt := range []struct{ name, value, want string }{
		{"TUNNEL_ALLOW_CIDR", "", "is empty"}, {"TUNNEL_DENY_CIDR", "", "is empty"},
		{"TUNNEL_ALLOW_CIDR", ",", "empty member"}, {"TUNNEL_DENY_CIDR", "192.0.2.1, ", "empty member"}, {"TUNNEL_ALLOW_CIDR", " ", "is empty"},
		{"TUNNEL_SHARE_LINK", "", "is empty"}, {"TUNNEL_SHARE_LINK", "0", "--share-link"}, {"TUNNEL_TTL", "", "is empty"}, {"TUNNEL_TTL", "0", "--ttl"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			c := startCommand(t, "http", "3000")
			if code := c.exit(); code != 2 {
				t.Errorf("exit code %d", code)
			}
			wantText(t, c.stderr.String(), tt.want)
		})
	}
}
