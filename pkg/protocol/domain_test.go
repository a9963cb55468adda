package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckDomain(t *testing.T) {
	long := strings.Repeat("a", 63) + "."
	for _, domain := range []string{
		"app.example.org", "example.org", "a.b", "xn--bcher-kva.example", "1.example.org", "a-b.c1.example",
		strings.Repeat(long, 3) + strings.Repeat("a", 61),
	} {
		if err := CheckDomain(domain); err != nil {
			t.Errorf("%q: %v", domain, err)
		}
	}
	for _, domain := range []string{
		"", "org", "localhost", "app.localhost", ".", "app.example.org.", ".example.org", "app..example.org", "App.example.org",
		"app.example.org:443", "https://app.example.org", "app.example.org/", "*.example.org", "app_1.example.org", "_tunnel.example.org",
		"127.0.0.1", "1.2.3", "app.0x7f", "[::1]", "::1", "2001:db8::1", "-a.example.org", "a-.example.org", "ab--c.example.org",
		"b\u00fccher.example", "\u212Aelvin.example", "app\u3002example", "app.example.org\n", "app .example.org", "tcp/20001", "private/db",
		strings.Repeat(long, 3) + strings.Repeat("a", 62), strings.Repeat("a", 64) + ".org",
	} {
		err := CheckDomain(domain)
		if !errors.Is(err, &Error{Code: DomainInvalid}) {
			t.Errorf("%q: %v", domain, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%.20q: the error has %d bytes", domain, len(err.Error()))
		}
	}
}
