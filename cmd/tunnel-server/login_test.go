package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// S12: whatever is wrong with the token file, the server does not start, on a
// loopback address neither; nor with a limit of logins that is none.
func TestRefusesTokenFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "a-good-token\n")
	cases := map[string][]string{
		"empty":           {"--token-file", file("empty", "")},
		"white":           {"--token-file", file("white", " \t\r\n\n   \n")},
		"comments":        {"--token-file", file("comments", "# a-good-token\n")},
		"short":           {"--token-file", file("short", "a-good-token\nx\n")},
		"directory":       {"--token-file", dir},
		"device":          {"--token-file", "/dev/null"},
		"missing":         {"--token-file", filepath.Join(dir, "none")},
		"below a file":    {"--token-file", filepath.Join(good, "tokens")},
		"white path":      {"--token-file", " "},
		"negative logins": {"--token-file", good, "--login-failures", "-1"},
		"no limit":        {"--token-file", good, "--login-failures", "1001"},
	}
	if runtime.GOOS == "linux" {
		cases["unreadable"] = []string{"--token-file", "/proc/self/mem"} // by root, too
	}
	for name, args := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // should it start, it ends at once
			code := run(ctx, append([]string{"tunnel-server", "--listen", "127.0.0.1:0"}, args...), &stdout, &stderr)
			if code != exitUsage || strings.Contains(stderr.String(), "listening") || strings.Contains(stderr.String(), "a-good-token") {
				t.Errorf("exit %d, want 2:\n%s", code, &stderr)
			}
		})
	}
}

// S5, S15: the server's own host is known by the name that visitors call it by,
// however --public-url spells it.
func TestPublicHost(t *testing.T) {
	for given, want := range map[string]string{
		"https://Tunnel.Example.com":       "tunnel.example.com",
		"https://tunnel.example.com.":      "tunnel.example.com",
		"https://tunnel.example.com.:8443": "tunnel.example.com:8443",
		"https://m\u00fcnchen.example":     "xn--mnchen-3ya.example",
		"http://127.0.0.1:8080":            "127.0.0.1:8080",
		"http://[::1]:8080":                "[::1]:8080",
		"http://[::1]":                     "[::1]",
	} {
		if u, err := publicURL(given); err != nil || u.Host != want {
			t.Errorf("%s: %v, %v; want the host %s", given, u, err, want)
		}
	}
	if u, err := publicURL("https://a_b..example"); err == nil {
		t.Errorf("a host that is none: %v", u)
	}
}
