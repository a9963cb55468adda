// Package auth turns the bearer token of an upgrade into an identity: the one
// to whom the names of a session belong.
//
// There are two authenticators. [Tokens] knows the tokens of a file, and the issuers of
// OpenID Connect tokens that the file trusts, and fails closed: whatever is wrong with
// the file, nobody gets in. [Anonymous] lets
// everyone in and is for servers that only the own machine reaches.
package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Identity is who a client is: what its names belong to. Identities can be
// compared and logged, they hold nothing secret. The zero value is nobody.
type Identity struct {
	ID string // "token:", "oidc:" or "session:" and 16 hex digits of a SHA-256
	// Stranger says that anybody could have it: what was shown is not known here.
	Stranger bool
}

// OfSession says that no token was shown: nothing but the session itself can
// prove who it is.
func (i Identity) OfSession() bool { return strings.HasPrefix(i.ID, "session:") }

// Authenticator turns the token of an upgrade into an identity. Its methods
// may be called from many goroutines.
type Authenticator interface {
	// Authenticate returns the identity of who shows token on session; token is
	// empty where none was shown. The error is a [*protocol.Error] with
	// [protocol.Unauthorized], or [protocol.AuthUnavailable] while nobody can be
	// told from anybody.
	Authenticate(token, session string) (Identity, error)
	// Valid says whether id may stay. False: its token was taken away, and the
	// sessions of id are to end.
	Valid(id Identity) bool
	// Rights are what id may claim now; nothing where it is not valid.
	Rights(id Identity) Rights
}

// Anonymous lets everyone in. A token that is shown is an identity of its own,
// so that a client which shows one gets its names back from any session;
// without a token the identity is that of the session alone.
type Anonymous struct{}

// Authenticate returns an error only where there is neither a token nor a
// session.
func (Anonymous) Authenticate(token, session string) (Identity, error) {
	switch {
	case token != "":
		return stranger("token:", token), nil
	case session != "":
		return stranger("session:", session), nil
	}
	return Identity{}, &protocol.Error{
		Code:    protocol.Unauthorized,
		Message: "there is neither a token nor a session id",
	}
}

// Valid is true for every identity but the zero value.
func (Anonymous) Valid(id Identity) bool { return id != Identity{} }

func stranger(prefix, secret string) Identity {
	id := identify(prefix, secret)
	id.Stranger = true
	return id
}

func identify(prefix, secret string) Identity {
	return identity(prefix, sha256.Sum256([]byte(secret)))
}

func identity(prefix string, sum digest) Identity {
	return Identity{ID: prefix + hex.EncodeToString(sum[:8])}
}
