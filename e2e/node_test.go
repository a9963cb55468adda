//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nodeProject is a copy of a folder of testdata with its packages installed.
type nodeProject struct{ node, dir string }

// installProject installs exactly what the package-lock.json of testdata/name
// says, from whichever registry npm is set up for.
func installProject(t *testing.T, name string) nodeProject {
	t.Helper()
	p := nodeProject{need(t, "node", "nodejs"), filepath.Join(t.TempDir(), name)}
	npm := need(t, "npm", "npm")
	if err := os.CopyFS(p.dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	// A download that stalls is given up and tried again within the test's time, which npm would do
	// after 5 minutes.
	ci := exec.Command(npm, "ci", "--engine-strict", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error",
		"--fetch-retries=5", "--fetch-timeout=20000", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
	if at, err := os.UserHomeDir(); err != nil || os.MkdirAll(filepath.Join(at, ".npm"), 0o755) != nil {
		ci.Args = append(ci.Args, "--cache="+t.TempDir()) // this user has no home, or may not write to it
	}
	// npm may be set up in the user's own home.
	ci.Dir, ci.Env = p.dir, os.Environ()
	if code, out, errors := runWithin(t, 5*patience, ci); code != 0 {
		missing(t, fmt.Sprintf("npm ci in e2e/testdata/%s: exit code %d\n%s%s", name, code, out, errors))
	}
	return p
}

// command runs a script of p's folder.
func (p nodeProject) command(script string, args ...string) *exec.Cmd {
	cmd := exec.Command(p.node, append([]string{script}, args...)...)
	cmd.Dir = p.dir
	cmd.Env = environment("HOME="+home, "NO_COLOR=1", "CI=true")
	return cmd
}
