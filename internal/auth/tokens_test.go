package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

const alpha, beta = "alpha-token-1", "beta-token-22"

// tokenFile writes content to a file and returns its path.
func tokenFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Tokens {
	t.Helper()
	tokens, err := OpenTokens(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func wantIn(t *testing.T, a Authenticator, token string) Identity {
	t.Helper()
	id, err := a.Authenticate(token, "session")
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if !a.Valid(id) {
		t.Fatalf("%v was let in and is not valid", id)
	}
	return id
}

func wantOut(t *testing.T, a Authenticator, token string) *protocol.Error {
	t.Helper()
	return wantRefused(t, a, token, protocol.Unauthorized)
}

func wantRefused(t *testing.T, a Authenticator, token string, code protocol.Code) *protocol.Error {
	t.Helper()
	id, err := a.Authenticate(token, "session")
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, %v; want %s", id, err, code)
	}
	if id != (Identity{}) {
		t.Fatalf("refused, but with the identity %v", id)
	}
	return e
}

func TestOpenTokens(t *testing.T) {
	good := map[string]string{
		"plain":          alpha + "\n" + beta + "\n",
		"no final line":  alpha + "\n" + beta,
		"comments":       "# ours\n\n" + alpha + "\n  # theirs\n\t" + beta + "  \n",
		"windows":        "\xef\xbb\xbf# ours\r\n" + alpha + "\r\n\r\n" + beta + "\r\n",
		"token with BOM": "\xef\xbb\xbf" + alpha + "\n" + beta,
		"twice":          alpha + "\n" + beta + "\n" + alpha + "\n",
		"rights":         alpha + "\n" + beta + "\t name=demo  domain=app.example.org,*.example.net \r\n",
	}
	for name, content := range good {
		t.Run(name, func(t *testing.T) {
			tokens := open(t, tokenFile(t, content))
			a, b := wantIn(t, tokens, alpha), wantIn(t, tokens, beta)
			if a == b {
				t.Errorf("both tokens have the identity %v", a)
			}
			for _, token := range []string{"", "alpha-token-2", alpha + " ", alpha[:8], "# ours", "\xef\xbb\xbf" + alpha} {
				wantOut(t, tokens, token)
			}
		})
	}
}

func TestOpenTokensRefuses(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"empty", "", "holds no token"},
		{"only comments", "# none\n\n", "holds no token"},
		{"short", "# x\n" + alpha + "\nshort-7\n", "line 3"},
		{"long", strings.Repeat("x", 4097), "line 1"},
		{"space inside", alpha + "\nsecret token\n", "line 2"},
		{"trailing comment", alpha + " # mine\n", "line 1"},
		{"control character", "\n\nsecret\x00token\n", "line 3"},
		{"escape", "secret\x1btoken\n", "line 1"},
		{"not ASCII", "sécret-token\n", "line 1"},
		{"not UTF-8", "secret-\xe9token\n", "line 1"},
		{"UTF-16", "\xff\xfes\x00e\x00c\x00r\x00e\x00t\x00", "UTF-8"},
		{"unknown right", "\n" + alpha + " admin-secret\n", "line 2"},
		{"right without a value", alpha + " domain\n", "line 1"},
		{"unknown field", alpha + " private=yes-secret\n", "line 1"},
		{"no domain", alpha + " domain=\n", "line 1"},
		{"no name", alpha + " name=demo,,other\n", "the 2. in its list"},
		{"name of upper case", alpha + " name=Secret\n", "lower case"},
		{"name like a class", alpha + " name=[a-z]\n", "line 1"},
		{"name with a dot", alpha + " name=demo.secret.org\n", "line 1"},
		{"domain of upper case", alpha + " domain=App.secret.org\n", "lower case"},
		{"domain of one label", alpha + " domain=secret\n", "line 1"},
		{"domain of a top level", alpha + " domain=*.secret\n", "line 1"},
		{"every domain", alpha + " domain=*\n", "line 1"},
		{"asterisk amid a domain", alpha + " domain=app.*.secret.org\n", "line 1"},
		{"asterisk in a label", alpha + " domain=app*.secret.org\n", "line 1"},
		{"domain with a dot", alpha + " domain=app.secret.org.\n", "line 1"},
		{"address", alpha + " domain=192.0.2.1\n", "line 1"},
		{"right twice", alpha + " domain=a.example.org domain=b.example.org\n", "twice"},
		{"comment behind rights", alpha + " name=a # secret\n", "comments on lines of their own"},
		{"two tokens in a line", alpha + " " + beta + "-secret\n", "line 1"},
		{"rights that differ", alpha + "\n\n" + alpha + " name=a\n", "line 3: a token that stands above"},
		{"too large", strings.Repeat(alpha+"\n", maxFile/len(alpha)), "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tokenFile(t, tt.content)
			_, err := OpenTokens(path, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v; want the path and %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "short-7") {
				t.Errorf("%q shows what the file holds", err)
			}
		})
	}
	if _, err := OpenTokens(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenTokens(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("directory: %v", err)
	}
}

// A change counts at once, without Run.
func TestAuthenticateSeesChange(t *testing.T) {
	path := tokenFile(t, alpha)
	tokens := open(t, path)
	a := wantIn(t, tokens, alpha)
	wantOut(t, tokens, beta)

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, beta) // of the same length, and at the same time
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	wantOut(t, tokens, alpha)
	wantIn(t, tokens, beta)
	if tokens.Valid(a) {
		t.Error("the identity of a token that was taken away is valid")
	}
	if tokens.Valid(Identity{}) {
		t.Error("the zero identity is valid")
	}
}

// Whatever is wrong with the file: nobody gets in, who is in stays, a good
// file counts again, and the log says each once.
func TestFailClosed(t *testing.T) {
	remove := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(t *testing.T, path string){
		"missing": remove,
		"empty":   func(t *testing.T, path string) { write(t, path, "") },
		"invalid": func(t *testing.T, path string) { write(t, path, beta+"\nsecret token\n") },
		"directory": func(t *testing.T, path string) {
			remove(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"unreadable": func(t *testing.T, path string) { // for root, too
			remove(t, path)
			if err := os.Symlink(path, path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := tokenFile(t, alpha)
			var log bytes.Buffer
			tokens, err := OpenTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			a := wantIn(t, tokens, alpha)
			spoil(t, path)
			for range 3 {
				for _, token := range []string{alpha, beta, ""} {
					refused := wantRefused(t, tokens, token, protocol.AuthUnavailable)
					if strings.Contains(refused.Error(), path) {
						t.Errorf("the refusal tells about the server's file: %v", refused)
					}
				}
			}
			if !tokens.Valid(a) || !tokens.Rights(a).Name("demo") {
				t.Error("a live session lost its rights")
			}

			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			write(t, path, alpha+"\n"+beta)
			wantIn(t, tokens, beta)
			if got := wantIn(t, tokens, alpha); got != a {
				t.Errorf("%v was %v before", got, a)
			}
			if n := strings.Count(log.String(), "\n"); n != 2 {
				t.Errorf("%d lines of log, want one for the bad file and one for the good:\n%s", n, &log)
			}
			for _, secret := range []string{alpha, beta, "secret", "some-other"} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("the log shows %q:\n%s", secret, &log)
				}
			}
		})
	}
}

// watch runs tokens.Run in a synctest bubble and returns the number of calls
// of changed so far.
func watch(t *testing.T, tokens *Tokens) (calls func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	n := 0
	done := make(chan error)
	go func() {
		done <- tokens.Run(ctx, func() { mu.Lock(); n++; mu.Unlock() })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestRun(t *testing.T) {
	path := tokenFile(t, alpha)
	other := tokenFile(t, beta)
	synctest.Test(t, func(t *testing.T) {
		tokens := open(t, path)
		calls := watch(t, tokens)
		expect := func(want int, after string) {
			t.Helper()
			time.Sleep(2*pollEvery + time.Millisecond)
			synctest.Wait()
			if got := calls(); got != want {
				t.Fatalf("after %s: changed was called %d times, want %d", after, got, want)
			}
		}
		a := wantIn(t, tokens, alpha)
		expect(0, "no change")
		write(t, path, "# a comment\n"+alpha)
		expect(0, "a change that is none of the tokens'")
		write(t, path, "")
		expect(1, "the file was emptied")
		if tokens.Valid(a) {
			t.Error("the last token was taken away and its identity is valid")
		}
		write(t, path, "# a comment\n"+alpha)
		expect(2, "the old file came back")
		wantIn(t, tokens, alpha)
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
		expect(3, "another file took its place")
		if tokens.Valid(a) {
			t.Error("the token was taken away and its identity is valid")
		}
		write(t, path, alpha)
		wantIn(t, tokens, alpha)
		expect(4, "a change that Authenticate saw first")
	})
}

// A file that is seen half written ends no session.
func TestRunHalfWritten(t *testing.T) {
	path := tokenFile(t, alpha+"\n"+beta)
	synctest.Test(t, func(t *testing.T) {
		tokens := open(t, path)
		b := wantIn(t, tokens, beta)
		ended := false
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tokens.Run(ctx, func() { ended = ended || !tokens.Valid(b) })
		}()
		write(t, path, alpha)
		time.Sleep(pollEvery + time.Millisecond) // seen once
		write(t, path, alpha+"\n"+beta+"\n"+"gamma-token-3")
		time.Sleep(3 * pollEvery)
		cancel()
		<-done
		if ended {
			t.Error("a live session ended")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(alpha + "\r\n#\n" + beta))
	f.Add([]byte("\xef\xbb\xbf" + alpha))
	f.Add([]byte("oidc=https://issuer.example aud=https://tunnel.example.com claim:repository=acme/shop,acme/web-* claim:ref_protected=true name=shop-* domain=a.example.org"))
	f.Add([]byte("oidc=http://[::1]:8080/realm aud=tunnel claim:sub=*:x:*"))
	f.Fuzz(func(t *testing.T, data []byte) {
		held, err := parse(data)
		if (err == nil) != (held.size() > 0) {
			t.Errorf("%d lines and the error %v", held.size(), err)
		}
		if _, ok := held.tokens[[32]byte{}]; ok {
			t.Error("zero sum")
		}
		for _, one := range held.trusts {
			if checkIssuer(one.issuer) != nil || one.audience == "" || len(one.claims) == 0 {
				t.Errorf("a line lets everybody in: %+v", one)
			}
			if all := make(map[string]json.RawMessage); one.unfit(all) == "" {
				t.Errorf("a token without claims fits %+v", one)
			}
		}
	})
}
