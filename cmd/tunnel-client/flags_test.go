package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/protocol"
)

func TestFlagsFirst(t *testing.T) {
	for _, tt := range []struct{ given, want string }{
		{"http 3000 --name demo", "http --name demo -- 3000"},
		{"http --name demo 3000", "http --name demo -- 3000"},
		{"http --json 3000 -name demo --retry", "http --json -name demo --retry -- 3000"},
		{"http 3000 --name=demo 4000", "http --name=demo -- 3000 4000"},
		{"http 3000 --json=false --grace 5s", "http --json=false --grace 5s -- 3000"},
		{"http --name demo -- --odd 3000", "http --name demo -- --odd 3000"},
		{"http 3000 --json --help", "http --help"},
		{"http 3000 --name --help", "http --name --help -- 3000"},
		{"http 3000 --unknown 4000", "http --unknown -- 3000 4000"},
		{"http 3000 --json --name", "http --json --name"},
		{"http -", "http -- -"},
		{"http", "http --"},
		{"exec --target 3000 sh -c x --name y", "exec --target 3000 sh -c x --name y"},
		{"--version", "--version"},
		{"--name http 3000", "--name http -- 3000"},
		{"version --json x", "version --json x"},
		{"", ""},
	} {
		given := append([]string{"tunnel-client"}, strings.Fields(tt.given)...)
		want := append([]string{"tunnel-client"}, strings.Fields(tt.want)...)
		if got := flagsFirst(given); !slices.Equal(got, want) {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}

func TestEachFlagHasAVariable(t *testing.T) {
	for _, f := range execFlags() { // which has http's
		name := f.Names()[0]
		want := "TUNNEL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if vars := f.(cli.DocGenerationFlag).GetEnvVars(); len(vars) != 1 || vars[0] != want {
			t.Errorf("--%s has %v, want %s", name, vars, want)
		}
		if strings.HasSuffix(name, "token") {
			t.Errorf("--%s would show a token in the list of processes", name)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "demo.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true,
		"::ffff:127.0.0.1": true, "tunnel.example": false, "10.0.0.1": false, "notlocalhost": false, "": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestUpstream(t *testing.T) {
	for _, tt := range []struct{ value, target, want string }{
		{"rewrite", "3000", "http localhost:3000"},
		{"rewrite", "https://app.test", "https app.test"},
		{"rewrite", "h2c://app.test:50051", "http app.test:50051"},
		{"rewrite", "unix:/run/app.sock", "http localhost"},
		{"preserve", "3000", "nil"},
		{"app.test:8000", "https://localhost:3000", "https app.test:8000"},
		{"[::1]:80", "3000", "http [::1]:80"},
		{"http://app.test", "3000", "error"},
		{"app.test/path", "3000", "error"},
		{"user@app.test", "3000", "error"},
		{"app test", "3000", "error"},
		{"app.test\x1b[2J", "3000", "error"},
		{":80", "3000", "error"},
		{strings.Repeat("a", 256), "3000", "error"},
	} {
		to, err := target(protocol.KindHTTP, []string{tt.target})
		if err != nil {
			t.Fatal(err)
		}
		u, err := upstream(tt.value, to)
		got := "nil"
		switch {
		case err != nil:
			got = "error"
		case u != nil:
			got = u.Scheme + " " + u.Host
		}
		if got != tt.want {
			t.Errorf("%q for %s: %s, want %s", tt.value, tt.target, got, tt.want)
		}
	}
}
