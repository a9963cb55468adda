//go:build unix

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// gitlabJob is the GitLab template's job, as a runner's shell runs it.
func gitlabJob(t *testing.T, s *tunnelServer, job int, command string, env ...string) *exec.Cmd {
	t.Helper()
	template, err := os.ReadFile(filepath.Join("..", "ci", "gitlab", "preview.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, key := range []string{"before_script", "script"} {
		_, rest, found := strings.Cut(string(template), "\n  "+key+":\n    - |\n")
		if !found {
			t.Fatalf("the template has no %s", key)
		}
		for line := range strings.Lines(rest) {
			text, ok := strings.CutPrefix(line, "      ")
			if !ok {
				break
			}
			script.WriteString(text)
		}
	}
	need(t, "timeout", "coreutils")
	cmd := exec.Command("sh", "-c", script.String())
	cmd.Env = append(environment("HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "TUNNEL_SERVER="+s.url, "TUNNEL_TOKEN=token-of-ci",
		"PREVIEW_NAME=shop-mr-7", "PREVIEW_TIME=1m", "PREVIEW_WAIT_TIMEOUT=30s", "PREVIEW_TARGET="+says(t, command),
		fmt.Sprintf("CI_JOB_ID=%d", job), "PREVIEW_COMMAND="+command), env...)
	return cmd
}

// TestGitLabPreview: the template's job has a URL while its command runs, and gives it to a newer one.
func TestGitLabPreview(t *testing.T) {
	s := startServer(t)
	until := filepath.Join(t.TempDir(), "go")
	older := start(t, gitlabJob(t, s, 41, "echo first $TUNNEL_URL; exec sleep 60"))
	url := strings.TrimPrefix(older.out.await(t, "first "), "first ")
	eventually(t, "the preview", func() bool {
		res, _ := fetch(t, visitor(t), url)
		return res.StatusCode == 200
	})
	newer := start(t, gitlabJob(t, s, 42, "echo second; until [ -e "+until+" ]; do sleep 0.05; done"))
	newer.out.await(t, "second")
	if code := older.exit(t); code != 4 {
		t.Errorf("the older job ends with %d, want 4", code)
	}
	writeFile(t, until, "")
	if code := newer.exit(t); code != 0 {
		t.Errorf("the newer job ends with %d", code)
	}
	if code, _, errors := run(t, gitlabJob(t, s, 43, "exec sleep 60", "PREVIEW_TIME=1s")); code != 0 {
		t.Errorf("a job whose time is over ends with %d\n%s", code, errors)
	}
	if code, _, errors := run(t, gitlabJob(t, s, 44, "exit 9")); code != 9 {
		t.Errorf("a job whose command ends with 9 ends with %d\n%s", code, errors)
	}
}

// TestGitLabDownload: without a tunnel-client the template gets one, if it is the one in the list of sums.
func TestGitLabDownload(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the template is for Linux")
	}
	need(t, "curl", "curl")
	s := startServer(t)
	folder := "tunnel_v1.2.3_linux_" + runtime.GOARCH
	packed := pack(t, folder+"/tunnel-client", "#!/bin/sh\nexec "+filepath.Join(bin, "tunnel-client")+` "$@"`)
	releases := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch filepath.Base(r.URL.Path) {
		case folder + ".tar.gz":
			w.Write(packed)
		case "SHA256SUMS":
			sum := sha256.Sum256(packed)
			if strings.HasPrefix(r.URL.Path, "/other/") {
				sum = sha256.Sum256(nil)
			}
			fmt.Fprintf(w, "%x  %s.tar.gz\n%064d  another\n", sum, folder, 0)
		default:
			io.WriteString(w, "?")
		}
	}))
	t.Cleanup(releases.Close)
	env := []string{"PATH=" + os.Getenv("PATH"), "TUNNEL_VERSION=v1.2.3", "TUNNEL_RELEASES=" + releases.URL}
	if code, out, errors := run(t, gitlabJob(t, s, 41, "echo run", env...)); code != 0 || !strings.HasSuffix(out, "run\n") {
		t.Errorf("exit code %d, output %q\n%s", code, out, errors)
	}
	env = append(env, "TUNNEL_RELEASES="+releases.URL+"/other")
	if code, out, _ := run(t, gitlabJob(t, s, 41, "echo run", env...)); code != 1 || strings.Contains(out, "run\n") {
		t.Errorf("with another sum: exit code %d, output %q", code, out)
	}
}
