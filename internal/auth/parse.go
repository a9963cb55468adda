package auth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Limits of a token file, in bytes.
const (
	maxFile  = 1 << 20
	minToken = 8
	maxToken = 4096
)

// errNoToken is of a file that was read, and lets nobody in.
var errNoToken = errors.New("holds no token")

// parse returns the sum of each token in data. The tokens themselves are not
// kept.
func parse(data []byte) (map[digest]Identity, error) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return nil, errors.New("is UTF-16: save it as UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	sums := make(map[digest]Identity)
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := check(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		sum := sha256.Sum256(line)
		sums[sum] = identity("token:", sum)
	}
	if len(sums) == 0 {
		return nil, errNoToken
	}
	return sums, nil
}

// check allows what travels unharmed in an Authorization field (RFC 6750,
// section 2.1, and every other visible ASCII character).
func check(token []byte) error {
	for _, c := range token {
		switch {
		case c == ' ' || c == '\t':
			return errors.New("a token with space in it: one token a line, comments on lines of their own")
		case c < ' ' || c == 0x7f:
			return errors.New("a token with a control character in it")
		case c > 0x7f:
			return errors.New("a token with a character outside of ASCII")
		}
	}
	if len(token) < minToken || len(token) > maxToken {
		return fmt.Errorf("a token of %d characters, where %d to %d are allowed", len(token), minToken, maxToken)
	}
	return nil
}
