package rig

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Issuer is an issuer of OpenID Connect tokens, with real RSA keys, as CI systems have
// one. As an http.Handler it is its own public side; URL is where that is.
type Issuer struct {
	URL string

	key *rsa.PrivateKey

	mu    sync.Mutex // guards the following
	kid   string     // that is published, and that tokens have
	down  bool
	asked int
}

// NewIssuer makes an issuer that says that it is at url.
func NewIssuer(tb testing.TB, url string) *Issuer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	return &Issuer{URL: url, key: key, kid: "first"}
}

// StartIssuer starts an issuer on a port of its own, until the test ends.
func StartIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	i := NewIssuer(tb, "")
	s := httptest.NewServer(i)
	tb.Cleanup(s.Close)
	i.URL = s.URL
	return i
}

// Rotate makes the next key the one that is published, and that tokens are signed with: of
// the same numbers, and another name.
func (i *Issuer) Rotate(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid = kid
}

// Down has the issuer answer nothing of use, or again what it should.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Asked is how often somebody asked for the keys.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// ServeHTTP answers with what OpenID Connect Discovery 1.0 has, and the keys.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := r.URL.Path == "/keys"
	if keys {
		i.asked++
	}
	encode := base64.RawURLEncoding.EncodeToString
	switch {
	case i.down:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case keys:
		json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{
			{"kty": "unknown", "kid": "another"},
			{
				"kty": "RSA", "kid": i.kid, "use": "sig", "alg": "RS256",
				"n": encode(i.key.N.Bytes()), "e": encode(big.NewInt(int64(i.key.E)).Bytes()),
			},
		}})
	case r.URL.Path == "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	default:
		http.NotFound(w, r)
	}
}

// Token returns a token that is valid for five minutes, of the issuer's own key, with
// claims beside iss, iat and exp, or in place of these; nil is for none.
func (i *Issuer) Token(claims map[string]any) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.Sign(map[string]any{"alg": "RS256", "kid": i.kid}, claims)
}

// Sign is Token with another header. It signs as "alg" there says: RS256; HS256 with the
// public key, as PEM, for a secret; or not at all, with anything else.
func (i *Issuer) Sign(head, claims map[string]any) string {
	now := time.Now()
	all := map[string]any{"iss": i.URL, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text()}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	part := func(v any) string {
		data, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	signed := part(head) + "." + part(all)
	var signature []byte
	switch head["alg"] {
	case "RS256":
		sum := sha256.Sum256([]byte(signed))
		signature, _ = rsa.SignPKCS1v15(nil, i.key, crypto.SHA256, sum[:])
	case "HS256":
		public, _ := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
		secret := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
		secret.Write([]byte(signed))
		signature = secret.Sum(nil)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
