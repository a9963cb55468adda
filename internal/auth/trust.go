package auth

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// trust is a line of a token file that lets in the tokens of an issuer.
type trust struct {
	entry
	issuer   string // as tokens have it in iss
	audience string // that has to be in aud
	claims   []condition
}

// condition is that a claim has a value which fits one of the patterns.
type condition struct {
	claim    string
	patterns []string
}

// addTrust reads what follows on a line after oidc=. Whose tokens come by the same issuer,
// audience and conditions is one identity: a newer run of a pipeline has the names of an
// older one.
func (c *contents) addTrust(issuer string, fields []string) error {
	t, err := parseTrust(issuer, fields)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(c.trusts, func(other trust) bool { return other.id == t.id })
	if at >= 0 && !c.trusts[at].entry.equal(t.entry) {
		return errors.New("an oidc= line with the audience and claims of one above, and other rights: leave one of them")
	}
	if at < 0 {
		c.trusts = append(c.trusts, t)
	}
	return nil
}

func parseTrust(issuer string, fields []string) (trust, error) {
	t := trust{issuer: issuer}
	if err := checkIssuer(issuer); err != nil {
		return t, err
	}
	var rights []string
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		claim, isClaim := strings.CutPrefix(key, "claim:")
		var err error
		switch {
		case field == key:
			err = errUnknownField
		case isClaim:
			err = t.require(claim, value)
		case key == "name", key == "domain":
			rights = append(rights, field)
		case key != "aud":
			err = errUnknownField
		case value == "", t.audience != "":
			err = errors.New("aud= is to have one audience, and to stand there once: a token needs no other")
		default:
			t.audience = value
		}
		if err != nil {
			return t, err
		}
	}
	switch {
	case t.audience == "":
		return t, errors.New("an oidc= line without aud=, by which tokens for others are told from those for this server: write one, such as aud=https://tunnel.example.com")
	case len(t.claims) == 0:
		return t, errors.New("an oidc= line without a claim lets in whoever has a token of that issuer: write one, such as claim:repository=acme/shop")
	}
	var err error
	t.rights, err = parseRights(rights)
	t.id = identity("oidc:", t.sum())
	return t, err
}

var errUnknownField = errors.New("after oidc=ISSUER comes something that is not aud=…, claim:…=…, name=… or domain=…: without space in it, and comments on lines of their own")

// checkIssuer takes a URL by which nobody on the way can put keys of its own.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || !secure(u) || u.User != nil || strings.ContainsAny(issuer, "?#") {
		return errors.New("oidc= is to have the issuer as its tokens have it in iss: https://HOST…, such as oidc=https://token.actions.githubusercontent.com; http:// on the own machine alone")
	}
	return nil
}

// secure reports whether what u answers is not changed on the way.
func secure(u *url.URL) bool {
	host := u.Hostname()
	a, err := netip.ParseAddr(host)
	own := host == "localhost" || err == nil && a.IsLoopback()
	return host != "" && (u.Scheme == "https" || u.Scheme == "http" && own)
}

// require adds a condition.
func (t *trust) require(claim, list string) error {
	one := condition{claim, strings.Split(list, ",")}
	switch {
	case claim == "":
		return errors.New("claim: is to have the claim's name behind it, such as claim:repository=acme/shop")
	case slices.Contains([]string{"iss", "aud", "exp", "nbf", "iat"}, claim):
		return fmt.Errorf("claim:%s is no condition: it is looked at anyway; write one of whose the token is, such as claim:repository=acme/shop", claim)
	case slices.ContainsFunc(t.claims, func(other condition) bool { return other.claim == claim }):
		return errors.New("a claim stands there twice: write it once, with commas between its values")
	case slices.ContainsFunc(one.patterns, func(p string) bool { return strings.Trim(p, "*") == "" }):
		return errors.New("a claim has a value that is empty, or fits everything: write claim:CLAIM=VALUE,…, where * stands for any characters and does not stand alone")
	}
	t.claims = append(t.claims, one)
	return nil
}

// sum is that of what makes a line's tokens one identity. No part of a line has a line end
// in it.
func (t trust) sum() digest {
	lines := []string{t.issuer, t.audience}
	var claims []string
	for _, one := range t.claims {
		claims = append(claims, one.claim+"="+strings.Join(slices.Sorted(slices.Values(one.patterns)), ","))
	}
	slices.Sort(claims)
	return sha256.Sum256([]byte(strings.Join(append(lines, claims...), "\n")))
}

// unfit returns the first condition's claim that the claims of a token do not fit, or "".
func (t trust) unfit(claims map[string]json.RawMessage) string {
	for _, one := range t.claims {
		fits := func(value string) bool {
			return slices.ContainsFunc(one.patterns, func(p string) bool { return like(p, value) })
		}
		if !slices.ContainsFunc(values(claims[one.claim]), fits) {
			return one.claim
		}
	}
	return ""
}

// values are what a claim says: a text, a number or a truth as it is written, or each of a
// list of these.
func values(raw json.RawMessage) []string {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		list = []json.RawMessage{raw}
	}
	var all []string
	for _, one := range list {
		var text string
		switch {
		case json.Unmarshal(one, &text) == nil && string(one) != "null":
			all = append(all, text)
		case len(one) > 0 && strings.ContainsAny(string(one[:1]), "-0123456789tf"):
			all = append(all, string(one))
		}
	}
	return all
}

// like reports whether s fits pattern, in which * stands for any run of characters.
func like(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == s
	}
	s, found := strings.CutPrefix(s, parts[0])
	for _, part := range parts[1:last] {
		if !found {
			return false
		}
		_, s, found = strings.Cut(s, part)
	}
	return found && strings.HasSuffix(s, parts[last])
}
