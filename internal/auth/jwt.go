package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxJWT bounds what is looked at of a token, in bytes.
	maxJWT = 16 << 10
	// maxHead bounds its header, as it is encoded: 2 KiB. Keys and certificates, which it
	// might have in it, are dear to read, and none is believed.
	maxHead = 2 << 10 * 4 / 3
	// leeway is how far an issuer's clock may be off.
	leeway = time.Minute
	// maxShown bounds what a refusal shows of a claim's value, in bytes.
	maxShown = 100
)

// algorithms are those that sign with a private key. With others, what is published would
// be all that it takes to sign.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// assertion is a JSON Web Token (RFC 7519). What it says is not verified.
type assertion struct {
	token  *jwt.JSONWebToken
	head   jose.Header
	claims jwt.Claims
}

// isJWT reports whether token has the form of one.
func isJWT(token string) bool {
	return len(token) <= maxJWT && strings.Count(token, ".") == 2 && strings.IndexByte(token, '.') <= maxHead
}

// Issued reports whether token has the form of one of an issuer's, for which
// [Tokens.Prepare] is to be called.
func (t *Tokens) Issued(token string) bool { return isJWT(token) }

func readJWT(token string) (*assertion, error) {
	parsed, err := jwt.ParseSigned(token, algorithms())
	if errors.As(err, new(*jose.ErrUnexpectedSignatureAlgorithm)) {
		return nil, refused("the token's algorithm (alg) is none that is allowed", "it is to be RS256, or another that signs with a private key")
	}
	if err != nil {
		return nil, refusal(token)
	}
	a := &assertion{token: parsed, head: parsed.Headers[0]}
	if parsed.UnsafeClaimsWithoutVerification(&a.claims) != nil {
		return nil, refusal(token)
	}
	return a, nil
}

// Prepare has the keys there by which token is verified, if it is one of an issuer that the
// file names: that is asked for them where they are not known, or were asked for long ago,
// but once in 10 s at most, whoever comes with whatever. It returns within 5 s, when ctx
// ends, and at once where nothing is to be asked. No issuer is shown a token.
func (t *Tokens) Prepare(ctx context.Context, token string) {
	if !isJWT(token) {
		return
	}
	t.poll()
	if a, err := readJWT(token); err == nil {
		if i := t.issuer(a.claims.Issuer); i != nil {
			i.prepare(ctx, a.head.KeyID)
		}
	}
}

// issuer returns the one with that URL, or nil where the file does not name it.
func (t *Tokens) issuer(url string) *issuer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.ContainsFunc(t.held.trusts, func(one trust) bool { return one.issuer == url }) {
		return nil
	}
	i := t.issuers[url]
	if i == nil {
		i = &issuer{url: url, client: t.client, log: t.log()}
		t.issuers[url] = i
	}
	return i
}

// verify returns the identity of the line that lets token in.
func (t *Tokens) verify(token string, trusts []trust) (Identity, error) {
	a, err := readJWT(token)
	if err != nil {
		return Identity{}, err
	}
	if a.claims.IssuedAt == nil {
		// Without it nobody can tell an unknown key from a new one.
		return Identity{}, refused("the token does not say when it was issued (iat)", "get one that does: OpenID Connect has it in all")
	}
	i := t.issuer(a.claims.Issuer)
	if i == nil {
		return Identity{}, refused("the server trusts no tokens of its issuer (iss)", "the server's token file names those that it does")
	}
	key, err := i.key(a)
	if err != nil {
		return Identity{}, err
	}
	var all map[string]json.RawMessage
	if err := a.token.Claims(key, &a.claims, &all); err != nil {
		return Identity{}, refused("the token's signature is not its issuer's", "get a new token")
	}
	if err := a.timely(); err != nil {
		return Identity{}, err
	}
	return a.admit(trusts, all)
}

// timely says whether the token is valid now.
func (a *assertion) timely() error {
	const clocks = "look at the clocks of the server and the issuer"
	err := a.claims.ValidateWithLeeway(jwt.Expected{}, leeway)
	switch {
	case a.claims.Expiry == nil:
		return refused("the token has no end (exp)", "get one that has")
	case errors.Is(err, jwt.ErrExpired):
		return refused("the token has expired (exp)", "show a new one at each connection: tunnel-client has --token-command for that")
	case errors.Is(err, jwt.ErrNotValidYet):
		return refused("the token is not valid yet (nbf)", clocks)
	case err != nil:
		return refused("the token was issued in the future (iat)", clocks)
	}
	return nil
}

// admit returns the identity of the first of trusts that the token, which is verified, fits.
func (a *assertion) admit(trusts []trust, all map[string]json.RawMessage) (Identity, error) {
	err := refused("the token is for another audience (aud)", "have its issuer make it for the audience that the server's token file names")
	for _, one := range trusts {
		if one.issuer != a.claims.Issuer || !a.claims.Audience.Contains(one.audience) {
			continue
		}
		claim := one.unfit(all)
		if claim == "" {
			return one.id, nil
		}
		err = refused("no line of the server's token file is for the token: its claim "+claim+" "+shown(all[claim]), "the server's operator says there whom it lets in")
	}
	return Identity{}, err
}

// shown is what a refusal says of a claim's value.
func shown(raw json.RawMessage) string {
	all := values(raw)
	if len(all) == 0 {
		return "is missing"
	}
	text := strings.Join(all, ",")
	if len(text) > maxShown {
		text = text[:maxShown] + "…"
	}
	return fmt.Sprintf("is %q", text)
}

func refused(message, hint string) error {
	return &protocol.Error{Code: protocol.Unauthorized, Message: message, Hint: hint}
}
