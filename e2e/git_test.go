//go:build unix

package e2e

import (
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitRepo runs git in one folder. Public URLs lead to this machine.
type gitRepo struct {
	git, dir, public string
}

func (g gitRepo) command(t *testing.T, args ...string) *exec.Cmd {
	host := hostOf(t, g.public)
	cmd := exec.Command(g.git, append([]string{
		"-c", "http.curloptResolve=" + host + ":127.0.0.1", // since git 2.37
		"-c", "core.compression=0", "-c", "user.name=e2e", "-c", "user.email=e2e@localhost", "-c", "commit.gpgsign=false",
	}, args...)...)
	cmd.Dir = g.dir
	cmd.Env = environment("HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	return cmd
}

func (g gitRepo) run(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(mustRun(t, g.command(t, args...)))
}

// gitServer is git http-backend for the repositories in root.
func gitServer(git, root string) http.Handler {
	backend := &cgi.Handler{
		Path: git, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + home, "REMOTE_USER=visitor"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Package cgi refuses chunks, since CGI is to know the length beforehand. The
		// backend reads to the end where it does not.
		r.TransferEncoding = nil
		backend.ServeHTTP(w, r)
	})
}

// TestGit pushes a file of 50 MB and clones it again.
func TestGit(t *testing.T) {
	git := need(t, "git", "git")
	root, folder := t.TempDir(), t.TempDir()
	mine := gitRepo{git, filepath.Join(folder, "mine"), "http://unused.localhost:1"}
	if err := os.Mkdir(mine.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	content := noise(50<<20, 5)
	mine.run(t, "init", "-q", "-b", "main")
	if err := os.WriteFile(filepath.Join(mine.dir, "large.bin"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	mine.run(t, "add", ".")
	mine.run(t, "commit", "-q", "-m", "large")
	commit := mine.run(t, "rev-parse", "HEAD")

	target := app(t, gitServer(git, root))
	eachTransport(t, func(t *testing.T, transport string) {
		bare := gitRepo{git, root, expose(t, target, transport)}
		bare.run(t, "init", "-q", "--bare", "-b", "main", transport+".git")
		url := bare.public + "/" + transport + ".git"

		mine := gitRepo{git, mine.dir, bare.public}
		mine.run(t, "push", "-q", url, "main")
		there := gitRepo{git, filepath.Join(root, transport+".git"), bare.public}
		if got := there.run(t, "rev-parse", "main"); got != commit {
			t.Errorf("pushed %s, and it became %s", commit, got)
		}
		there.run(t, "fsck", "--no-progress")

		clone := gitRepo{git, folder, bare.public}
		clone.run(t, "clone", "-q", url, "clone-"+transport)
		clone.dir = filepath.Join(folder, "clone-"+transport)
		if got := clone.run(t, "rev-parse", "HEAD"); got != commit {
			t.Errorf("cloned %s, want %s", got, commit)
		}
		if fileSum(t, filepath.Join(clone.dir, "large.bin")) != sum(content) {
			t.Error("the cloned file is not the one that was pushed")
		}
	})
}
