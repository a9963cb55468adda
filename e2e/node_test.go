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
	ci := exec.Command(npm, "ci", "--engine-strict", "--ignore-scripts", "--prefer-offline", "--fetch-retries=5", "--no-audit", "--no-fund", "--loglevel=error")
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
