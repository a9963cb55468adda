package main

import (
	"os"
	"strings"
	"testing"
)

func TestObjection(t *testing.T) {
	table := mustParse(t)
	tests := []struct{ from, to, want string }{
		{"internal/edge", "internal/registry", ""},
		{"internal/edge", "internal/proxy", ""},
		{"cmd/tunnel-server", "internal/cluster", ""},
		{"cmd/tunnel-client", "pkg/tunnel", ""},
		{"pkg/tunnel", "internal/transport", ""},
		{"internal/forward", "internal/proxy", ""},
		{"e2e", "internal/server", ""},
		{"e2e/parts", "e2e", ""},
		{"scripts/soak", "internal/rig", ""},
		{"scripts/chaos", "pkg/tunnel", ""},
		{"examples/sdk", "pkg/tunnel", ""},

		{"internal/edge", "internal/server", "imports go down"},
		{"internal/edge", "internal/cluster", "imports go down"},
		{"internal/proxy", "pkg/protocol", "imports go down"},
		{"pkg/tunnel", "internal/registry", "the client side does not import the server side"},
		{"pkg/tunnel", "internal/policy", "the client side does not import the server side"},
		{"internal/inspect", "internal/auth", "the client side does not import the server side"},
		{"cmd/tunnel-client", "internal/server", "the client side does not import the server side"},
		{"cmd/tunnel-server", "pkg/tunnel", "the server side does not import the client side"},
		{"internal/edge", "internal/forward", "the server side does not import the client side"},
		{"internal/transport", "internal/auth", "what both sides share"},
		{"internal/server", "internal/cluster", "the table says never"},
		{"examples/yamux-client", "pkg/mux", "imports nothing of this module"},
		{"examples/demo", "pkg/tunnel", "imports nothing of this module"},
		{"scripts/layers", "pkg/mux", "imports nothing of this module"},
		{"examples/sdk", "internal/forward", "only what others may import"},
		{"cmd/tunnel-client", "examples/demo", "nothing imports"},
		{"internal/edge", "e2e", "nothing imports"},
		{"internal/edge", "internal/rig", "nothing imports"},
		{"scripts/chaos", "internal/edge", "only what others may import"},
	}
	for _, tt := range tests {
		got := table.objection(tt.from, tt.to)
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s imports %s: %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
}

func TestFind(t *testing.T) {
	table := mustParse(t)
	for dir, want := range map[string]bool{
		"internal/edge": true, "e2e": true, "e2e/a/b": true, "examples/new": true,
		"internal/edge/deep": false, "internal/util": false, ".": false, "e2efoo": false,
	} {
		if _, ok := table.find(dir); ok != want {
			t.Errorf("find(%q) = %v, want %v", dir, ok, want)
		}
	}
}

func TestParseTableRefuses(t *testing.T) {
	for _, text := range []string{
		"L0 | a | b",
		"L0 | a | b | a",
		"layers | a",
		"never | a",
		"nothing | a | b",
	} {
		if _, err := parseTable(text); err == nil {
			t.Errorf("parseTable(%q) gives no error", text)
		}
	}
}

func TestContributingShowsTheTable(t *testing.T) {
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(tableText) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && !strings.Contains(string(text), line+"\n") {
			t.Errorf("CONTRIBUTING.md lacks the table's line %q", line)
		}
	}
}

func mustParse(t *testing.T) *table {
	t.Helper()
	table, err := parseTable(tableText)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
