//go:build unix

package e2e

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// deployed reads a file of deploy/, or another one beside it.
func deployed(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// serveHelp is what tunnel-server says of its flags.
func serveHelp(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "tunnel-server"), "serve", "--help")
	cmd.Env = environment()
	return mustRun(t, cmd)
}

// The unit is one that systemd understands in full, and what it leaves to the
// server is little: 10 is what a unit without any setting has, 1.6 this one.
func TestServiceUnit(t *testing.T) {
	analyze := need(t, "systemd-analyze", "systemd")
	unit := filepath.Join(t.TempDir(), "tunnel-server.service")
	text := strings.Replace(deployed(t, "tunnel-server.service"), "/usr/local/bin/tunnel-server", filepath.Join(bin, "tunnel-server"), 1)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errors := run(t, exec.CommandContext(t.Context(), analyze, "verify", unit))
	if code != 0 || strings.Contains(errors, "tunnel-server.service") {
		t.Errorf("verify: exit code %d\n%s%s", code, out, errors)
	}
	code, out, errors = run(t, exec.CommandContext(t.Context(), analyze, "security", "--no-pager", "--offline=true", "--threshold=17", unit))
	if code != 0 {
		t.Errorf("the unit is exposed by more than 1.7:\n%s%s", out, errors)
	}
}

// setting is the value of a setting of the unit.
func setting(t *testing.T, unit, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(unit, -1)
	if len(found) != 1 {
		t.Fatalf("the unit has %d lines with %s", len(found), name)
	}
	return found[0][1]
}

// What the unit says and what the server does belong together: it waits longer
// than --grace, does not start again what cannot start, and lets the server see
// how much memory there is.
func TestServiceAgreesWithServer(t *testing.T) {
	unit := deployed(t, "tunnel-server.service")
	help := serveHelp(t)
	found := regexp.MustCompile(`--grace .*\(default: ([0-9a-z]+)\)`).FindStringSubmatch(help)
	if found == nil {
		t.Fatalf("--help shows no default of --grace:\n%s", help)
	}
	grace, err := time.ParseDuration(found[1])
	if err != nil {
		t.Fatal(err)
	}
	stop, err := time.ParseDuration(setting(t, unit, "TimeoutStopSec") + "s")
	if err != nil || stop < grace+10*time.Second {
		t.Errorf("TimeoutStopSec is %s, --grace %s: %v", stop, grace, err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "tunnel-server"), "--no-such-flag")
	cmd.Env = environment()
	if code, _, _ := run(t, cmd); setting(t, unit, "RestartPreventExitStatus") != "2" || code != 2 {
		t.Errorf("the exit code for a wrong configuration is %d", code)
	}
	if setting(t, unit, "MemoryMax") == "" || strings.Contains(unit, "\nProcSubset=") {
		t.Error("the server has to see a limit of its memory, in its control group and in /proc")
	}
	if got, want := setting(t, unit, "ExecStart"), "/usr/local/bin/tunnel-server serve"; got != want {
		t.Errorf("the unit runs %q, docs/server.md installs %q", got, want)
	}
}

// Each variable in the example is one of a flag, in a form that systemd and
// container tools read alike.
func TestEnvironmentExample(t *testing.T) {
	help := serveHelp(t)
	seen := map[string]bool{}
	for line := range strings.Lines(deployed(t, "env.example")) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "# ") {
			continue
		}
		found := regexp.MustCompile(`^#?(TUNNEL_[A-Z0-9_]+)=([^\s"'$#]+)$`).FindStringSubmatch(line)
		if found == nil {
			t.Errorf("neither a comment nor NAME=VALUE: %q", line)
			continue
		}
		if seen[found[1]] {
			t.Errorf("%s is there twice", found[1])
		}
		seen[found[1]] = true
		if !strings.Contains(help, "[$"+found[1]+"]") {
			t.Errorf("tunnel-server serve --help does not show %s", found[1])
		}
	}
}

// What docs/server.md tells to type is what the commands take, and its links lead
// somewhere.
func TestServerGuide(t *testing.T) {
	guide := deployed(t, "../docs/server.md")
	help := serveHelp(t)
	for _, command := range []string{"http", "tcp", "udp"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "tunnel-client"), command, "--help")
		cmd.Env = environment()
		_, out, _ := run(t, cmd)
		help += out
	}
	known := func(what, shown, flag string) {
		if flag != "version" && !strings.Contains(help, shown) {
			t.Errorf("%s: no --help shows %s", what, shown)
		}
	}
	// Commands of ours on lines of their own, and all that stands in the text.
	ours := regexp.MustCompile(`(?m)^    tunnel-(?:.*\\\n)*.*$`).FindAllString(guide, -1)
	ours = append(ours, regexp.MustCompile("`(?:tunnel-|--)[^`]*`").FindAllString(guide, -1)...)
	if len(ours) < 20 {
		t.Errorf("only %d commands and flags were found", len(ours))
	}
	for _, one := range ours {
		for _, found := range regexp.MustCompile("[` ]--([a-z0-9-]+)").FindAllStringSubmatch(one, -1) {
			known(one, "--"+found[1], found[1])
		}
	}
	for _, variable := range regexp.MustCompile(`TUNNEL_[A-Z0-9_]+`).FindAllString(guide, -1) {
		if variable != "TUNNEL_TOKEN" {
			known(variable, "[$"+variable+"]", strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "TUNNEL_")), "_", "-"))
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)`).FindAllStringSubmatch(guide, -1) {
		if _, err := os.Stat(filepath.Join("..", "docs", link[1])); err != nil {
			t.Error(err)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(guide, -1) {
		heading := strings.ReplaceAll(regexp.QuoteMeta(link[1]), "-", `[.]? `)
		if !regexp.MustCompile(`(?mi)^#+ ` + heading + `$`).MatchString(guide) {
			t.Errorf("no heading for #%s", link[1])
		}
	}
}

// An instruction is one of a Dockerfile.
type instruction struct{ name, args string }

// dockerfile reads deploy/Dockerfile.
func dockerfile(t *testing.T) (all []instruction) {
	t.Helper()
	text := strings.ReplaceAll(deployed(t, "Dockerfile"), "\\\n", " ")
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, args, _ := strings.Cut(line, " ")
		all = append(all, instruction{name, strings.TrimSpace(args)})
	}
	return all
}

// The image is built without a daemon as far as that goes: its build lines run
// on this tree, and give each file that the last stage takes from them.
func TestDockerfile(t *testing.T) {
	goMod := deployed(t, "../go.mod")
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(goMod)[1]
	root := t.TempDir() // stands for the root of the first stage
	var image, built []string
	last := ""
	for _, one := range dockerfile(t) {
		switch one.name {
		case "FROM":
			last = one.args
			if strings.HasPrefix(last, "golang:") && !strings.HasPrefix(last, "golang:"+version+"-") {
				t.Errorf("the first stage is %s, go.mod wants Go %s", last, version)
			}
		case "RUN":
			if one.args == "go mod download" {
				continue // it was done to build this test
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(one.args, "/out", filepath.Join(root, "out")))
			cmd.Dir = ".."
			// As scripts/lint.sh builds, so that Go's cache has most of it.
			cmd.Env = environment("GOOS=linux", "GOARCH=arm64", "GOFLAGS=")
			build(t, cmd)
			built = append(built, one.args)
		case "COPY":
			image = append(image, copied(t, one.args, root)...)
		case "USER":
			if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(one.args) {
				t.Errorf("USER %s: an image from scratch knows numbers only, and root's is none to take", one.args)
			}
		case "ENTRYPOINT":
			if found := regexp.MustCompile(`^\["([^"]+)"\]$`).FindStringSubmatch(one.args); found == nil || !slices.Contains(image, found[1]) {
				t.Errorf("ENTRYPOINT %s is not among %q, or needs a shell", one.args, image)
			}
		}
	}
	if last != "scratch" || len(built) != 2 {
		t.Fatalf("the last stage is from %q, %q was built", last, built)
	}
	checkStatic(t, filepath.Join(root, "out", "tunnel-server"))
}

// copied checks the sources of a COPY and returns its destination, where it is
// one of the image.
func copied(t *testing.T, args, root string) []string {
	t.Helper()
	fields := slices.DeleteFunc(strings.Fields(args), func(s string) bool { return strings.HasPrefix(s, "--") })
	into := fields[len(fields)-1]
	stage := strings.Contains(args, "--from=build")
	for _, source := range fields[:len(fields)-1] {
		path := filepath.Join("..", source)
		switch {
		case source == "/etc/ssl/certs/ca-certificates.crt":
			continue // the Debian image of Go has them
		case stage:
			path = filepath.Join(root, source)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("COPY %s: %v", args, err)
		}
	}
	if stage {
		return []string{into}
	}
	return nil
}

// checkStatic looks for what loads a C library, which an image from scratch has
// not, and old systems have in another version.
func checkStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("%s is not static", path)
	}
}

// scripts/release.sh makes an archive of this very repository, for a system of
// which scripts/lint.sh has built all but the last step.
func TestReleaseOfThisTree(t *testing.T) {
	need(t, "git", "git")
	if _, err := os.Stat("../.git"); err != nil {
		missing(t, "a release is made of a commit: this is no clone of the repository")
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "../scripts/release.sh", "--only", "linux/arm64", "--out", out)
	cmd.Env = environment()
	build(t, cmd)
	check := exec.CommandContext(t.Context(), "sh", "-c", "sha256sum -c SHA256SUMS && tar xzf tunnel_v*_linux_arm64.tar.gz --strip-components=1")
	check.Dir = out
	mustRun(t, check)
	for _, name := range []string{"tunnel-server", "tunnel-client"} {
		info, err := buildinfo.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if v := info.Main.Version; !strings.HasPrefix(v, "v") || strings.HasSuffix(v, "+dirty") {
			t.Errorf("the version of %s is %q", name, v)
		}
		checkStatic(t, filepath.Join(out, name))
	}
	others, err := os.ReadFile(filepath.Join(out, "LICENSES-OF-OTHERS"))
	if err != nil || !strings.Contains(string(others), "======== golang.org/x/net v") {
		t.Errorf("the licence of golang.org/x/net is not there: %v", err)
	}
	for _, name := range []string{"LICENSE", "README.md", "docs/server.md", "deploy/tunnel-server.service", "deploy/env.example"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
}
