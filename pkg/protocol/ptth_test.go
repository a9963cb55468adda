package protocol

import (
	"slices"
	"strings"
	"testing"
)

func TestParseOrigin(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.example":        "https://a.example",
		"https://a.example:443":    "https://a.example",
		"http://a.example:80":      "http://a.example",
		"http://a.example:443":     "http://a.example:443",
		"HTTPS://A.Example:8443":   "https://a.example:8443",
		"http://localhost:8080":    "http://localhost:8080",
		"https://[::1]:8443":       "https://[::1]:8443",
		"https://xn--bcher-kva.de": "https://xn--bcher-kva.de",
	} {
		got, err := ParseOrigin(in)
		if err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "null", "a.example", "ftp://a.example", "https://", "https://:443", "https://a.example/", "https://a.example/x",
		"https://a.example?x", "https://a.example#x", "https://u@a.example", "https://u:p@a.example", "https://a.example:", "https://a.example:0",
		"https://a.example:65536", "https://a.example:080", "https://a.example:+80", "https://a b", "https://a\x00b", "https://bücher.de", "https://a%2eexample",
		"https://a:b:1", "https://[::1", "https://::1", "https://a,b", `https://a\b`, "https:a.example", "https://" + strings.Repeat("a", 300),
	} {
		if got, err := ParseOrigin(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestParseOrigins(t *testing.T) {
	for path, want := range map[string]string{
		"/.well-known/ptth/https%3A%2F%2Fa.example/":                                     "https://a.example",
		"/.well-known/ptth/https%3a%2f%2fa.example/?x=1":                                 "https://a.example",
		"/.well-known/ptth/https:%2F%2Fa.example/":                                       "https://a.example",
		"/.well-known/ptth/https%3A%2F%2Fa.example,https%3A%2F%2Fb.example%3A8443/":      "https://a.example https://b.example:8443",
		"/.well-known/ptth/https%3A%2F%2Fa.example,https%3A%2F%2FA.example%3A443/":       "https://a.example",
		"/.well-known/ptth/http%3A%2F%2F%61.example/":                                    "http://a.example",
		"/.well-known/ptth/" + strings.Repeat("http%3A%2F%2Fa.b,", 99) + "http:%2F%2Fc/": "http://a.b http://c",
	} {
		origins, err := ParseOrigins(path)
		var got []string
		for _, o := range origins {
			got = append(got, o.String())
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, %v, want %s", path, got, err, want)
		}
	}
	for _, path := range []string{
		"/.well-known/ptth/", "/.well-known/ptth//", "/.well-known/ptth", "/.well-known/ptth/null/", "/.well-known/ptth/https%3A%2F%2Fa.example",
		"/.well-known/ptth/https://a.example/", "/.well-known/ptth/https%3A%2F%2Fa.example,/", "/.well-known/ptth/,/",
		"/.well-known/ptth/https%3A%2F%2Fa.example,null/", "/.well-known/ptth/https%3A%2F%2Fa.example%2Chttps%3A%2F%2Fb.example/",
		"/.well-known/ptth/https%253A%252F%252Fa.example/", "/.well-known/ptth/https%3A%2F%2Fa.example%00/", "/.well-known/ptth/https%3A%2F%2Fa.example%/",
		"/.well-known/ptth/https%3A%2F%2Fa.example%2F/", "/.well-known/ptth/" + strings.Repeat("http%3A%2F%2Fa.b,", 100) + "http:%2F%2Fc/",
		"/.well-known/ptth/../https%3A%2F%2Fa.example/", "https%3A%2F%2Fa.example/",
	} {
		if got, err := ParseOrigins(path); err == nil {
			t.Errorf("%.100s: got %v, want an error", path, got)
		}
	}
}

func TestALPN(t *testing.T) {
	if got := FormatALPN(ALPNHTTP2, ALPNHTTP1); got != "h2, http%2F1.1" {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct {
		in   []string
		want []string
	}{
		{[]string{"h2, http%2F1.1"}, []string{"h2", "http/1.1"}},
		{[]string{"http/1.1"}, []string{"http/1.1"}},
		{[]string{"h2", " http%2f1.1 ,, "}, []string{"h2", "http/1.1"}},
		{[]string{"%c6%96"}, []string{"\xc6\x96"}},
		{nil, nil}, {[]string{" ,"}, nil}, {[]string{"h2%"}, nil}, {[]string{strings.Repeat("h", 256)}, nil},
	} {
		got, err := ParseALPN(c.in)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

// Whatever is listed, what was read writes itself so that it reads the same.
func FuzzParseOrigins(f *testing.F) {
	f.Add("/.well-known/ptth/https%3A%2F%2Fa.example,https%3A%2F%2Fb.example%3A8443/")
	f.Add("/.well-known/ptth/http%3A%2F%2F%5B::1%5D/")
	f.Add("/.well-known/ptth/null/")
	f.Fuzz(func(t *testing.T, path string) {
		origins, err := ParseOrigins(path)
		if err != nil {
			return
		}
		if len(origins) == 0 || len(origins) > MaxOrigins {
			t.Fatalf("%q: %d origins", path, len(origins))
		}
		again, err := ParseOrigins(PTTHPath(origins))
		if err != nil || !slices.Equal(again, origins) {
			t.Fatalf("%q: got %v, and again %v, %v", path, origins, again, err)
		}
	})
}
