package edge

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/policy"
)

// FuzzLocation holds the rewriting of URLs, in both directions, to net/url: what is
// changed named the one origin and now names the other, with the same path; all else
// stays as it was.
func FuzzLocation(f *testing.F) {
	for _, value := range []string{
		"http://localhost:3000/x?y#z", "https://localhost:3000", "//LOCALHOST:3000?x", "/relative", "http://localhost:30000/", "http://localhost:3000@evil/", "http://localhost:3000\\@evil/",
		"https://demo.example.com/a", "https://demo.example.com:443/a", "http://demo.example.com/", "HTTPS://Demo.Example.Com", "https://demo.example.com.evil/", "null", "", "javascript:alert(1)", "http:////localhost:3000",
	} {
		f.Add(value)
	}
	v := &visit{scheme: "https", host: "demo.example.com"}
	p := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	f.Fuzz(func(t *testing.T, value string) {
		res := &http.Response{Header: http.Header{"Location": {value}}}
		rewriteResponse(res, &http.Request{Header: http.Header{}}, v, p)
		public := res.Header.Get("Location")
		checkRewritten(t, value, public, "localhost:3000", "https://demo.example.com")

		out := &http.Request{Header: http.Header{"Referer": {value}}}
		rewriteRequest(out, v, p)
		local := out.Header.Get("Referer")
		checkRewritten(t, value, local, "demo.example.com", "http://localhost:3000")
		if rest, ok := strings.CutPrefix(value, "https://demo.example.com/"); ok && local != "http://localhost:3000/"+rest {
			t.Errorf("%q came to the app as %q", value, local)
		}
		// And back: what was public is again.
		back := &http.Response{Header: http.Header{"Location": {local}}}
		rewriteResponse(back, &http.Request{Header: http.Header{}}, v, p)
		if got := back.Header.Get("Location"); local != value && !strings.HasSuffix(value, strings.TrimPrefix(got, "https://demo.example.com")) {
			t.Errorf("%q became %q, and %q on the way back", value, local, got)
		}
	})
}

// checkRewritten compares a URL before and after.
func checkRewritten(t *testing.T, before, after, from, to string) {
	t.Helper()
	u, err := url.Parse(before)
	if before == after {
		named := err == nil && u.User == nil && u.Opaque == "" && strings.EqualFold(u.Host, from)
		if named && strings.HasPrefix(strings.ToLower(before), "http://"+from+"/") && to[:5] == "https" {
			t.Errorf("%q stays", before)
		}
		return
	}
	rest, ok := strings.CutPrefix(after, to)
	if !ok || !strings.HasSuffix(before, rest) || rest != "" && !strings.ContainsRune("/?#", rune(rest[0])) {
		t.Fatalf("%q became %q", before, after)
	}
	if err != nil {
		return // of no use to anyone, before and after
	}
	host, _, _ := strings.Cut(from, ":")
	if !strings.EqualFold(u.Host, from) && !strings.EqualFold(u.Hostname(), host) || u.User != nil {
		t.Errorf("%q became %q, and did not name %s", before, after, from)
	}
}

// FuzzCookie lets a local app set any cookie: with the edge's changes it is not for
// other tenants (S20), and is otherwise the cookie that it was.
func FuzzCookie(f *testing.F) {
	for _, cookie := range []string{
		"a=b", "a=b; Path=/; HttpOnly", "a=b; Domain=example.com", "a=b;domain=.EXAMPLE.com;Secure", "a=b; Domain=demo.example.com", "a=b; Domain=localhost; Path=/x", "a=b; Domain=.com",
		"a=b; Domain=%65xample.com", "a=b; Domain=\"example.com\"", "a=b; Domain=example.com; Domain=demo.example.com", "a=b; Domain = example.com.", "a; ; =;Domain", "Domain=example.com", "a=b; Domain=\u0435xample.com", "",
	} {
		f.Add(cookie)
	}
	h := &HTTP{Domain: "example.com"}
	v := &visit{scheme: "https", host: "demo.example.com:8443"}
	p := &policy.Policy{Scheme: "http", Host: "localhost:3000"}
	f.Fuzz(func(t *testing.T, cookie string) {
		res := &http.Response{Header: http.Header{"Set-Cookie": {cookie}}}
		rewriteResponse(res, &http.Request{Header: http.Header{}}, v, p)
		h.confineCookies(res.Header)
		got := res.Header.Get("Set-Cookie")
		before, after := attributes(cookie), attributes(got)
		if before[0] != after[0] {
			t.Fatalf("%q became %q", cookie, got)
		}
		for _, one := range after[1:] {
			name, value, _ := strings.Cut(one, "=")
			if strings.EqualFold(strings.TrimSpace(name), "Domain") {
				checkDomain(t, cookie, got, value)
			} else if !slices.Contains(before, one) {
				t.Fatalf("%q became %q", cookie, got)
			}
		}
		isDomain := func(one string) bool {
			name, _, _ := strings.Cut(one, "=")
			return strings.EqualFold(strings.TrimSpace(name), "Domain")
		}
		if b, a := slices.DeleteFunc(before[1:], isDomain), slices.DeleteFunc(after[1:], isDomain); !slices.Equal(a, b) {
			t.Errorf("%q became %q", cookie, got)
		}
		if parsed, err := http.ParseSetCookie(got); err == nil && parsed.Domain != "" {
			checkDomain(t, cookie, got, parsed.Domain)
		}
	})
}

// attributes are the parts of a Set-Cookie (RFC 6265, section 5.2), the pair first.
func attributes(cookie string) []string { return strings.Split(cookie, ";") }

// checkDomain fails where a browser may send the cookie to other tenants.
func checkDomain(t *testing.T, cookie, got, domain string) {
	t.Helper()
	domain = strings.Trim(strings.ToLower(strings.TrimSpace(domain)), ".")
	if domain == "example.com" || domain != "" && strings.HasSuffix("example.com", "."+domain) {
		t.Errorf("%q became %q, which is for all of %s", cookie, got, domain)
	}
}
