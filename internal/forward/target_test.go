package forward

import (
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Target
	}{
		{"3000", Target{"http", "tcp", "localhost:3000", "localhost:3000"}},
		{"80", Target{"http", "tcp", "localhost:80", "localhost"}},
		{"65535", Target{"http", "tcp", "localhost:65535", "localhost:65535"}},
		{"127.0.0.1:3000", Target{"http", "tcp", "127.0.0.1:3000", "127.0.0.1:3000"}},
		{"app.test:80", Target{"http", "tcp", "app.test:80", "app.test"}},
		{"[::1]:3000", Target{"http", "tcp", "[::1]:3000", "[::1]:3000"}},
		{"http://app.test", Target{"http", "tcp", "app.test:80", "app.test"}},
		{"http://app.test/", Target{"http", "tcp", "app.test:80", "app.test"}},
		{"http://app.test:", Target{"http", "tcp", "app.test:80", "app.test"}},
		{"HTTP://App.test:8080", Target{"http", "tcp", "App.test:8080", "App.test:8080"}},
		{"http://[::1]", Target{"http", "tcp", "[::1]:80", "[::1]"}},
		{"https://app.test", Target{"https", "tcp", "app.test:443", "app.test"}},
		{"https://app.test:443", Target{"https", "tcp", "app.test:443", "app.test"}},
		{"https://app.test:80", Target{"https", "tcp", "app.test:80", "app.test:80"}},
		{"https://localhost:8443/", Target{"https", "tcp", "localhost:8443", "localhost:8443"}},
		{"h2c://localhost:50051", Target{"h2c", "tcp", "localhost:50051", "localhost:50051"}},
		{"h2c://localhost", Target{"h2c", "tcp", "localhost:80", "localhost"}},
		{"unix:/run/app.sock", Target{"http", "unix", "/run/app.sock", "localhost"}},
		{"unix:///run/app.sock", Target{"http", "unix", "/run/app.sock", "localhost"}},
		{"unix:app.sock", Target{"http", "unix", "app.sock", "localhost"}},
	} {
		got, err := ParseTarget(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

// The error says what is wrong.
func TestParseTargetErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "has no port",
		"localhost":                   "has no port",
		"3000x":                       "has no port",
		"0":                           "between 1 and 65535",
		"65536":                       "between 1 and 65535",
		"-1":                          "not an address",
		"+80":                         "not an address",
		":3000":                       "names no host",
		"localhost:port":              "not an address",
		"localhost:99999":             "between 1 and 65535",
		"local host:3000":             "not an address",
		"::1":                         "not an address",
		"http://":                     "names no host",
		"http://:3000":                "names no host",
		"http://[::1":                 "not an address",
		"ftp://localhost":             "scheme ftp is not",
		"tcp://localhost:22":          "scheme tcp is not",
		"http://localhost:3000/path":  "has a path",
		"localhost:3000/path":         "has a path",
		"http://localhost:3000?a":     "has a path",
		"http://localhost:3000#a":     "has a path",
		"http://user:pw@localhost:80": "no user and password",
		"user:pw@localhost:80":        "no user and password",
		"unix:":                       "names no socket",
		"unix://":                     "names no socket",
	} {
		got, err := ParseTarget(in)
		if err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestTargetAsText(t *testing.T) {
	for _, c := range []struct{ in, text, scheme string }{
		{"3000", "http://localhost:3000", "http"},
		{"https://app.test:443", "https://app.test", "https"},
		{"h2c://localhost:50051", "h2c://localhost:50051", "http"},
		{"unix:///run/app.sock", "unix:/run/app.sock", "http"},
	} {
		target, err := ParseTarget(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if target.String() != c.text || target.OriginScheme() != c.scheme {
			t.Errorf("%q: got %s and %s", c.in, target, target.OriginScheme())
		}
		if again, err := ParseTarget(target.String()); err != nil || again != target {
			t.Errorf("%q: its text gives %+v, %v", c.in, again, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"3000", "[::1]:80", "https://a:1/", "unix:/x", "h2c://b", "http://a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			return
		}
		if again, err := ParseTarget(target.String()); err != nil || again != target {
			t.Errorf("%q is %+v, whose text %q gives %+v, %v", s, target, target.String(), again, err)
		}
	})
}
