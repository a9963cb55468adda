package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// clone copies the commit that is checked out, and its tags. A linked worktree
// would not do: Go finds no commit there to record.
func (r *release) clone(ctx context.Context) error {
	commit, err := r.git(ctx, r.root, "rev-parse", "--verify", "HEAD^{commit}")
	if err != nil {
		return fmt.Errorf("a release is made of a commit: %w", err)
	}
	changes, err := r.git(ctx, r.root, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		fmt.Fprintf(r.log, "release: what is not committed is left out:\n%s\n", changes)
	}
	if _, err := r.git(ctx, r.root, "clone", "--quiet", "--no-checkout", ".", r.tree); err != nil {
		return err
	}
	// A developer's settings would change the files on the way.
	_, err = r.git(ctx, r.tree, "-c", "core.autocrlf=false", "-c", "advice.detachedHead=false", "checkout", "--quiet", commit)
	return err
}

// build makes the archive of one platform.
func (r *release) build(ctx context.Context, p platform) (archive, error) {
	bin := filepath.Join(r.temp, p.os+"_"+p.arch)
	// -s and -w leave out what only debuggers read.
	_, err := r.golang(ctx, p, "build", "-buildvcs=true", "-ldflags=-s -w",
		"-o", bin+string(filepath.Separator), "./cmd/tunnel-server", "./cmd/tunnel-client")
	if err != nil {
		return archive{}, err
	}
	info, err := buildinfo.ReadFile(filepath.Join(bin, "tunnel-server"+p.suffix()))
	if err != nil {
		return archive{}, err
	}
	at, err := committed(info)
	if err != nil {
		return archive{}, err
	}
	a := archive{
		dir: strings.Join([]string{"tunnel", info.Main.Version, p.os, p.arch}, "_"),
		zip: p.os == "windows", at: at,
	}
	for _, name := range []string{"tunnel-server", "tunnel-client"} {
		a.files = append(a.files, file{name: name + p.suffix(), path: filepath.Join(bin, name+p.suffix()), run: true})
	}
	if err := r.documents(&a, p); err != nil {
		return archive{}, err
	}
	licences, err := r.licences(ctx, p)
	if err != nil {
		return archive{}, err
	}
	a.files = append(a.files, file{name: "LICENSES-OF-OTHERS", data: licences})
	slices.SortFunc(a.files, func(x, y file) int { return cmp.Compare(x.name, y.name) })
	fmt.Fprintf(r.log, "release: %s with %s\n", a.name(), info.GoVersion)
	return a, nil
}

// committed is the time of the commit that info is of.
func committed(info *debug.BuildInfo) (time.Time, error) {
	for _, s := range info.Settings {
		if s.Key == "vcs.time" && strings.HasPrefix(info.Main.Version, "v") {
			return time.Parse(time.RFC3339, s.Value)
		}
	}
	return time.Time{}, errors.New("go recorded no version of the commit: is this a git repository, and git in the PATH?")
}

// documents adds the files that stand beside the binaries.
func (r *release) documents(a *archive, p platform) error {
	patterns := []string{"README.md", "LICENSE", "CHANGELOG.md", "docs/*.*", "docs/img/*"}
	if p.os == "linux" {
		patterns = append(patterns, "deploy/*.service", "deploy/*.example", "deploy/dns/*")
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(r.tree, filepath.FromSlash(pattern)))
		if err != nil {
			return err
		}
		for _, one := range found {
			a.files = append(a.files, file{name: path.Join(path.Dir(pattern), filepath.Base(one)), path: one, run: path.Ext(one) == ".sh"})
		}
	}
	return nil
}

// licences are the texts that whoever hands on the binaries has to hand on, too:
// those of Go and of each module that is linked.
func (r *release) licences(ctx context.Context, p platform) ([]byte, error) {
	root, err := r.golang(ctx, p, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	list, err := r.golang(ctx, p, "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/tunnel-server", "./cmd/tunnel-client")
	if err != nil {
		return nil, err
	}
	modules := strings.Split(list, "\n")
	slices.Sort(modules)
	modules = slices.DeleteFunc(slices.Compact(modules), func(s string) bool { return s == "" })
	var all bytes.Buffer
	for _, one := range append([]string{"Go\t" + root}, modules...) {
		name, dir, _ := strings.Cut(one, "\t")
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		found := false
		for _, e := range entries {
			if upper := strings.ToUpper(e.Name()); e.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") && !strings.HasPrefix(upper, "NOTICE") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&all, "======== %s: %s\n\n%s\n", name, e.Name(), bytes.TrimSpace(text))
		}
		if !found {
			return nil, fmt.Errorf("%s has no file LICENSE in %s: its text belongs to the release", name, dir)
		}
	}
	return all.Bytes(), nil
}

func (p platform) suffix() string {
	if p.os == "windows" {
		return ".exe"
	}
	return ""
}

// settings are what a build could otherwise take from its surroundings: an empty
// variable would not keep out what go env -w has set.
func (p platform) settings() []string {
	return []string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-trimpath", "GOWORK=off"}
}

// git runs git in dir and returns what it prints.
func (r *release) git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	return output(cmd)
}

// golang runs go in the clone, for p, and returns what it prints.
func (r *release) golang(ctx context.Context, p platform, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = r.tree
	cmd.Env = append(os.Environ(), p.settings()...)
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
