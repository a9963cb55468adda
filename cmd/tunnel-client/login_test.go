package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// tells runs a command that ends by itself, with stdin.
func tells(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, wrong rig.Buffer
	code = run(context.Background(), process{
		args: append([]string{"tunnel-client"}, args...), stdin: strings.NewReader(stdin), stdout: &out, stderr: &wrong,
		notify: func(chan<- os.Signal) {},
	})
	return code, out.String(), wrong.String()
}

// keptLogins are the files that login has written.
func keptLogins(t *testing.T) []string {
	t.Helper()
	dir, err := configHome()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "login", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLogin(t *testing.T) {
	home(t)
	base := startTokenServer(t, "good-token\n")
	for _, tt := range []struct {
		name, stdin string
		args        []string
		code        int
		want        string
	}{
		{"wrong", "bad-token\n", nil, 3, "does not know this token (unauthorized): check what you entered; nothing is kept\n"},
		{"empty", "\n", nil, 2, "no token was entered"},
		{"nothing", "", nil, 2, "no token was entered"},
		{"a sentence", "my token\n", nil, 2, "the token has a space"},
		{"argument", "good-token\n", []string{"good-token"}, 2, "login takes no argument"},
		{"server", "good-token\n", []string{"--server", "tunnel.example"}, 2, "is not http://HOST"},
		{"away", "good-token\n", []string{"--server", "http://" + rig.FreePort(t)}, 5, "nothing is kept (server_unreachable)\n"},
	} {
		code, stdout, stderr := tells(t, tt.stdin, append([]string{"login", "--server", base}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" {
			t.Errorf("%s: exit code %d, and it says %s%s", tt.name, code, stdout, stderr)
		}
		if strings.Contains(stderr, "-token") && !strings.Contains(stderr, "--token-file") {
			t.Errorf("%s: the token is shown: %s", tt.name, stderr)
		}
	}
	if files := keptLogins(t); len(files) > 0 {
		t.Errorf("what was refused is kept: %q", files)
	}

	code, stdout, stderr := tells(t, " good-token\r\nmore", "login", "--server", base+"/")
	if code != 0 || !strings.HasPrefix(stdout, base+"/ lets you in; the token is kept in ") || strings.Contains(stdout+stderr, "good-token") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	files := keptLogins(t)
	if len(files) != 1 {
		t.Fatalf("kept are %q", files)
	}
	for path, want := range map[string]os.FileMode{files[0]: 0o600, filepath.Dir(files[0]): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}

	start(t, "1", "--server", base, "--name", "kept").next("ready")
	c := startConfig(t, "server: "+base+"\nendpoints: {web: {target: 1}}")
	c.of("web", "ready")
	c.signal(os.Interrupt)
	c.exit()

	// The others count more.
	writeFile(t, "wrong.txt", "file-token\n")
	if c := start(t, "1", "--server", base, "--token-file", "wrong.txt"); c.exit() != 3 {
		t.Error("the kept token counts more than --token-file")
	}
	t.Setenv("TUNNEL_TOKEN", "env-token")
	if c := start(t, "1", "--server", base); c.exit() != 3 {
		t.Error("the kept token counts more than TUNNEL_TOKEN")
	}
	if _, _, stderr := tells(t, "good-token", "login", "--server", base); !strings.Contains(stderr, "TUNNEL_TOKEN is set, and counts more") {
		t.Errorf("login says %q", stderr)
	}
	os.Unsetenv("TUNNEL_TOKEN")

	if code, stdout, _ := tells(t, "", "logout", "--server", base); code != 0 || !strings.Contains(stdout, "is forgotten") {
		t.Errorf("logout: exit code %d, %s", code, stdout)
	}
	if code, stdout, _ := tells(t, "", "logout", "--server", base); code != 0 || !strings.Contains(stdout, "no token is kept") {
		t.Errorf("logout again: exit code %d, %s", code, stdout)
	}
	if c := start(t, "1", "--server", base); c.exit() != 3 || !strings.Contains(c.stderr.String(), "or keep one by tunnel-client login") {
		t.Errorf("after logout: %s", c.stderr)
	}
}

// TestLoginIsOfOneServer: a token is shown to the server that it is for, and to no other.
func TestLoginIsOfOneServer(t *testing.T) {
	home(t)
	base := startTokenServer(t, "good-token\n")
	if code, _, stderr := tells(t, "good-token", "login", "--server", base); code != 0 {
		t.Fatal(stderr)
	}
	var mu sync.Mutex
	var shown []string
	other := startApp(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, r.Header.Get("Authorization"))
		http.NotFound(w, r)
	})
	start(t, "1", "--server", other, "--name", "x").exit()
	mu.Lock()
	defer mu.Unlock()
	if len(shown) == 0 || strings.Contains(strings.Join(shown, " "), "good-token") {
		t.Errorf("the other server was shown %q", shown)
	}
}

// TestLoginDamaged: what cannot be read is no wish to go without a token.
func TestLoginDamaged(t *testing.T) {
	home(t)
	base := startServer(t, server.Config{})
	path, err := loginFile(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":        "",
		"cut off":      `{"server":"` + base + `","token":"secret`,
		"of another":   `{"server":"http://other.example","token":"secret"}`,
		"no token":     `{"server":"` + base + `","token":""}`,
		"bad token":    `{"server":"` + base + `","token":"sec ret"}`,
		"not its form": "secret",
	} {
		writeFile(t, path, content)
		c := start(t, "1", "--server", base)
		if code := c.exit(); code != 2 || !strings.Contains(c.stderr.String(), "is damaged: log in again") || strings.Contains(c.stderr.String(), "sec") {
			t.Errorf("%s: exit code %d: %s", name, code, c.stderr)
		}
	}
}
