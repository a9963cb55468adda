package protocol

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"strconv"
	"testing"
)

// codes returns the constants of type Code in error.go, by their values.
func codes(t *testing.T) map[Code]string {
	t.Helper()
	src, err := os.ReadFile("error.go")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "error.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[Code]string)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		typ, ok := spec.Type.(*ast.Ident)
		if !ok || typ.Name != "Code" || len(spec.Values) != 1 {
			t.Errorf("%s is not a Code with one value", spec.Names[0])
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := all[Code(value)]; ok {
			t.Errorf("%s and %s are the same", spec.Names[0], other)
		}
		all[Code(value)] = spec.Names[0].Name
		return true
	})
	if len(all) < 25 {
		t.Fatalf("found %d codes", len(all))
	}
	return all
}

// Each code has a status of its own choosing: a new one is not forgotten.
func TestStatus(t *testing.T) {
	want := map[Code]int{
		BadRequest: 400, NameUnknown: 404, WrongHost: 421, URITooLong: 414, HeadersTooLarge: 431, Overloaded: 503,
		ClientOffline: 503, SessionLost: 502, AppRefused: 502, AppBadResponse: 502, AppTimeout: 504, AppStarting: 503, NoUpgrade: 501,
		Unauthorized: 401, UpgradeRequired: 426, ALPNUnsupported: 406, NotFound: 404, NameTaken: 409, NameInvalid: 400, KindUnsupported: 400,
		TooManySessions: 503, TooManyNames: 429, Draining: 503, SessionTaken: 409, SessionFenced: 409, TokenRevoked: 401,
		VersionUnsupported: 400, ProtocolViolation: 400, AuthUnavailable: 503, LoginThrottled: 429, PortUnavailable: 409, Forbidden: 403,
		DomainInvalid: 400, DomainUnverified: 503, WrongKind: 400, ShareUnsupported: 400,
		VisitorRefused: 403, LoginRequired: 401, LinkRequired: 403, LinkExpired: 403, Ended: 410,
	}
	for code, name := range codes(t) {
		got := code.Status()
		if w, ok := want[code]; !ok || got != w {
			t.Errorf("%s: status %d, want %d", name, got, w)
		}
		if http.StatusText(got) == "" || got == http.StatusInternalServerError {
			t.Errorf("%s: status %d", name, got)
		}
	}
	for _, unknown := range []Code{"", "name-taken", "from_the_future"} {
		if got := unknown.Status(); got != 500 {
			t.Errorf("%q: status %d", unknown, got)
		}
	}
}

// Codes travel in a header field and are searched for in documents.
func TestCodesAreTokens(t *testing.T) {
	for code, name := range codes(t) {
		for _, c := range []byte(code) {
			if (c < 'a' || c > 'z') && c != '_' {
				t.Errorf("%s is %q", name, code)
			}
		}
	}
}

func TestError(t *testing.T) {
	e := &Error{Code: NameTaken, Message: "the name demo is taken"}
	if got := e.Error(); got != "the name demo is taken (name_taken)" {
		t.Errorf("got %q", got)
	}
	e.Hint = "choose another"
	if got := e.Error(); got != "the name demo is taken (name_taken): choose another" {
		t.Errorf("got %q", got)
	}
	wrapped := fmt.Errorf("bind demo: %w", e)
	if !errors.Is(wrapped, &Error{Code: NameTaken}) {
		t.Error("is not name_taken")
	}
	if errors.Is(wrapped, &Error{Code: NameUnknown}) || errors.Is(wrapped, errors.New("name_taken")) {
		t.Error("is another error, too")
	}
}
