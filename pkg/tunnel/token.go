package tunnel

import (
	"context"
	"errors"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/internal/transport"
)

// tokenTime bounds a TokenSource.
const tokenTime = 30 * time.Second

// TokenError says that Client.TokenSource gave no token.
type TokenError struct{ Err error }

func (e *TokenError) Error() string { return "there is no token: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// tokenSource is Client.TokenSource.
type tokenSource func(ctx context.Context) (string, error)

// fresh is d with a token for one connection. It is asked for before there is one: a server
// does not wait for long for who says nothing.
func (source tokenSource) fresh(ctx context.Context, d *transport.Dialer) (*transport.Dialer, error) {
	if source == nil {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	token, err := source(ctx)
	switch {
	case err != nil:
		return nil, &TokenError{err}
	case token == "":
		return nil, &TokenError{errors.New("TokenSource returned an empty one")}
	case !httpguts.ValidHeaderFieldValue(token):
		return nil, &TokenError{errors.New("what TokenSource returned has a line end or control character in it")}
	}
	with := *d
	with.Token = token
	return &with, nil
}
