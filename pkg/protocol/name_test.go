package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"a", "7", "demo", "pr-123", "a-b-c", "0x", "a--b", "ab-c", "abc--d", "xn--bcher-kva", strings.Repeat("a", 63),
	} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", "-", "-a", "a-", "a.b", "A", "Demo", "a_b", "a b", " a", "a\n", "a\x00", "büch", "ａ", "*", "a/b", "a:80", "%61",
		"ab--c", "ab--", "--", "----", "12--34", strings.Repeat("a", 64), "xn--" + strings.Repeat("a", 60),
	} {
		err := CheckName(name)
		var e *Error
		if !errors.As(err, &e) || e.Code != NameInvalid || e.Hint == "" {
			t.Errorf("%q: %v, want name_invalid with a hint", name, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q is shown as it is: %q", name, err)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"", "demo", "xn--bcher-kva", "ab--c", "-a", "a.b", "\x1b[31m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		// Whatever passes is a label that stays as it is in a host name.
		if name == "" || len(name) > MaxName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(name, "-") != name {
			t.Errorf("%q passes", name)
		}
	})
}
