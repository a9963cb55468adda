package protocol

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// LinkName names a share link's token: in the query of the link, as a cookie, and, with
// the prefix "Tunnel-" that is ours, in [HeaderLink].
const LinkName = "tunnel-share"

// HeaderLink carries a share link's token of a visitor without cookies, such as a test.
// It never gets through to the local app.
const HeaderLink = "Tunnel-Share"

const (
	linkKeySize = ed25519.PublicKeySize
	linkExpiry  = 8 // bytes of a token before the signature: the expiry in Unix seconds, big-endian

	// linkContext makes a link's signature one of nothing else.
	linkContext = "tunnel share link 1\x00"
)

// errLink is of a token that never was one.
var errLink = errors.New("not a share link of this endpoint")

// ErrLinkExpired says that a share link was good, and is over.
var ErrLinkExpired = errors.New("the share link has expired")

// SignLink returns the token of a link that is good until expires, in whole seconds.
// It is good at each endpoint whose [Share] has key's public half, and goes for nothing
// with another key: that is how links are taken back.
func SignLink(key ed25519.PrivateKey, expires time.Time) string {
	token := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
	token = append(token, ed25519.Sign(key, linkMessage(token))...)
	return base64.RawURLEncoding.EncodeToString(token)
}

// VerifyLink returns until when token is good. The error is [ErrLinkExpired] where it was
// good before now, and another where it never was.
func VerifyLink(key ed25519.PublicKey, token string, now time.Time) (expires time.Time, err error) {
	const size = linkExpiry + ed25519.SignatureSize
	if len(token) != base64.RawURLEncoding.EncodedLen(size) || len(key) != linkKeySize {
		return time.Time{}, errLink
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != size || !ed25519.Verify(key, linkMessage(raw[:linkExpiry]), raw[linkExpiry:]) {
		return time.Time{}, errLink
	}
	expires = time.Unix(int64(binary.BigEndian.Uint64(raw)), 0)
	if !now.Before(expires) {
		return time.Time{}, ErrLinkExpired
	}
	return expires, nil
}

func linkMessage(expiry []byte) []byte { return append([]byte(linkContext), expiry...) }
