//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFile has curl fetch from a folder what is in it, and try what is not.
func TestFile(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	dir := filepath.Join(t.TempDir(), "site")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "docs"), 0o755))
	large := noise(4<<20, 7)
	must(os.WriteFile(filepath.Join(dir, "large.bin"), large, 0o644))
	writeFile(t, filepath.Join(dir, "docs", "index.html"), "<p>docs")
	writeFile(t, filepath.Join(dir, ".env"), "SECRET")
	writeFile(t, filepath.Join(filepath.Dir(dir), "secret.txt"), "SECRET")
	must(os.Symlink("../secret.txt", filepath.Join(dir, "link")))
	s := startServer(t)
	for _, transport := range []string{"raw", "websocket", "ptth"} {
		t.Run(transport, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "tunnel-client"), "file", dir, "--json", "--server", s.url, "--transport", transport)
			cmd.Env = environment("HOME=" + home)
			client := readyClient(t, cmd)
			get := func(args ...string) string { return mustRun(t, c.command(t, client.url, args...)) }
			const status = "%{http_code} %{size_download} %{redirect_url}"
			eventually(t, "the folder is there", func() bool {
				return strings.HasPrefix(get("-o", "/dev/null", "-w", status, client.url+"/"), "200 ")
			})
			file := filepath.Join(c.dir, transport)
			for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
				get(version, "-o", file, client.url+"/large.bin")
				if fileSum(t, file) != sum(large) {
					t.Errorf("%s: the file is not what was served", version)
				}
			}
			if got := get("-r", "1000-1999", client.url+"/large.bin"); got != string(large[1000:2000]) {
				t.Errorf("a range is %d bytes", len(got))
			}
			// A download goes on where it broke off, and the file it is of is the same.
			var tag string
			eventually(t, "the file has been left alone long enough to have a tag", func() bool {
				tag = field(get("-I", client.url+"/large.bin"), "Etag")
				return strings.HasPrefix(tag, `"`)
			})
			must(os.WriteFile(file, large[:1<<20], 0o600))
			get("-C", "-", "-H", "If-Range: "+tag, "-o", file, client.url+"/large.bin")
			if fileSum(t, file) != sum(large) {
				t.Error("the resumed file is not what was served")
			}
			if got := get("-o", "/dev/null", "-w", status, "-H", "If-None-Match: "+tag, client.url+"/large.bin"); got != "304 0 " {
				t.Errorf("a file that did not change: %s", got)
			}
			head := get("-I", client.url+"/large.bin")
			for name, want := range map[string]string{"Content-Length": fmt.Sprint(len(large)), "Accept-Ranges": "bytes", "Cache-Control": "no-cache"} {
				if got := field(head, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if field(head, "Date") == "" || field(head, "Last-Modified") == "" {
				t.Error(head)
			}
			if list := get(client.url + "/"); !strings.Contains(list, `href="./docs/"`) || strings.Contains(list, "link") || strings.Contains(list, "env") {
				t.Errorf("the list is\n%s", list)
			}
			if got := get("-L", client.url+"/docs"); got != "<p>docs" {
				t.Errorf("a folder with an index is %q", got)
			}
			for _, path := range []string{"/link", "/.env", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", `/..\secret.txt`, "/docs/../../secret.txt", "//../secret.txt"} {
				got := get("--path-as-is", "-g", "-o", file, "-w", "%{http_code}", client.url+path)
				content, _ := os.ReadFile(file)
				if got[0] != '4' || bytes.Contains(content, []byte("SECRET")) {
					t.Errorf("%s: %s %q", path, got, content)
				}
			}
			if got := get("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", client.url+"/large.bin"); got != "405" {
				t.Errorf("DELETE: %s", got)
			}
			client.signal(t, syscall.SIGTERM)
			if code := client.exit(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// field is a field's value in a header section as curl prints it.
func field(head, name string) string {
	for line := range strings.Lines(head) {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
