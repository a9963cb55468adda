package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// maxTokenFile bounds what is read of a token file, in bytes.
const maxTokenFile = 1 << 20

// token is what the user named, or "". There is no flag for a token itself,
// because other users see flags in ps. No error shows a part of it.
func token(c *cli.Context) (string, error) {
	if !c.IsSet("token-file") {
		t := strings.TrimSpace(os.Getenv("TUNNEL_TOKEN"))
		if err := checkToken(t); err != nil {
			return "", fmt.Errorf("TUNNEL_TOKEN %w", err)
		}
		return t, nil
	}
	path := c.String("token-file")
	if path == "" {
		// A variable that was not filled in is no wish to go without.
		return "", errors.New("--token-file names no file")
	}
	t, err := readToken(path)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return "", fmt.Errorf("--token-file %s: %w", path, err)
	}
	return t, nil
}

// readToken returns the first token in a file of the server's form: one a line,
// with # comments. The file may be a pipe.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", err
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // Windows editors write it
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := checkToken(line); err != nil {
			return "", fmt.Errorf("the token %w", err)
		}
		return line, nil
	}
	return "", errors.New("it holds no token: put one into it, on a line of its own")
}

// checkToken allows what the server does: visible ASCII (RFC 6750, section 2.1,
// and more).
func checkToken(t string) error {
	for _, c := range []byte(t) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("has a space, a control character or one outside of ASCII in it")
		}
	}
	return nil
}
