package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// suggestions are the words for a command line whose last word is being written.
func suggestions(t *testing.T, words ...string) []string {
	t.Helper()
	var out rig.Buffer
	args := append([]string{"tunnel-client", "__suggest", "--"}, words...)
	if code := run(t.Context(), process{args: args, stdout: &out, stderr: &out}); code != 0 {
		t.Errorf("%q: exit code %d", words, code)
	}
	var all []string
	for line := range strings.Lines(out.String()) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		all = append(all, word)
	}
	return all
}

func TestSuggestions(t *testing.T) {
	home(t)
	writeFile(t, "tunnel.yaml", "version: 1\nendpoints:\n  web: {target: \"${UNSET}\"}\n  api: {}\n")
	writeFile(t, "other.yaml", "endpoints: {other: {}}")
	for _, tt := range []struct{ given, want string }{
		{"ht", "http"},
		{"c", "connect config completion"},
		{"xyzzy ", ""},
		{"http --log-", "--log-format --log-level"},
		{"http 3000 --tra", "--transport"},
		{"http --transport ", "auto raw websocket ptth"},
		{"http --transport w", "websocket"},
		{"http --transport = w", "websocket"},
		{"http --transport =", "auto raw websocket ptth"},
		{"http --ca ", ":files"},
		{"http --name ", ""},
		{"http ", ""},
		{"http --sp", ""},
		{"file --sp", "--spa"},
		{"file ", ":files"},
		{"start ", "web api"},
		{"start web ", "api"},
		{"start w", "web"},
		{"start --config other.yaml ", "other"},
		{"start --config = other.yaml ", "other"},
		{"start --config missing.yaml ", ""},
		{"start --config ", ":files"},
		{"start --xyzzy ", ""},
		{"start --help ", ""},
		{"config ", "check init"},
		{"config check --c", "--config"},
		{"config check --config ", ":files"},
		{"config init ", ":files"},
		{"completion z", "zsh"},
		{"login --se", "--server"},
	} {
		words := strings.Split(tt.given, " ")
		if got := strings.Join(suggestions(t, words...), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.given, got, tt.want)
		}
	}
	all := suggestions(t, "")
	if slices.Contains(all, "__suggest") || !slices.Contains(all, "start") {
		t.Errorf("the commands are %q", all)
	}
}

// inShell runs a script in a shell where tunnel-client is this binary, and completed.
func inShell(t *testing.T, shell, script string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(shell, "is not installed:", err)
	}
	home(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "tunnel-client")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, "tunnel.yaml", "version: 1\nendpoints: {web: {target: 1}, db: {target: 2}}")
	writeFile(t, "here.pem", "")
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	c := exec.CommandContext(ctx, shell, append(args, "-c", script)...)
	c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	var out, wrong bytes.Buffer
	c.Stdout, c.Stderr = &out, &wrong
	if err := c.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", shell, err, &out, &wrong)
	}
	if wrong.Len() > 0 {
		t.Errorf("%s says:\n%s", shell, &wrong)
	}
	return out.String()
}

// The lines that the shells are asked for, each answered by a line.
const wantCompleted = `start: db web
http --transport w: websocket
con: config connect
file ./he: ./here.pem
http --ca he: here.pem
http 3000 --js: --json
`

func TestCompletionInBash(t *testing.T) {
	got := inShell(t, "bash", `
source <(tunnel-client completion bash)
asked() {
  local line="tunnel-client $1" only=$2
  COMP_LINE=$line COMP_POINT=${#line}
  read -ra COMP_WORDS <<<"$line"
  [ "${line% }" = "$line" ] || COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  compopt() { files=yes; }
  files= COMPREPLY=()
  "$(complete -p tunnel-client | sed 's/.*-F \([^ ]*\).*/\1/')" tunnel-client
  [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
  echo "${1% }: $(printf '%s\n' "${COMPREPLY[@]}" | sort | xargs)"
}
asked 'start '
asked 'http --transport w'
asked 'con'
asked 'file ./he'
asked 'http --ca he'
asked 'http 3000 --js'
`, "--norc", "--noprofile")
	if got != wantCompleted {
		t.Errorf("bash completes\n%swant\n%s", got, wantCompleted)
	}
}

func TestCompletionInFish(t *testing.T) {
	got := inShell(t, "fish", `
tunnel-client completion fish | source
for line in 'start ' 'http --transport w' 'con' 'file ./he' 'http --ca he' 'http 3000 --js'
    echo (string trim -r -- $line): (complete -C"tunnel-client $line" | string replace -r '\t.*' '' | sort | string join ' ')
end
`, "--no-config")
	if got != wantCompleted {
		t.Errorf("fish completes\n%swant\n%s", got, wantCompleted)
	}
}

// TestCompletionInZsh has the widget of a real zsh complete lines on a terminal that zsh
// itself makes, and reads what it inserts.
func TestCompletionInZsh(t *testing.T) {
	got := inShell(t, "zsh", `
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -U compinit; compinit -u -D; source <(tunnel-client completion zsh); echo rea''dy"
zpty -r shell part '*ready*'
zpty -w shell 'report() { print -r -- "<<$BUFFER>>"; BUFFER=; zle .accept-line }; zle -N report; bindkey "^G" report; echo bou""nd'
zpty -r shell part '*bound*'
asked() {
  zpty -w -n shell "tunnel-client $1"$'\t\a'
  zpty -r shell part '*<<*>>*'
  part=${part##*'<<'}
  print -r -- "$1: ${${part%%'>>'*}#tunnel-client }"
}
asked 'start d'
asked 'http --transport w'
asked 'comp'
asked 'file ./he'
asked 'http --ca he'
asked 'http 3000 --js'
zpty -d shell
`, "-f")
	want := "start d: start db \nhttp --transport w: http --transport websocket \ncomp: completion \nfile ./he: file ./here.pem \n" +
		"http --ca he: http --ca here.pem \nhttp 3000 --js: http 3000 --json \n"
	if got != want {
		t.Errorf("zsh completes\n%swant\n%s", got, want)
	}
}

func TestCompletionCommand(t *testing.T) {
	home(t)
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if code, _, stderr := tells(t, "", args...); code != 2 || !strings.Contains(stderr, "completion takes one of bash, zsh, fish") {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
}
