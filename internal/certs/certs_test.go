package certs

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// FuzzServerName says that a name that passes is one that a URL, a path and a
// record take for the same name, and that it has one spelling.
func FuzzServerName(f *testing.F) {
	for _, name := range []string{"", ".", "a", "Demo.example.org.", "a..b", "../x", "*.a", "a b", "xn--e1afmkfd", "-a", "1.2.3.4", "a\x00b", "İ", "ſ.test"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, sni string) {
		name, err := serverName(sni, "own.test")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x1b") {
				t.Errorf("the error has raw bytes: %q", err)
			}
			return
		}
		if again, err := serverName(name+".", ""); err != nil || again != name {
			t.Errorf("%q becomes %q, and that %q (%v)", sni, name, again, err)
		}
		if sni != "" && sni != "." && !strings.EqualFold(name, strings.TrimSuffix(sni, ".")) {
			t.Errorf("%q becomes %q", sni, name)
		}
		if u, err := url.Parse("https://" + name + "/"); err != nil || u.Hostname() != name {
			t.Errorf("%q is another host in a URL: %v", name, err)
		}
		if path.Join("/storage", name) != "/storage/"+name {
			t.Errorf("%q is another path", name)
		}
	})
}
