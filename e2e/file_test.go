//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// folder makes one with a large file in it, and a secret beside it that a link leads to.
func folder(t *testing.T) (dir string, large []byte) {
	t.Helper()
	dir, large = filepath.Join(t.TempDir(), "site"), noise(4<<20, 7)
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "docs"), 0o755),
		os.WriteFile(filepath.Join(dir, "large.bin"), large, 0o644),
		os.Symlink("../secret.txt", filepath.Join(dir, "link")),
	)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "docs", "index.html"), "<p>docs")
	writeFile(t, filepath.Join(dir, ".env"), "SECRET")
	writeFile(t, filepath.Join(filepath.Dir(dir), "secret.txt"), "SECRET")
	return dir, large
}

// fetcher is curl before the folder's public URL.
type fetcher struct {
	*testing.T
	curl
	url, file string // file is where it may write
	large     []byte // the file large.bin
}

// curlStatus is what curl is to write of an answer.
const curlStatus = "%{http_code} %{size_download} %{redirect_url}"

func (f *fetcher) get(args ...string) string {
	f.Helper()
	return mustRun(f.T, f.command(f.T, f.url, args...))
}

// whole has what curl wrote be large.bin.
func (f *fetcher) whole(how string) {
	f.Helper()
	if fileSum(f.T, f.file) != sum(f.large) {
		f.Errorf("%s: the file is not what was served", how)
	}
}

// parts fetches the large file in ways that need not fetch all of it.
func (f *fetcher) parts() {
	if got := f.get("-r", "1000-1999", f.url+"/large.bin"); got != string(f.large[1000:2000]) {
		f.Errorf("a range is %d bytes", len(got))
	}
	// A download goes on where it broke off, and the file it is of is the same.
	var tag string
	eventually(f.T, "the file has been left alone long enough to have a tag", func() bool {
		tag = field(f.get("-I", f.url+"/large.bin"), "Etag")
		return strings.HasPrefix(tag, `"`)
	})
	if err := os.WriteFile(f.file, f.large[:1<<20], 0o600); err != nil {
		f.Fatal(err)
	}
	f.get("-C", "-", "-H", "If-Range: "+tag, "-o", f.file, f.url+"/large.bin")
	f.whole("resumed")
	if got := f.get("-o", "/dev/null", "-w", curlStatus, "-H", "If-None-Match: "+tag, f.url+"/large.bin"); got != "304 0 " {
		f.Errorf("a file that did not change: %s", got)
	}
}

// head is the header of the large file.
func (f *fetcher) head() {
	head := f.get("-I", f.url+"/large.bin")
	for name, want := range map[string]string{"Content-Length": fmt.Sprint(len(f.large)), "Accept-Ranges": "bytes", "Cache-Control": "no-cache"} {
		if got := field(head, name); got != want {
			f.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if field(head, "Date") == "" || field(head, "Last-Modified") == "" {
		f.Error(head)
	}
}

// folders fetches folders, with an index and without.
func (f *fetcher) folders() {
	if list := f.get(f.url + "/"); !strings.Contains(list, `href="./docs/"`) || strings.Contains(list, "link") || strings.Contains(list, "env") {
		f.Errorf("the list is\n%s", list)
	}
	if got := f.get("-L", f.url+"/docs"); got != "<p>docs" {
		f.Errorf("a folder with an index is %q", got)
	}
}

// secrets tries what is not to be had (S17).
func (f *fetcher) secrets() {
	for _, path := range []string{"/link", "/.env", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", `/..\secret.txt`, "/docs/../../secret.txt", "//../secret.txt"} {
		got := f.get("--path-as-is", "-g", "-o", f.file, "-w", "%{http_code}", f.url+path)
		content, _ := os.ReadFile(f.file)
		if got[0] != '4' || bytes.Contains(content, []byte("SECRET")) {
			f.Errorf("%s: %s %q", path, got, content)
		}
	}
	if got := f.get("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f.url+"/large.bin"); got != "405" {
		f.Errorf("DELETE: %s", got)
	}
}

// TestFile has curl fetch from a folder what is in it, and try what is not.
func TestFile(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	dir, large := folder(t)
	s := startServer(t)
	for _, transport := range []string{"raw", "websocket", "ptth"} {
		t.Run(transport, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "tunnel-client"), "file", dir, "--json", "--server", s.url, "--transport", transport)
			cmd.Env = environment("HOME=" + home)
			client := readyClient(t, cmd)
			f := &fetcher{T: t, curl: c, url: client.url, file: filepath.Join(c.dir, transport), large: large}
			eventually(t, "the folder is there", func() bool {
				return strings.HasPrefix(f.get("-o", "/dev/null", "-w", curlStatus, f.url+"/"), "200 ")
			})
			for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
				f.get(version, "-o", f.file, f.url+"/large.bin")
				f.whole(version)
			}
			f.parts()
			f.head()
			f.folders()
			f.secrets()
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
