package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands in docs/reliability.md name tests, scripts and packages that exist.
func TestReliabilityNamesWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("`[^`]*go test [^`]*-run '?([A-Za-z0-9_|\\\\]+)'? (?:-v )?\\./([a-z0-9/-]+)`").FindAllStringSubmatch(string(text), -1)
	if want := strings.Count(string(text), "go test "); len(commands) != want {
		t.Errorf("%d of %d commands with go test can be read", len(commands), want)
	}
	for _, c := range commands {
		tests := testsIn(t, c[2])
		for name := range strings.SplitSeq(strings.ReplaceAll(c[1], `\|`, "|"), "|") {
			if !strings.Contains(tests, "\nfunc "+name) {
				t.Errorf("%s has no test whose name begins with %s", c[2], name)
			}
		}
	}
	for _, script := range regexp.MustCompile(`scripts/[a-z]+\.sh`).FindAllString(string(text), -1) {
		if _, err := os.Stat("../../" + script); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(string(text), "@@") {
		t.Error("a figure is missing")
	}
}

// testsIn is the text of all tests of a package.
func testsIn(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob("../../" + dir + "/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
