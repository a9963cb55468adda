package edge

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

// FuzzHideCookie: whatever a visitor's cookies look like, the app finds all of them but
// ours.
func FuzzHideCookie(f *testing.F) {
	for _, seed := range []string{
		"a=b; tunnel-share=x; c=d", "tunnel-share=x", "tunnel-share=x; tunnel-share=y", "a=tunnel-share", `a="; tunnel-share=x"; b=c`,
		"tunnel-share2=x;tunnel-share=y;a", " tunnel-share =x", ";;tunnel-share", "Tunnel-Share=x",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		before := http.Header{"Cookie": {first, second}}
		after := before.Clone()
		hideCookie(after)
		var want []string
		for _, c := range (&http.Request{Header: before}).Cookies() {
			if c.Name != protocol.LinkName {
				want = append(want, c.String())
			}
		}
		var got []string
		for _, c := range (&http.Request{Header: after}).Cookies() {
			got = append(got, c.String())
		}
		if !slices.Equal(got, want) || strings.Join(before["Cookie"], "|") != first+"|"+second {
			t.Errorf("%q, %q: the app finds %q, want %q", first, second, got, want)
		}
	})
}

// FuzzCutToken: a target without the token is as it was but for that, and leads to the same
// path with the other parameters.
func FuzzCutToken(f *testing.F) {
	for _, seed := range []string{
		"/", "/?tunnel-share=x", "/?a&tunnel-share=x&b", "/?tunnel-share=x&tunnel-share=y", "/tunnel-share=x?y", "/?a=tunnel-share=x", "/?%74unnel-share=x",
		"*", "/??tunnel-share=x", "/?&tunnel-share=", "//evil.example/?tunnel-share=x&a=1", "/?a;tunnel-share=x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		clean, token := cutToken(target)
		again, none := cutToken(clean)
		if again != clean || none != "" {
			t.Errorf("%q: %q still has a token", target, clean)
		}
		before, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		after, err := url.ParseRequestURI(clean)
		if err != nil || after.Path != before.Path || after.Host != before.Host {
			t.Fatalf("%q became %q: %v", target, clean, err)
		}
		if token == "" && !strings.Contains(target, protocol.LinkName) && clean != target {
			t.Errorf("%q became %q", target, clean)
		}
		for part := range strings.SplitSeq(before.RawQuery, "&") {
			kept := slices.Contains(strings.Split(after.RawQuery, "&"), part)
			if ours := strings.HasPrefix(part, protocol.LinkName+"="); kept == ours {
				t.Errorf("%q became %q: %q is kept: %v", target, clean, part, kept)
			}
		}
	})
}
