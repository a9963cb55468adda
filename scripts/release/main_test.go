package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// source is a module as small as a release can be of. It resolves names, which
// is what links a C library where cgo is on.
var source = map[string]string{
	"go.mod":                     "module example.com/small\n\ngo 1.26.0\n",
	"README.md":                  "read me\n",
	"LICENSE":                    "do what you like\n",
	"docs/server.md":             "how\n",
	"deploy/small.service":       "[Service]\n",
	"deploy/dns/small.sh":        "#!/bin/sh\n",
	"cmd/tunnel-client/main.go":  "package main\n\nfunc main() {}\n",
	"cmd/tunnel-server/main.go":  "package main\n\nimport (\n\t\"fmt\"\n\t\"net\"\n\t\"runtime/debug\"\n)\n\nfunc main() {\n\t_, _ = net.LookupHost(\"localhost\")\n\tinfo, _ := debug.ReadBuildInfo()\n\tfmt.Println(info.Main.Version)\n}\n",
	"cmd/tunnel-server/other.md": "not for the archive\n",
}

// repository makes a git repository of source, in a folder of its own.
func repository(t *testing.T, tag string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("git is missing: apt-get install git")
		}
		t.Skip("git is missing: apt-get install git")
	}
	for _, v := range os.Environ() { // as a hook of git would have them
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "GIT_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	dir := t.TempDir()
	for name, text := range source {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet"}, {"add", "."}, {"commit", "--quiet", "-m", "all"}, {"tag", tag},
	} {
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-11-01T10:00:00Z", "GIT_COMMITTER_DATE=2026-11-01T10:00:00Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	return dir
}

// here is the platform of this machine, or ends the test.
func here(t *testing.T) string {
	t.Helper()
	p := platform{runtime.GOOS, runtime.GOARCH}
	if !slices.Contains(platforms(), p) {
		t.Skipf("releases are not for %s", p)
	}
	return p.String()
}

// A release of the same commit is the same bytes, wherever its repository lies
// and whatever else lies in it; its binaries are static and know the tag.
func TestRelease(t *testing.T) {
	only := here(t)
	var sums []string
	var first string
	for i := range 2 {
		root := repository(t, "v1.2.3")
		if i == 1 {
			for _, name := range []string{"docs/server.md", "docs/new.md", "cmd/tunnel-server/new.go"} {
				if err := os.WriteFile(filepath.Join(root, name), []byte("package main\n\nfunc init() { panic(1) }\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		var log bytes.Buffer
		if err := run(t.Context(), []string{"--root", root, "--only", only}, &log); err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(log.String(), "not committed"); told != (i == 1) {
			t.Errorf("run %d: says that something was left out: %t\n%s", i, told, &log)
		}
		text, err := os.ReadFile(filepath.Join(root, "dist", sumsName))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(text))
		if i == 0 {
			first = filepath.Join(root, "dist")
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("two runs differ:\n%s%s", sums[0], sums[1])
	}
	sum, name, _ := strings.Cut(strings.TrimSpace(sums[0]), "  ")
	packed, err := os.ReadFile(filepath.Join(first, name))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(packed)); got != sum {
		t.Errorf("%s has the sum %s, %s says %s", name, got, sumsName, sum)
	}
	if runtime.GOOS == "windows" {
		return
	}
	dir := t.TempDir()
	names := unpack(t, packed, dir)
	top := "tunnel_v1.2.3_" + runtime.GOOS + "_" + runtime.GOARCH
	want := []string{"LICENSE", "LICENSES-OF-OTHERS", "README.md", "docs/server.md", "tunnel-client", "tunnel-server"}
	if runtime.GOOS == "linux" {
		want = slices.Insert(want, 3, "deploy/dns/small.sh", "deploy/small.service")
	}
	for i := range want {
		program := strings.HasPrefix(want[i], "tunnel-") || strings.HasSuffix(want[i], ".sh")
		if info, err := os.Stat(filepath.Join(dir, top, want[i])); err == nil && (info.Mode()&0o100 != 0) != program {
			t.Errorf("%s has the mode %s", want[i], info.Mode())
		}
		want[i] = top + "/" + want[i]
	}
	if !slices.Equal(names, want) {
		t.Errorf("in the archive are\n%q, want\n%q", names, want)
	}
	checkBinary(t, filepath.Join(dir, top, "tunnel-server"))
	if text, err := os.ReadFile(filepath.Join(dir, top, "LICENSES-OF-OTHERS")); err != nil || !strings.Contains(string(text), "The Go Authors") {
		t.Errorf("Go's licence is not there: %v\n%.200s", err, text)
	}
}

// checkBinary runs it, and looks for what loads a C library.
func checkBinary(t *testing.T, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path).Output()
	if err != nil || string(out) != "v1.2.3\n" {
		t.Errorf("%s printed %q, %v; want v1.2.3", path, out, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not static", path)
		}
	}
}

// unpack writes the files of a .tar.gz below dir and returns their names.
func unpack(t *testing.T, packed []byte, dir string) (names []string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)) {
			t.Errorf("%s says who made it, or when: %+v", h.Name, h)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(h.Mode))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, r); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// An archive for Windows says as little, and keeps what is a program.
func TestZip(t *testing.T) {
	at := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	var packed [2]bytes.Buffer
	for i, zone := range []*time.Location{time.UTC, time.FixedZone("elsewhere", 3*3600)} {
		a := archive{dir: "d", zip: true, at: at.In(zone), files: []file{{name: "a.exe", data: []byte("program"), run: true}, {name: "docs/b", data: []byte("text")}}}
		if err := a.write(&packed[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0].Bytes(), packed[1].Bytes()) {
		t.Error("the archive depends on the time zone")
	}
	r, err := zip.NewReader(bytes.NewReader(packed[0].Bytes()), int64(packed[0].Len()))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.File {
		if !f.Modified.Equal(at) {
			t.Errorf("%s is of %s, want %s", f.Name, f.Modified, at)
		}
		got = append(got, fmt.Sprint(f.Name, " ", f.Mode()))
	}
	if want := []string{"d/a.exe -rwxr-xr-x", "d/docs/b -rw-r--r--"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What there was of an earlier release goes, and nothing else.
func TestPublish(t *testing.T) {
	out := t.TempDir()
	for _, name := range []string{"tunnel_v1.0.0_linux_amd64.tar.gz", "tunnel_v1.0.0_windows_amd64.zip", sumsName, "notes.txt"} {
		if err := os.WriteFile(filepath.Join(out, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &release{out: out, log: io.Discard}
	if err := r.publish([]archive{{dir: "tunnel_v2.0.0_linux_amd64"}}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := []string{sumsName, "notes.txt", "tunnel_v2.0.0_linux_amd64.tar.gz"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown platform": {[]string{"--only", "plan9/amd64"}, "linux/amd64 linux/arm64 darwin/amd64"},
		"unknown flag":     {[]string{"--onyl", "linux/amd64"}, "--onyl (see scripts/release.sh --help)"},
		"argument":         {[]string{"v1.2.3"}, `"v1.2.3"`},
		"no repository":    {[]string{"--root", t.TempDir()}, "a release is made of a commit"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q in it", err, test.want)
			}
		})
	}
}
