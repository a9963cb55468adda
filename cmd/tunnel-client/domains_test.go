package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

func TestDomains(t *testing.T) {
	for _, c := range []struct {
		given []string
		want  string // joined; or what the error says
		ok    bool
	}{
		{nil, "", true},
		{[]string{""}, "", true}, // a variable that was not filled in
		{[]string{"app.example.org", "b.example.org"}, "app.example.org b.example.org", true},
		{[]string{" App.Example.ORG. ", "app.example.org"}, "app.example.org", true},
		{[]string{"b\u00fccher.example"}, "xn--bcher-kva.example", true},
		{[]string{"app.example.org", "localhost"}, "--domain", false},
		{[]string{"https://app.example.org"}, "no scheme", false},
		{[]string{"*.example.org"}, "wildcard", false},
		{[]string{"192.0.2.1"}, "address", false},
		{[]string{"app.example.org:443"}, "port", false},
	} {
		got, err := domains(c.given)
		switch {
		case c.ok && (err != nil || strings.Join(got, " ") != c.want):
			t.Errorf("%q: %q, %v", c.given, got, err)
		case !c.ok && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %q, %v", c.given, got, err)
		}
	}
}

// http --domain: the ready event has the URLs, they lead to the app, and who may
// not have the domain is told what to do, with an exit code of its own.
func TestExposeDomains(t *testing.T) {
	home(t)
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("token-of-ann domain=*.example.org\ntoken-of-bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.OpenTokens(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	base := startServer(t, server.Config{Auth: tokens, Resolver: nowhere{}})
	app := startApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "app saw ", r.URL) })
	t.Setenv("TUNNEL_TOKEN", "token-of-ann")
	c := start(t, app, "--server", base, "--name", "demo", "--domain", "A.example.org", "--domain", "b.example.org.")
	ready := c.next("ready")
	port := base[strings.LastIndex(base, ":"):]
	if want := `"urls":["http://a.example.org` + port + `","http://b.example.org` + port + `"]`; !strings.Contains(ready.line, want) {
		t.Errorf("ready is %s, want %s", ready.line, want)
	}
	for _, host := range []string{"a.example.org", "b.example.org"} {
		if got := get(t, base, "http://"+host+port+"/x"); got != "app saw /x" {
			t.Errorf("%s: %q", host, got)
		}
	}
	for _, bad := range []struct {
		token, domain string
		code          int
		says          []string
	}{
		{"token-of-bob", "c.example.org", 3, []string{"forbidden", "_tunnel.c.example.org. TXT", `"token:`}},
		{"token-of-ann", "a.example.org", 4, []string{"name_taken", "a.example.org"}},
		{"token-of-ann", "x.localhost", 2, []string{"--domain"}},
		{"token-of-ann", "example.invalid", 3, []string{"forbidden"}},
		{"token-of-bob", "sick.example.net", 5, []string{"domain_unverified"}},
	} {
		t.Setenv("TUNNEL_TOKEN", bad.token)
		c := start(t, app, "--server", base, "--domain", bad.domain, "--name", "other")
		if code := c.exit(); code != bad.code {
			t.Errorf("%+v: exit code %d", bad, code)
		}
		wantText(t, c.stderr.String(), bad.says...)
	}
}

func TestScrollDomains(t *testing.T) {
	s, b := noonScroll()
	s.change(newChange(t.Context(), tunnel.Event{Type: tunnel.Ready, URL: "https://demo.tunnel.example", URLs: []string{"https://app.example.org"}}, "http://localhost:3000"))
	s.close()
	wantText(t, b.String(), "Forwarding   https://demo.tunnel.example -> http://localhost:3000\nForwarding   https://app.example.org -> http://localhost:3000\n")
}

// nowhere is a resolver that knows no name, and cannot tell of those that are sick.
type nowhere struct{}

func (nowhere) LookupTXT(_ context.Context, name string) ([]string, error) {
	if strings.HasPrefix(name, "_tunnel.sick.") {
		return nil, errors.New("no answer")
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}
