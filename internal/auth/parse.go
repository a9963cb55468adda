package auth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Limits of a token file, in bytes.
const (
	maxFile  = 1 << 20
	minToken = 8
	maxToken = 4096
)

// errNoToken is of a file that was read, and lets nobody in.
var errNoToken = errors.New("holds no token")

// contents are what a token file says. The zero value is nothing.
type contents struct {
	tokens map[digest]entry // by the token's sum
	trusts []trust          // in the file's order
}

// entry is what the file says of a token, or of a line for those of an issuer.
type entry struct {
	id     Identity
	rights Rights
}

func (e entry) equal(other entry) bool {
	return e.id == other.id && slices.Equal(e.rights.Names, other.rights.Names) && slices.Equal(e.rights.Domains, other.rights.Domains)
}

func (c contents) size() int { return len(c.tokens) + len(c.trusts) }

func (c contents) equal(o contents) bool {
	same := func(a, b trust) bool { return a.entry.equal(b.entry) } // the rest is in the id
	return maps.EqualFunc(c.tokens, o.tokens, entry.equal) && slices.EqualFunc(c.trusts, o.trusts, same)
}

// of returns what the file says of id.
func (c contents) of(id Identity) (entry, bool) {
	for _, known := range c.tokens {
		if known.id == id {
			return known, true
		}
	}
	for _, known := range c.trusts {
		if known.id == id {
			return known.entry, true
		}
	}
	return entry{}, false
}

// parse returns what data holds: the sum of each token, not the token itself, with its
// rights. Its errors name a line, and show nothing of it: what stands at a wrong place
// may be a part of a token.
func parse(data []byte) (contents, error) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return contents{}, errors.New("is UTF-16: save it as UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	held := contents{tokens: make(map[digest]entry)}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := held.add(line); err != nil {
			return contents{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if held.size() == 0 {
		return contents{}, errNoToken
	}
	return held, nil
}

// add reads a line.
func (c *contents) add(line []byte) error {
	if err := check(line); err != nil {
		return err
	}
	first, rest, _ := strings.Cut(strings.ReplaceAll(string(line), "\t", " "), " ")
	fields := strings.Fields(rest)
	if issuer, ok := strings.CutPrefix(first, "oidc="); ok {
		return c.addTrust(issuer, fields)
	}
	if len(first) < minToken || len(first) > maxToken {
		return fmt.Errorf("a token of %d characters, where %d to %d are allowed", len(first), minToken, maxToken)
	}
	rights, err := parseRights(fields)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(first))
	e := entry{identity("token:", sum), rights}
	if other, ok := c.tokens[sum]; ok && !e.equal(other) {
		return errors.New("a token that stands above with other rights: leave one of the lines")
	}
	c.tokens[sum] = e
	return nil
}

// check allows what travels unharmed in an Authorization field (RFC 6750,
// section 2.1, and every other visible ASCII character), and space between.
func check(line []byte) error {
	for _, c := range line {
		switch {
		case c < ' ' && c != '\t' || c == 0x7f:
			return errors.New("a token with a control character in it")
		case c > 0x7f:
			return errors.New("a token with a character outside of ASCII")
		}
	}
	return nil
}

func parseRights(fields []string) (Rights, error) {
	r := Rights{Names: anyName()}
	seen := make(map[string]bool)
	for _, field := range fields {
		key, list, valued := strings.Cut(field, "=")
		var err error
		switch {
		case key == "name" && valued:
			r.Names, err = patterns(list, checkNamePattern)
		case key == "domain" && valued:
			r.Domains, err = patterns(list, checkDomainPattern)
		default:
			return Rights{}, errors.New("after the token comes something that is not name=… or domain=…: one token a line, without space in it, and comments on lines of their own")
		}
		if err == nil && seen[key] {
			err = errors.New("stands there twice: write one, with commas between its values")
		}
		if err != nil {
			return Rights{}, fmt.Errorf("%s %w", key, err)
		}
		seen[key] = true
	}
	return r, nil
}

// patterns splits a list, of which each one is to be valid.
func patterns(list string, valid func(string) bool) ([]string, error) {
	all := strings.Split(list, ",")
	for i, one := range all {
		if !valid(one) {
			return nil, fmt.Errorf("has a value that is none, the %d. in its list: names and domains are lower case, with commas and no space between; name=pr-*,demo and domain=app.example.org,*.example.net are right", i+1)
		}
	}
	return all, nil
}

// checkNamePattern takes what may match a name: of what path.Match takes for more
// than itself the asterisk alone.
func checkNamePattern(pattern string) bool {
	strange := func(c rune) bool { return c != '-' && c != '*' && (c < '0' || c > '9') && (c < 'a' || c > 'z') }
	return pattern != "" && len(pattern) <= protocol.MaxName && !strings.ContainsFunc(pattern, strange)
}

func checkDomainPattern(pattern string) bool {
	return protocol.CheckDomain(strings.TrimPrefix(pattern, "*.")) == nil
}
