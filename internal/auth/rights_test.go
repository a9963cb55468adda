package auth

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

func rightsOf(t *testing.T, content, token string) Rights {
	t.Helper()
	tokens := open(t, tokenFile(t, content))
	return tokens.Rights(wantIn(t, tokens, token))
}

// A token alone may claim each name and nothing else, as it always could.
func TestRightsInFile(t *testing.T) {
	every := []string{"*"}
	for line, want := range map[string]Rights{
		"":                        {Names: every},
		"  \t":                    {Names: every},
		" domain=app.example.org": {Names: every, Domains: []string{"app.example.org"}},
		"\tname=demo,pr-* ":       {Names: []string{"demo", "pr-*"}},
		" domain=*.example.org,b.example.org name=*-x": {Names: []string{"*-x"}, Domains: []string{"*.example.org", "b.example.org"}},
	} {
		// What stands in other lines is not this one's.
		content := beta + " domain=beta.example.org name=beta\n" + alpha + line + "\n"
		if got := rightsOf(t, content, alpha); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func TestRightsMatch(t *testing.T) {
	for _, c := range []struct {
		rights    Rights
		yes, no   []string // names
		mine, not []string // domains
	}{
		{Rights{}, nil, []string{"", "demo"}, nil, []string{"", "example.org", "app.example.org"}},
		{Rights{Names: []string{"*"}}, []string{"demo", "a"}, nil, nil, []string{"demo", "app.example.org", "*"}},
		{
			Rights{Names: []string{"demo", "pr-*"}},
			[]string{"demo", "pr-1", "pr-x-y"}, []string{"demo2", "demo-", "xpr-1", "pr", "*", "pr-a/b"}, nil, []string{"demo.example.org"},
		},
		{
			Rights{Domains: []string{"app.example.org", "*.example.net"}},
			nil, []string{"app", "demo"},
			[]string{"app.example.org", "a.example.net", "b.example.net"},
			[]string{"example.org", "b.example.org", "x.app.example.org", "app.example.org.", "APP.example.org", "example.net", ".example.net", "a.b.example.net", "aexample.net", "*.example.org", "app.example.org.evil.test"},
		},
	} {
		for want, names := range map[bool][]string{true: c.yes, false: c.no} {
			for _, name := range names {
				if c.rights.Name(name) != want {
					t.Errorf("%+v: name %q: %v", c.rights, name, !want)
				}
			}
		}
		for want, domains := range map[bool][]string{true: c.mine, false: c.not} {
			for _, domain := range domains {
				if c.rights.Domain(domain) != want {
					t.Errorf("%+v: domain %q: %v", c.rights, domain, !want)
				}
			}
		}
	}
}

// Rights change with the file, end with the token, and outlive a slip of the
// editor no better and no worse than the token does.
func TestRightsFollowTheFile(t *testing.T) {
	path := tokenFile(t, alpha+" domain=app.example.org\n")
	tokens := open(t, path)
	a := wantIn(t, tokens, alpha)
	step := func(content string, app, other bool) {
		t.Helper()
		write(t, path, content)
		r := tokens.Rights(a)
		if r.Domain("app.example.org") != app || r.Domain("other.example.org") != other {
			t.Errorf("after %q: %+v", content, r)
		}
	}
	step(alpha+" domain=other.example.org\n", false, true)
	step(alpha+" domain=Broken\n", false, true)
	step(alpha+"\n", false, false)
	step(beta+" domain=app.example.org\n", false, false)
	if r := tokens.Rights(a); r.Name("demo") {
		t.Errorf("a token that was taken away may claim: %+v", r)
	}
	if r := tokens.Rights(Identity{}); r.Name("demo") {
		t.Errorf("nobody may claim: %+v", r)
	}
}

// Who watches the file hears of rights that changed, too.
func TestRunTellsOfRights(t *testing.T) {
	path := tokenFile(t, alpha+" domain=app.example.org\n")
	synctest.Test(t, func(t *testing.T) {
		tokens := open(t, path)
		calls := watch(t, tokens)
		write(t, path, alpha+"\n")
		time.Sleep(2*pollEvery + time.Millisecond)
		synctest.Wait()
		if got := calls(); got != 1 {
			t.Errorf("changed was called %d times, want once", got)
		}
	})
}

func TestAnonymousRights(t *testing.T) {
	for _, token := range []string{alpha, ""} {
		r := Anonymous{}.Rights(wantIn(t, Anonymous{}, token))
		if !r.Name("demo") || r.Domain("app.example.org") {
			t.Errorf("%+v", r)
		}
	}
	if r := (Anonymous{}).Rights(Identity{}); r.Name("demo") {
		t.Errorf("nobody: %+v", r)
	}
}
