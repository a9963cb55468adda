package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// pollEvery is how often [Tokens.Run] looks at the file.
const pollEvery = time.Second

// Tokens lets in who shows one of the tokens of a file, or one of an issuer that the file
// names; [OpenTokens] makes it.
// A change of the file counts from the next Authenticate on. While the file is
// missing, unreadable, empty or invalid nobody is let in; the identities that
// it made valid last stay valid, so that live sessions outlive a slip of the
// editor; but of a file that holds no token, and goes on so, none does.
type Tokens struct {
	Log *slog.Logger // nil discards; never shows a token

	path string

	client *http.Client // to issuers

	mu      sync.Mutex // guards the following fields
	held    contents
	issuers map[string]*issuer // by URL; those of held alone are asked
	version int                // counts the changes of held
	bad     error              // nil: the file is good and says held
	read    digest             // of the file's content, when it was good last
}

type digest = [sha256.Size]byte

// OpenTokens reads the token file at path: one token a line, of 8 to 4096
// visible ASCII characters, and after it, with space between, what it may claim:
//
//	name=PATTERN,…    names below the server's domain; * is any run of characters
//	domain=DOMAIN,…   custom domains; *.example.org is each name of one label more
//
// each once at most. Without name= it is every name. A line that begins with oidc= is for
// the tokens of an issuer (OpenID Connect), which are not known before and are verified:
//
//	oidc=ISSUER aud=AUDIENCE claim:CLAIM=PATTERN,… name=… domain=…
//
// at least one claim has to be named, and all that are have to fit. Space around a line, empty
// lines and lines that begin with '#' are ignored, so are a byte order mark and
// Windows line ends. The error names the path, and the line where there is one;
// never what it holds.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{Log: log, path: path, client: issuersClient(), issuers: make(map[string]*issuer)}
	data, err := readFile(path)
	if err == nil {
		t.read = sha256.Sum256(data)
		t.held, err = parse(data)
	}
	if err != nil {
		return nil, fmt.Errorf("token file %s: %w", path, err)
	}
	return t, nil
}

// Authenticate implements [Authenticator]. It reads the file first. Tokens
// are compared in constant time. Those of an issuer are verified with the keys that
// [Tokens.Prepare] has seen to: nothing is asked for here.
func (t *Tokens) Authenticate(token, _ string) (Identity, error) {
	sum := sha256.Sum256([]byte(token))
	known, trusts, err := t.known(sum)
	switch {
	case err != nil:
		return Identity{}, err
	case known:
		return identity("token:", sum), nil
	case len(trusts) > 0 && isJWT(token):
		return t.verify(token, trusts)
	}
	return Identity{}, refusal(token)
}

// known says whether the file has the token, and what it says of issuers. It has an error
// while nobody can be known.
func (t *Tokens) known(sum digest) (bool, []trust, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	if t.bad != nil {
		// Not Unauthorized, which would make clients give up: the file may be amid
		// being written. What is wrong with it is for the server's log.
		return false, nil, &protocol.Error{
			Code:    protocol.AuthUnavailable,
			Message: "the server cannot check tokens now, and lets nobody in",
			Hint:    "try again later; the server's log says why",
		}
	}
	found := 0
	for s := range t.held.tokens {
		found |= subtle.ConstantTimeCompare(s[:], sum[:])
	}
	return found == 1, t.held.trusts, nil
}

func refusal(token string) error {
	e := &protocol.Error{
		Code:    protocol.Unauthorized,
		Message: "the server does not know this token",
		Hint:    "check --token-file or TUNNEL_TOKEN against the server's token file",
	}
	if token == "" {
		e.Message = "the server lets nobody in without a token"
		e.Hint = "pass one with --token-file or TUNNEL_TOKEN"
	}
	return e
}

// Valid implements [Authenticator]: it is true while the token of id, or the line that
// let it in, is in the file, as it was when the file could be read last.
func (t *Tokens) Valid(id Identity) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.held.of(id)
	return ok
}

// Run looks at the file every second until ctx is done, returns ctx's error,
// and calls changed after each change of the tokens or their rights, whoever noticed it.
// It waits until the set was the same for one second, so that a file which is
// seen half written ends nobody's session. It is to be run once.
func (t *Tokens) Run(ctx context.Context, changed func()) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	told, last := 0, 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := t.poll()
		if now == last && now != told {
			t.settle()
			told = now
			changed()
		}
		last = now
	}
}

func (t *Tokens) poll() (version int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	return t.version
}

// settle has a file without tokens mean that they were all taken away. One that is just
// being written looks the same for a moment, in which nothing is to be lost.
func (t *Tokens) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad == errNoToken {
		t.held = contents{}
	}
}

// refresh takes over what the file holds now. The caller holds mu. The file is
// read each time: its size and times do not show every change (two writes
// within one tick of the file system's clock, a change of owner), and reading
// it costs little beside a session's beginning.
func (t *Tokens) refresh() {
	data, err := readFile(t.path)
	if err != nil {
		t.reject(err)
		return
	}
	read := sha256.Sum256(data)
	if t.bad == nil && read == t.read {
		return
	}
	held, err := parse(data)
	if err == errNoToken && t.bad != errNoToken {
		t.version++ // for Run, see settle
	}
	if err != nil {
		t.reject(err)
		return
	}
	t.bad, t.read = nil, read
	if !held.equal(t.held) {
		t.held = held
		t.version++
	}
	t.log().Info("token file read", "path", t.path, "tokens", len(held.tokens), "issuer_lines", len(held.trusts))
}

// reject closes the door, and says so once for each cause.
func (t *Tokens) reject(err error) {
	repeated := t.bad != nil && t.bad.Error() == err.Error()
	t.bad = err
	if !repeated {
		t.log().Error("token file cannot be used, no client is let in", "path", t.path, "err", err)
	}
}

func (t *Tokens) log() *slog.Logger {
	if t.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Log
}

// readFile reads a regular file of at most maxFile bytes. Its errors leave out
// the path.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		// Opening a pipe again would block for good.
		return nil, errors.New("is not a regular file, and must be one because it is read again and again")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is over the limit of %d bytes", maxFile)
	}
	return data, nil
}

// cause takes the path off an error of package os.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
