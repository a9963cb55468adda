package files

import (
	"io/fs"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWindowsNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a.txt": true, "a b.txt": true, "é.txt": true, ".well-known": true, "COMMON": true, "com.example": true, "nulls": true, "com10": true, "a~b": true, "conin": true,
		"C:": false, "a.txt:stream": false, "a.txt::$DATA": false, `a\b`: false, `..\x`: false, "a.txt.": false, "a.txt ": false, "a.": false,
		"NUL": false, "nul.txt": false, "Con": false, "aux.tar.gz": false, "COM1": false, "com1.log": false, "LPT9": false, "COM¹": false, "NUL .txt": false,
		"CONIN$": false, "conout$.x": false, "GIT~1": false, "SECRET~12.TXT": false, "a*": false, "a?": false, `a"`: false, "a|b": false, "<a>": false, "a\x01": false,
	} {
		if got := windowsName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	h := &Handler{windows: true}
	for _, target := range []string{"/sub/GIT~1/config", "/a.txt%3a%3a$DATA", "/sub%5c..%5cx", "/nul", "/a.txt%20", "/a.txt."} {
		if at, ok := h.locate(target); ok {
			t.Errorf("%s leads to %+v", target, at)
		}
	}
}

// FuzzLocate holds what a path leads to against package url's reading of it, and io/fs's
// of names that stay below.
func FuzzLocate(f *testing.F) {
	for _, s := range []string{"/", "/a/b.txt", "/a/", "//", "/../a", "/%2e%2e/a", "/a%2fb", "/a%00", "/.env", "/.well-known/x", "/%", "a", `/a\b`, "/%5c", "/%e9", "/a:b/", "/x/.well-known"} {
		f.Add(s, false, false)
		f.Add(s, true, false)
		f.Add(s, true, true)
	}
	f.Fuzz(func(t *testing.T, escaped string, hidden, windows bool) {
		h := &Handler{o: Options{Hidden: hidden}, windows: windows}
		at, ok := h.locate(escaped)
		if !ok {
			return
		}
		decoded, err := url.PathUnescape(escaped)
		if err != nil {
			t.Fatalf("%q is no path: %v", escaped, err)
		}
		if name := strings.Trim(decoded, "/"); name != at.name && (name != "" || at.name != ".") {
			t.Fatalf("%q leads to %q", escaped, at.name)
		}
		if utf8.ValidString(at.name) && !fs.ValidPath(at.name) || strings.Contains(at.name, "\x00") || windows && strings.ContainsAny(at.name, `\:`) {
			t.Fatalf("%q leads to %q", escaped, at.name)
		}
		if at.slash != strings.HasSuffix(escaped, "/") {
			t.Fatalf("%q: slash is %v", escaped, at.slash)
		}
		if below := strings.TrimPrefix("/"+at.name, "/.well-known"); !hidden && at.name != "." && strings.Contains(below, "/.") {
			t.Fatalf("%q leads to %q, which is hidden", escaped, at.name)
		}
	})
}
