package edge

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/policy"
)

func TestByPath(t *testing.T) {
	for target, want := range map[string]struct {
		name, target string
		bare         bool
	}{
		"/demo/":          {"demo", "/", false},
		"/demo/a/b?c=/d":  {"demo", "/a/b?c=/d", false},
		"/demo//a":        {"demo", "//a", false},
		"/demo/?x":        {"demo", "/?x", false},
		"/demo/%2F..;a":   {"demo", "/%2F..;a", false},
		"/demo":           {"demo", "/", true},
		"/demo?x=/y":      {"demo", "/?x=/y", true},
		"/demo/healthz":   {"demo", "/healthz", false},
		"/xn--bcher-kva/": {"xn--bcher-kva", "/", false},
	} {
		v := &visit{target: target}
		name, bare := byPath(v)
		if name != want.name || v.target != want.target || bare != want.bare || v.prefix != "/"+want.name {
			t.Errorf("%q: %q, %v, %+v", target, name, bare, v)
		}
	}
	for _, target := range []string{
		"/", "*", "", "/?demo/", "//", "//demo/", "/./demo/", "/../demo/", "/%64emo/", "/demo%2Fx", "/demo%2f", "/demo;x/", "/demo\\x", "/demo%00/", "/Demo/", "/DEMO",
		"/healthz", "/healthz/", "/readyz", "/readyz/x", "/.well-known/", "/.well-known/tunnel", "/.well-known/tunnel/demo/", "/favicon.ico", "/-demo/", "/de_mo/", "/demo#/", "/demo /", "demo/", "/ab--c/",
	} {
		v := &visit{target: target}
		if name, bare := byPath(v); name != "" || bare || v.prefix != "" || v.target != target {
			t.Errorf("%q: %q, %v, %+v", target, name, bare, v)
		}
	}
}

func TestClimbs(t *testing.T) {
	for target, want := range map[string]bool{
		"/": false, "/a/../b": false, "/a/b/../..": false, "/a/%2e%2E/": false, "/...": false, "/a?../../..": false, "/%41": false, "/..a": false, "//": false, "/a%2F..": false,
		"/..": true, "/../": true, "/../other": true, "/a/../../other": true, "/%2e%2e/other": true, "/.%2E/other": true, "/..%2Fother": true, `/..\other`: true, "/..%5cother": true,
		"//../other": true, "/a//../../other": true, "/./../other": true, "/..;x=1/other": true, "/..%3Bx/other": true, "/a/..;/..;/other": true,
		// A name with a separator that not all take for one.
		`/a\b/../../other`: true, "/a%2Fb/../../other": true, "/a%5Cb/../..": true, `/a\b%2F../..`: true, `/a\b/..`: false, `/a\..`: false, `/..\a`: true, `/a/..;x\y/..`: true,
	} {
		if got := climbs(target); got != want {
			t.Errorf("%q: %v", target, got)
		}
	}
}

// FuzzPath holds that whatever a visitor asks of a name, no way to read its path
// leads to another name's.
func FuzzPath(f *testing.F) {
	for _, target := range []string{"/demo/a", "/demo/../other/", "/demo/%2e%2e/x", "/demo//..;/x", "/demo", "//demo", `/demo/..\x`, "/demo/a?/../..", "/demo/%2F../..", "/healthz"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		v := &visit{target: target}
		name, _ := byPath(v)
		if name == "" || climbs(v.target) {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		readings := []string{path, strings.ReplaceAll(path, `\`, "/")}
		if decoded, err := url.PathUnescape(path); err == nil {
			readings = append(readings, decoded, strings.ReplaceAll(decoded, `\`, "/"))
		}
		for _, reading := range readings {
			u, err := url.Parse("http://example.com")
			if err != nil {
				t.Fatal(err)
			}
			for _, merged := range []string{reading, merge(reading), parameters(reading), merge(parameters(reading))} {
				got := u.ResolveReference(&url.URL{Path: merged}).Path
				if got != "/"+name && !strings.HasPrefix(got, "/"+name+"/") {
					t.Errorf("%q went to %s, and is %s read as %q", target, name, got, merged)
				}
			}
		}
	})
}

// merge makes many slashes one.
func merge(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// parameters takes them off each segment.
func parameters(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// What the visitor says of the name's paths is for the local app, and what the app
// says is for the visitor.
func TestRewritePaths(t *testing.T) {
	local := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	for _, c := range []struct {
		policy   *policy.Policy
		in, want string
	}{
		{local, "https://tunnel.test/demo/a?b#c", "http://localhost:3000/a?b#c"},
		{local, "https://tunnel.test/demo", "http://localhost:3000/"},
		{local, "https://tunnel.test/demo?x", "http://localhost:3000/?x"},
		{nil, "https://tunnel.test/demo/a", "https://tunnel.test/a"},
		// Another name's page is a foreign one.
		{local, "https://tunnel.test/other/a", "https://tunnel.test/other/a"},
		{local, "https://tunnel.test/demos/a", "https://tunnel.test/demos/a"},
		{local, "https://tunnel.test/", "https://tunnel.test/"},
		{local, "https://demo.tunnel.test/demo/a", "https://demo.tunnel.test/demo/a"},
		{nil, "https://tunnel.test/other/a", "https://tunnel.test/other/a"},
	} {
		for _, name := range []string{"Referer", "Destination"} {
			out := &http.Request{Header: http.Header{name: {c.in}}}
			rewriteRequest(out, &visit{scheme: "https", host: "tunnel.test", prefix: "/demo"}, c.policy)
			if got := out.Header.Get(name); got != c.want {
				t.Errorf("%s %q became %q, want %q", name, c.in, got, c.want)
			}
		}
	}
	for in, want := range map[string]string{"/demo/a%2Fb": "/a%2Fb", "/demo": "/", "/other/a": "/other/a", "/demos": "/demos", "//tunnel.test/demo/": "//tunnel.test/demo/", "a": "a"} {
		out := &http.Request{Header: http.Header{"Destination": {in}, "Origin": {"https://tunnel.test"}}}
		rewriteRequest(out, &visit{scheme: "http", host: "tunnel.test:80", prefix: "/demo"}, local)
		if got := out.Header.Get("Destination"); got != want && !strings.HasPrefix(in, "//") {
			t.Errorf("Destination %q became %q, want %q", in, got, want)
		}
	}
	out := &http.Request{Header: http.Header{"Origin": {"https://tunnel.test"}}}
	rewriteRequest(out, &visit{scheme: "https", host: "tunnel.test", prefix: "/demo"}, local)
	if got := out.Header.Get("Origin"); got != "http://localhost:3000" || out.Host != "localhost:3000" {
		t.Errorf("Origin is %q and Host %q", got, out.Host)
	}
}

func TestPrefixResponse(t *testing.T) {
	local := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	for _, c := range []struct {
		policy   *policy.Policy
		in, want string
	}{
		{local, "/", "/demo/"},
		{local, "/login?to=/x", "/demo/login?to=/x"},
		{local, "/demos", "/demo/demos"},
		{local, "http://localhost:3000/login", "https://tunnel.test/demo/login"},
		{local, "http://localhost:3000", "https://tunnel.test/demo/"},
		{local, "http://localhost:3000?x", "https://tunnel.test/demo/?x"},
		{local, "//localhost:3000/x", "https://tunnel.test/demo/x"},
		{nil, "/login", "/demo/login"},
		{nil, "https://tunnel.test/login", "https://tunnel.test/demo/login"}, // of X-Forwarded-Host
		// The app was told the prefix, and used it.
		{local, "/demo/login", "/demo/login"},
		{local, "/demo", "/demo"},
		{nil, "https://tunnel.test/demo/login", "https://tunnel.test/demo/login"},

		{local, "login", "login"},
		{local, "?x", "?x"},
		{local, "#x", "#x"},
		{local, "", ""},
		{local, "../x", "../x"},
		{local, "https://elsewhere.test/x", "https://elsewhere.test/x"},
		{local, "//elsewhere.test/x", "//elsewhere.test/x"},
		{local, `/\elsewhere.test/x`, `/\elsewhere.test/x`},
		{local, "https://other.tunnel.test/x", "https://other.tunnel.test/x"},
		{local, "mailto:a@b.test", "mailto:a@b.test"},
	} {
		refresh := "5; url=" + c.in
		res := &http.Response{Header: http.Header{"Location": {c.in}, "Content-Location": {c.in}, "Refresh": {refresh}}}
		rewriteResponse(res, &http.Request{Header: http.Header{}}, &visit{scheme: "https", host: "tunnel.test", prefix: "/demo"}, c.policy)
		for _, name := range []string{"Location", "Content-Location"} {
			if got := res.Header.Get(name); got != c.want {
				t.Errorf("%s %q became %q, want %q", name, c.in, got, c.want)
			}
		}
		if got := res.Header.Get("Refresh"); c.policy == nil && got != "5; url="+c.want {
			t.Errorf("Refresh %q became %q", refresh, got)
		}
	}
	res := &http.Response{Header: http.Header{
		"Refresh": {"3"}, "Service-Worker-Allowed": {"/"}, "Clear-Site-Data": {`"*"`}, "Strict-Transport-Security": {"max-age=1"}, "Alt-Svc": {"h3"}, "Nel": {"{}"}, "Report-To": {"{}"},
		"Etag": {"x"},
	}}
	rewriteResponse(res, &http.Request{Header: http.Header{}}, &visit{scheme: "https", host: "tunnel.test", prefix: "/demo"}, nil)
	if want := (http.Header{"Refresh": {"3"}, "Service-Worker-Allowed": {"/demo/"}, "Etag": {"x"}}); !equalHeader(res.Header, want) {
		t.Errorf("%v, want %v", res.Header, want)
	}
}

// S20: no tenant answers for the others by a service worker.
func TestConfineWorker(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/demo/", "/app/": "/demo/app/", "/demo/": "/demo/", "/demo/x": "/demo/x", "": "/demo/",
		"/..": "", "/demo/..": "", "/demo/../": "", "../": "", "/%2e%2e/": "", "/.\t./": "", "/demo/.\t./": "", "/..%2f": "", `/..\`: "",
		"https://tunnel.test/": "/demo/https://tunnel.test/", // a path of its own
	} {
		header := http.Header{"Service-Worker-Allowed": {in}}
		confineWorker(header, "/demo")
		if got := header.Get("Service-Worker-Allowed"); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func equalHeader(a, b http.Header) bool {
	for name, values := range a {
		if !slices.Equal(values, b[name]) {
			return false
		}
	}
	return len(a) == len(b)
}

// S20: a cookie is for its own name's paths, and its own host.
func TestConfinePath(t *testing.T) {
	for in, want := range map[string]string{
		"a=b":                                     "a=b",
		"a=b; Path=/":                             "a=b; Path=/demo/",
		"a=b; Path=/app; HttpOnly":                "a=b; HttpOnly; Path=/demo/app",
		"a=b;path = /other ;Secure":               "a=b;Secure; Path=/demo/other",
		"a=b; Path=/demo/x":                       "a=b; Path=/demo/x",
		"a=b; Path=/demo":                         "a=b; Path=/demo/",
		"a=b; Path=/demos":                        "a=b; Path=/demo/demos",
		"a=b; Path=/demo?x":                       "a=b; Path=/demo?x",
		"a=b; Path=/demo/; Path=/":                "a=b; Path=/demo/",
		"a=b; Path=/; Path=/demo/x":               "a=b; Path=/demo/x",
		"a=b; Path=/../other":                     "a=b; Path=/demo/",
		"a=b; Path=/demo/../other":                "a=b; Path=/demo/",
		"a=b; Path=/a/../b":                       "a=b; Path=/demo/a/../b",
		"a=b; Path=":                              "a=b",
		"a=b; Path":                               "a=b",
		"a=b; Path=other":                         "a=b",
		"a=b; Domain=tunnel.test; Path=/; Secure": "a=b; Secure; Path=/demo/",
		"a=b; Domain=demo.tunnel.test":            "a=b",
		"Path=/":                                  "Path=/",
		"a=Path=/; b":                             "a=Path=/; b",
	} {
		if got := confinePath(in, "/demo"); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// FuzzConfinePath lets a local app set any cookie: a browser sends it to nobody
// else.
func FuzzConfinePath(f *testing.F) {
	for _, cookie := range []string{"a=b; Path=/", "a=b;PATH=/other", "a=b; Path=/demo/../other", "a=b; Path=/demo; Path=/; Domain=x", "Path=/", "a=b; path\t=\t/", "a=b; ;;Path=/;"} {
		f.Add(cookie)
	}
	f.Fuzz(func(t *testing.T, cookie string) {
		got := confinePath(cookie, "/demo")
		path := "" // RFC 6265, section 5.2
		for _, part := range strings.Split(got, ";")[1:] {
			name, value, _ := strings.Cut(part, "=")
			name, value = strings.ToLower(strings.Trim(name, " \t")), strings.Trim(value, " \t")
			switch name {
			case "domain":
				t.Errorf("%q became %q", cookie, got)
			case "path":
				path = value
			}
		}
		if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/demo/") && !strings.HasPrefix(path, "/demo?") && !strings.HasPrefix(path, "/demo#") {
			t.Errorf("%q became %q", cookie, got)
		}
		if a, b := strings.Split(cookie, ";")[0], strings.Split(got, ";")[0]; a != b {
			t.Errorf("%q became %q", cookie, got)
		}
	})
}
