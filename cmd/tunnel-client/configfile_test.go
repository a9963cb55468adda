package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/rig"
)

// checked is what config check says of the files.
func checked(t *testing.T, files ...string) (code int, stdout, stderr string) {
	t.Helper()
	args := []string{"tunnel-client", "config", "check"}
	for _, file := range files {
		args = append(args, "--config", file)
	}
	var out, wrong rig.Buffer
	code = run(t.Context(), process{args: args, stdout: &out, stderr: &wrong})
	return code, out.String(), wrong.String()
}

func TestConfigSaysWhatIsWrongAndWhere(t *testing.T) {
	home(t)
	t.Setenv("SECRET", "hunter2")
	for _, tt := range []struct{ name, given, want string }{
		{"empty", "", "c.yaml: the file is empty: tunnel-client config init"},
		{"no endpoints", "version: 1", "c.yaml: there are no endpoints"},
		{"no version", "endpoints: {web: {target: 3000}}", "c.yaml:1: version is missing: write version: 1"},
		{"other version", "version: 2\nendpoints: {web: {target: 3000}}", `c.yaml:1: version "2" is unknown`},
		{"no yaml", "version: 1\nendpoints:\n\tweb: 3000", "c.yaml:3: invalid YAML: it is indented with a tab: YAML is indented with spaces\n"},
		{"tab after spaces", "version: 1\nendpoints:\n  web:\n  \ttarget: 3000", "c.yaml:4: invalid YAML: it is indented with a tab"},
		{"two documents", "version: 1\n---\nversion: 1", "c.yaml:2: a second document begins"},
		{"no mapping", "- 3000", "c.yaml:1: the file must be keys with values"},
		{"endpoint", "version: 1\nendpoints:\n  web: 3000", "c.yaml:3: endpoint web must be keys with values, such as target: 3000"},
		{"flag", "E    host-header: preserve", `c.yaml:5: endpoint web: unknown key "host-header": did you mean host_header?`},
		{"dashes", "E    --name: x", `did you mean name?`},
		{"slip", "E    host_haeder: preserve", "c.yaml:5: endpoint web: unknown key \"host_haeder\": did you mean host_header?\n"},
		{"unlike any", "E    xyzzy: 1", "c.yaml:5: endpoint web: unknown key \"xyzzy\"\n"},
		{"slip at the top", "version: 1\nservr: x\nendpoints: {web: {target: 3000}}", `c.yaml:2: unknown key "servr": did you mean server?`},
		{"of the process", "version: 1\nlog_level: debug\nendpoints: {web: {target: 3000}}", "c.yaml:2: unknown key \"log_level\": it is an option of start itself, --log-level"},
		{"of one at the top", "version: 1\nname: x\nendpoints: {web: {target: 3000}}", "c.yaml:2: name is of one endpoint: it belongs below endpoints"},
		{"other kind's", "E    remote_port: 5", "c.yaml:5: endpoint web: remote_port is not for kind http, but for tcp, udp"},
		{"kind", "E    kind: htp", `c.yaml:5: endpoint web: kind "htp" is unknown: use http, file, tcp, tls, udp`},
		{"inspector of one", "E    inspect: 4041", "c.yaml:5: endpoint web: inspect is of all endpoints, which have one inspector: it belongs at the top of the file; no_inspect: true"},
		{"inspector", "version: 1\ninspect: here\nendpoints: {a: {target: 1}, b: {target: 2}}", `c.yaml:2: inspect "here" is not an address`},
		{"no target", "version: 1\nendpoints:\n  web:\n    name: x", "c.yaml:3: endpoint web: it takes a target"},
		{"bad target", "version: 1\nendpoints:\n  web:\n    target: 99999", "c.yaml:3: endpoint web: target \"99999\": port 99999 is not between 1 and 65535\n"},
		{"twice", "E    target: 4000", "c.yaml:5: target is defined twice in endpoint web"},
		{"endpoint twice", "version: 1\nendpoints:\n  web:\n    target: 3000\n  web: {target: 4000}", "c.yaml:5: endpoint web is defined twice\n"},
		{"same name", "E    name: x\n  docs: {target: 1, name: x}", "c.yaml:6: endpoint docs: name x is that of endpoint web, too: give one of them another\n"},
		{"name of another", "E    name: docs\n  docs: {target: 1}", "c.yaml:6: endpoint docs: name docs is that of endpoint web, too"},
		{"same name on one of the servers", "E    server: [http://a.example, http://b.example/]\n    name: x\n  docs: {target: 1, name: x, server: http://b.example}", "c.yaml:7: endpoint docs: name x is that of endpoint web, too"},
		{"same private name", "E    name: x\n    private: true\n  docs: {kind: tcp, target: 1, name: x, private: true}", "c.yaml:7: endpoint docs: name x is that of endpoint web, too"},
		{"no truth", "E    private: yes", `c.yaml:5: endpoint web: private must be true or false, not "yes"`},
		{"truth", "E    host_header: true", "c.yaml:5: endpoint web: host_header is no matter of true or false"},
		{"no number", "version: 1\nendpoints: {p: {kind: tcp, target: 1, remote_port: many}}", `c.yaml:2: endpoint p: remote_port must be a whole number, not "many"`},
		{"no time", "E    grace: 30", `c.yaml:5: endpoint web: grace must be a time such as 30s, 5m or 48h, not "30"`},
		{"list", "E    host_header: [a, b]", "c.yaml:5: endpoint web: host_header takes one value, and here is a list"},
		{"keys", "E    grace: {a: b}", "c.yaml:5: endpoint web: grace must have a value"},
		{"nothing", "E    grace:", "c.yaml:5: endpoint web: grace has no value"},
		{"value", "E    host_header: http://x", `c.yaml:5: endpoint web: host_header "http://x": use rewrite, preserve, or a host[:port]`},
		{"negative", "E    app_timeout: -1s", "c.yaml:5: endpoint web: app_timeout -1s is negative"},
		{"server", "version: 1\nserver: tunnel.example\nendpoints: {a: {target: 1}, b: {target: 2}}", "c.yaml:2: server \"tunnel.example\" is not http://HOST[:PORT] or https://HOST[:PORT]: write https://tunnel.example\n"},
		{"second server", "E    server: [http://a.example, x]", `c.yaml:5: endpoint web: server "x" is not`},
		{"failover", "E    failover_after: 0s", "c.yaml:5: endpoint web: failover_after must be a time"},
		{"token file", "E    token_file: none.txt", "c.yaml:5: endpoint web: token_file none.txt: no such file"},
		{"variable", "E    grace: ${NOPE}", "c.yaml:5: endpoint web: grace: the environment has no NOPE: set it, or write ${NOPE:-default}"},
		{"half a variable", "E    grace: ${NOPE", "c.yaml:5: endpoint web: grace: ${ begins a variable"},
		{"no variable", "E    grace: ${SECRET NOPE}", "c.yaml:5: endpoint web: grace: ${ begins a variable"},
		{"name of the key", "version: 1\nendpoints: {My_App: {target: 3000}}", `c.yaml:2: endpoint My_App: name: name "My_App"`},
	} {
		writeFile(t, "c.yaml", strings.Replace(tt.given, "E    ", "version: 1\nendpoints:\n  web:\n    target: 3000\n    ", 1))
		code, _, stderr := checked(t, "c.yaml")
		if code != 2 || !strings.Contains(stderr, "tunnel-client: "+tt.want) && !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit code %d, and it says\n%s\nwant %s", tt.name, code, stderr, tt.want)
		}
		if n := strings.Count(stderr, "\n"); n != 1 {
			t.Errorf("%s: %d lines, want one mistake to be one:\n%s", tt.name, n, stderr)
		}
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	home(t)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	here := dir + string(filepath.Separator)
	for _, tt := range []struct {
		given string
		want  []string // a line each
	}{
		{"server: foo\nendpoints:\n  a: {target: 3000, name: A_B}", []string{"2: server \"foo\" is not", "4: endpoint a: name: name \"A_B\""}},
		{"server: foo\nendpoints:\n  a: {target: 3000, nmae: x}", []string{"2: server", "4: endpoint a: unknown key"}},
		{"server: foo\nendpoints:\n  a: {kind: file, target: missing}", []string{"2: server", "4: endpoint a: missing"}},
		{"server: foo\nendpoints:\n  a: {kind: file, target: missing, spa: true}", []string{"2: server", "4: endpoint a: missing"}},
		{"server: foo\nendpoints:\n  a: {kind: htp, target: 1, name: A_B}", []string{"2: server", "4: endpoint a: kind", "4: endpoint a: name"}},
		{"server: foo\nendpoints:\n  a: {kind: nonsense, target: missing, name: A_B, remote_port: 1}", []string{"2: server", "4: endpoint a: kind", "4: endpoint a: name"}},
		{"server: foo\nendpoints:\n  a: {kind: fiel, target: missing}", []string{"2: server", "4: endpoint a: kind", "4: endpoint a: missing"}},
		{"endpoints:\n  a: {target: 1, grace: -1s, app_timeout: -1s, token_file: none, name: A_B}", []string{
			"3: endpoint a: app_timeout -1s", "3: endpoint a: grace -1s", "3: endpoint a: name", "3: endpoint a: token_file none",
		}},
		// What follows from a mistake is none.
		{"endpoints:\n  a: {kind: nonsense, target: missing, spa: true}", []string{"3: endpoint a: kind"}},
		{"endpoints:\n  a: {kind: file, spa: true}", []string{"3: endpoint a: it takes a target"}},
		{"endpoints:\n  a: {target: 1, name: A_B, generation: 5}", []string{"3: endpoint a: name"}},
	} {
		writeFile(t, "c.yaml", "version: 2\n"+tt.given)
		_, _, stderr := checked(t, "c.yaml")
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if !strings.Contains(lines[0], "c.yaml:1: version") {
			t.Errorf("%s: it begins with %s", tt.given, lines[0])
		}
		rest := strings.Split(strings.ReplaceAll(strings.Join(lines[1:], "\n"), here, ""), "\n")
		slices.Sort(rest) // those of one line are in no order
		if !slices.EqualFunc(rest, tt.want, func(line, want string) bool { return strings.HasPrefix(line, "tunnel-client: c.yaml:"+want) }) {
			t.Errorf("%s: it says\n%s\nwant %q", tt.given, strings.Join(lines, "\n"), tt.want)
		}
	}
	writeFile(t, "c.yaml", "version: 1\ngrace: soon\nendpoints:\n  a: {target: 3000, nmae: x}\n  b: {target: 99999}\n  c: {target: 1, ttarget: 2}\n")
	_, _, stderr := checked(t, "c.yaml")
	var lines []string
	for line := range strings.Lines(stderr) {
		_, rest, _ := strings.Cut(line, "c.yaml:")
		number, _, _ := strings.Cut(rest, ":")
		lines = append(lines, number)
	}
	if want := []string{"2", "4", "5", "6"}; !slices.Equal(lines, want) {
		t.Errorf("mistakes in lines %q, want %q:\n%s", lines, want, stderr)
	}
}

// specsOf reads a configuration that is well.
func specsOf(t *testing.T, files ...string) map[string]*spec {
	t.Helper()
	from, err := openSources(files)
	if err != nil {
		t.Fatal(err)
	}
	all, err := plan(cli.NewContext(cli.NewApp(), nil, nil), from.paths, from.used.contents, nil)
	if err != nil {
		t.Fatal(err)
	}
	specs := make(map[string]*spec)
	for _, one := range all {
		specs[one.name] = one
	}
	return specs
}

func (s *spec) value(option string) string { return strings.Join(s.options[option].values, ",") }

func TestConfigOfSeveralFiles(t *testing.T) {
	home(t)
	writeFile(t, "a.yaml", "version: 1\ngrace: 1s\nserver: http://a.example\nendpoints:\n  web: {target: 3000, host_header: preserve}\n  db: {kind: tcp, target: 5432}\n")
	writeFile(t, "b.yaml", "version: 1\nserver: [http://b.example, http://c.example]\nendpoints:\n  web: {target: 4000, grace: 2s}\n  more: {target: 1, name: other}\n")
	specs := specsOf(t, "a.yaml", "b.yaml")
	for _, tt := range []struct{ endpoint, what, got, want string }{
		{"web", "target", specs["web"].target, "4000"},
		{"web", "host_header", specs["web"].value("host-header"), "preserve"},
		{"web", "grace", specs["web"].value("grace"), "2s"},
		{"web", "name", specs["web"].value("name"), "web"},
		{"db", "grace", specs["db"].value("grace"), "1s"},
		{"db", "kind", specs["db"].kind, "tcp"},
		{"more", "name", specs["more"].value("name"), "other"},
		{"more", "servers", strings.Join(specs["more"].servers, ","), "http://b.example,http://c.example"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s has %s %q, want %q", tt.endpoint, tt.what, tt.got, tt.want)
		}
	}
}

// TestConfigNamesThatAreTwoThings: names that are told apart by the server are no mistake.
func TestConfigNamesThatAreTwoThings(t *testing.T) {
	home(t)
	writeFile(t, "a", "a-token\n")
	writeFile(t, "b", "b-token\n")
	writeFile(t, "c.yaml", `version: 1
endpoints:
  web: {target: 1, name: x}
  tcp: {kind: tcp, target: 1, name: x, token_file: a}
  tcp of another: {kind: tcp, target: 1, name: x, token_file: b}
  udp: {kind: udp, target: 1, name: x}
  private: {target: 1, name: x, private: true}
  private udp: {kind: udp, target: 1, name: x, private: true}
  elsewhere: {target: 1, name: x, server: http://other.example}
`)
	if code, _, stderr := checked(t, "c.yaml"); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// TestConfigPaths: what names a file is looked for beside the configuration, whatever
// directory start is in.
func TestConfigPaths(t *testing.T) {
	home(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "the-token\n")
	config := filepath.Join(dir, "c.yaml")
	writeFile(t, config, "version: 1\ntoken_file: token\nendpoints:\n  docs: {kind: file, target: .}\n  web: {target: 3000, url_file: url, ca: }\n")
	if code, _, stderr := checked(t, config); code != 2 || !strings.Contains(stderr, "ca has no value") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	writeFile(t, config, "version: 1\ntoken_file: token\nendpoints:\n  docs: {kind: file, target: .}\n  web: {target: 3000, url_file: url}\n")
	specs := specsOf(t, config)
	if got := specs["docs"].target; got != dir {
		t.Errorf("the folder is %s, want %s", got, dir)
	}
	if got := specs["web"].value("url-file"); got != filepath.Join(dir, "url") {
		t.Errorf("the URL goes to %s", got)
	}
}

// TestConfigKeysAreFlags: every option of every kind may stand in a file, also one that is
// added after this test.
func TestConfigKeysAreFlags(t *testing.T) {
	home(t)
	for _, kind := range kinds() {
		for _, f := range optionsOf(kind) {
			value := "x"
			switch f.(type) {
			case *cli.BoolFlag:
				value = "true"
			case *cli.IntFlag:
				value = "80"
			case *cli.DurationFlag:
				value = "1s"
			}
			top, own := "", ", "+key(f.Names()[0])+": "+value
			if slices.Contains(ofAll(), f.Names()[0]) {
				top, own = strings.TrimPrefix(own, ", ")+"\n", ""
			}
			w := parseConfig([]string{"c.yaml"}, [][]byte{[]byte("version: 1\n" + top + "endpoints: {e: {kind: " + kind + ", target: 80" + own + "}}")})
			if specs := w.specs(); len(w.problems) > 0 || specs[0].value(f.Names()[0]) != value && !isFile(f) {
				t.Errorf("kind %s with %s: %v", kind, f.Names()[0], w.problems)
			}
		}
	}
}

func TestConfigVariables(t *testing.T) {
	t.Setenv("FULL", "full")
	t.Setenv("EMPTY", "")
	for given, want := range map[string]string{
		"a${FULL}b${FULL}": "afullbfull",
		"${EMPTY}":         "",
		"${EMPTY:-x}":      "x",
		"${UNSET:-}":       "",
		"${UNSET:-a:-b}":   "a:-b",
		"${FULL:-x}":       "full",
		"$${FULL}":         "${FULL}",
		"$FULL $ $$":       "$FULL $ $$",
		"${UNSET}":         "error",
		"${}":              "error",
		"${1A}":            "error",
		"${FULL":           "error",
	} {
		got, err := expand(given)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s becomes %q, want %q", given, got, want)
		}
	}
}

// TestConfigInit: the example is one that start takes, also where all of it is used.
func TestConfigInit(t *testing.T) {
	home(t)
	initialize := func() (int, string) {
		var out, wrong rig.Buffer
		code := run(t.Context(), process{args: []string{"tunnel-client", "config", "init", "sub/tunnel.yaml"}, stdout: &out, stderr: &wrong})
		return code, wrong.String()
	}
	if code, stderr := initialize(); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	code, stdout, stderr := checked(t, "sub/tunnel.yaml")
	if code != 0 || stdout != "ok: 1 endpoint in sub/tunnel.yaml: web\n" || stderr != "" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	writeFile(t, "sub/tunnel.yaml", "mine")
	if code, stderr := initialize(); code != 2 || !strings.Contains(stderr, "is there already, and left alone") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if data, err := readFile("sub/tunnel.yaml"); err != nil || string(data) != "mine" {
		t.Errorf("the file has %q, %v", data, err)
	}
	all := bytes.ReplaceAll(example, []byte("  # "), []byte("  "))
	all = bytes.ReplaceAll(all, []byte("\n# token_file"), []byte("\ntoken_file"))
	var kept []string
	for line := range strings.Lines(string(all)) {
		if !strings.HasPrefix(line, "  A ") { // what is a comment in the example, too
			kept = append(kept, line)
		}
	}
	writeFile(t, "sub/all.yaml", strings.Join(kept, ""))
	writeFile(t, "sub/token", "the-token\n")
	writeFile(t, "sub/dist/index.html", "")
	if code, stdout, stderr := checked(t, "sub/all.yaml"); code != 0 || !strings.HasPrefix(stdout, "ok: 3 endpoints") {
		t.Errorf("exit code %d: %s%s of\n%s", code, stdout, stderr, kept)
	}
}

func TestConfigUsage(t *testing.T) {
	home(t)
	for given, want := range map[string]string{
		"check --conifg x":  "not defined: --conifg: did you mean --config? see tunnel-client config check --help",
		"check tunnel.yaml": "name files with --config tunnel.yaml",
		"init a b":          "config init takes one FILE, got 2: a b",
		"chekc":             `config has no "chekc": use check or init`,
	} {
		code, _, stderr := tells(t, "", append([]string{"config"}, strings.Fields(given)...)...)
		if code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s", given, code, stderr)
		}
	}
}

func TestConfigIsFound(t *testing.T) {
	home(t)
	if code, _, stderr := checked(t); code != 2 || !strings.Contains(stderr, "there is no tunnel.yaml here: tunnel-client config init writes one, --config FILE names another") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	dir, err := configHome()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tunnel.yaml"), "version: 1\nendpoints: {there: {target: 1}}")
	if _, stdout, _ := checked(t); !strings.HasSuffix(stdout, ": there\n") {
		t.Errorf("the user's is not used: %s", stdout)
	}
	writeFile(t, "tunnel.yaml", "version: 1\nendpoints: {here: {target: 1}}")
	if _, stdout, _ := checked(t); stdout != "ok: 1 endpoint in tunnel.yaml: here\n" {
		t.Errorf("the one here is not used: %s", stdout)
	}
	writeFile(t, "other.yaml", "version: 1\nendpoints: {other: {target: 1}}")
	t.Setenv("TUNNEL_CONFIG", "other.yaml")
	if _, stdout, _ := checked(t); !strings.HasSuffix(stdout, ": other\n") {
		t.Errorf("TUNNEL_CONFIG is not used: %s", stdout)
	}
}

// TestConfigAliases: what stands for something else is read as that, and what stands for
// itself is a mistake like others.
func TestConfigAliases(t *testing.T) {
	home(t)
	writeFile(t, "c.yaml", "version: 1\nendpoints:\n  a: &a {target: 1, grace: &g 3s}\n  b: *a\n  c: {target: 2, grace: *g}\n")
	specs := specsOf(t, "c.yaml")
	if specs["b"].target != "1" || specs["c"].value("grace") != "3s" {
		t.Errorf("b is at %s, and c has %s", specs["b"].target, specs["c"].value("grace"))
	}
	for _, odd := range []string{"&a [*a]", "version: 1\nendpoints: &e {x: *e}", "version: 1\nendpoints: {x: {target: &t [*t]}}", "? {a: b}\n: c"} {
		writeFile(t, "c.yaml", odd)
		if code, _, stderr := checked(t, "c.yaml"); code != 2 || stderr == "" {
			t.Errorf("%q: exit code %d: %s", odd, code, stderr)
		}
	}
}
