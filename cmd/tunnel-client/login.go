package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const loginDescription = `The token is asked for on the terminal and not shown, or it is the first line of standard
input. The server is asked whether it lets this client in by it; then it is kept for that
server, in tunnel-client/ below $XDG_CONFIG_HOME, or in the system's directory for settings, in a
file that only you can read.

All commands show it to that server, and to no other, where there is neither --token-file nor
TUNNEL_TOKEN. tunnel-client logout forgets it.`

// loginTime bounds the question to the server.
const loginTime = 30 * time.Second

// loginFlags are those of login and logout.
func loginFlags() []cli.Flag { return pick("server", "transport", "proxy", "ca") }

func (p process) loginCommand() *cli.Command {
	return &cli.Command{
		Name: "login", Usage: "keep the token for a server", UsageText: "tunnel-client login [options]",
		Description: loginDescription, Flags: loginFlags(),
		HideHelpCommand: true, OnUsageError: onUsageError, Action: p.login,
	}
}

func (p process) logoutCommand() *cli.Command {
	return &cli.Command{
		Name: "logout", Usage: "forget the token for a server", UsageText: "tunnel-client logout [--server URL]",
		Description: "What login has kept for the server is removed. The token itself stays good: its server's operator ends that.",
		Flags:       pick("server"), HideHelpCommand: true, OnUsageError: onUsageError, Action: p.logout,
	}
}

func (p process) login(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageError{errors.New("login takes no argument: the token is asked for, or read from standard input")}
	}
	t, err := client(c)
	if err == nil {
		err = t.Validate()
	}
	if err != nil {
		return usageError{err}
	}
	kept, err := loginFile(t.Server)
	if err != nil {
		return usageError{fmt.Errorf("there is no place to keep a token: %w", err)}
	}
	if t.Token, err = p.askToken(t.Server); err != nil {
		return loginError(err)
	}
	config := &config{client: t, hasToken: true, login: true, logFormat: "text"}
	if config.exposesToken() {
		fmt.Fprintln(p.stderr, "tunnel-client: the token crosses the network in the clear: use an https:// server")
	}
	ctx, cancel := context.WithTimeout(c.Context, loginTime)
	defer cancel()
	if err := t.Check(ctx); err != nil {
		if errors.Is(err, tunnel.ErrUnreachable) && !errors.Is(err, tunnel.ErrNotTunnelServer) {
			err = fmt.Errorf("%w; nothing is kept", err)
		}
		config.report(p.stderr, err)
		return codeOf(err)
	}
	if err := keepLogin(kept, t.Server, t.Token); err != nil {
		return usageError{fmt.Errorf("the token cannot be kept: %w", err)}
	}
	fmt.Fprintf(p.stdout, "%s lets you in; the token is kept in %s\n", printable(t.Server), printable(kept))
	if os.Getenv("TUNNEL_TOKEN") != "" {
		fmt.Fprintln(p.stderr, "tunnel-client: TUNNEL_TOKEN is set, and counts more than what is kept")
	}
	return nil
}

// loginError is what kept the user from giving a token.
func loginError(err error) error {
	if _, ok := errors.AsType[signalError](err); ok {
		return codeOf(err)
	}
	return usageError{err}
}

func (p process) logout(c *cli.Context) error {
	server := text(c, "server")
	kept, err := loginFile(server)
	if err == nil {
		err = os.Remove(kept)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(p.stdout, "no token is kept for %s\n", printable(server))
	case err != nil:
		return usageError{fmt.Errorf("the token cannot be removed: %w", err)}
	default:
		fmt.Fprintf(p.stdout, "the token for %s is forgotten\n", printable(server))
	}
	return nil
}

// askToken reads the token from the terminal, or the first line of standard input.
func (p process) askToken(server string) (string, error) {
	line, err := "", errors.New("there is no standard input")
	if f, ok := p.stdin.(*os.File); ok && isTerminal(f) {
		fmt.Fprintf(p.stderr, "Token for %s: ", printable(server))
		line, err = p.readHidden(f)
		fmt.Fprintln(p.stderr)
	} else if p.stdin != nil {
		line, err = bufio.NewReader(io.LimitReader(p.stdin, maxTokenFile)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("the token cannot be read: %w", err)
	}
	t := strings.TrimSpace(line)
	if t == "" {
		return "", errors.New("no token was entered")
	}
	if err := checkToken(t); err != nil {
		return "", fmt.Errorf("the token %w", err)
	}
	return t, nil
}

// readHidden reads a line that the terminal does not show. A signal would end the process
// and leave the terminal like that.
func (p process) readHidden(f *os.File) (string, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	signals := make(chan os.Signal, 2)
	p.notify(signals)
	type entered struct {
		line []byte
		err  error
	}
	done := make(chan entered, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- entered{line, err}
	}()
	select {
	case e := <-done:
		return string(e.line), e.err
	case s := <-signals:
		return "", errors.Join(signalError{s}, term.Restore(fd, before))
	}
}

// keptToken is what login keeps.
type keptToken struct {
	Server string `json:"server"`
	Token  string `json:"token"`
}

// loginFile is where the token for server is kept.
func loginFile(server string) (string, error) {
	dir, err := configHome()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(canonical(server)))
	return filepath.Join(dir, "login", hex.EncodeToString(sum[:12])+".json"), nil
}

func keepLogin(path, server, token string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(keptToken{Server: canonical(server), Token: token})
	if err != nil {
		return err
	}
	return replaceFile(path, append(data, '\n'), 0o600)
}

// loginToken is what login has kept for server, or "". A file that cannot be read is no
// wish to go without.
func loginToken(server string) (string, error) {
	path, err := loginFile(server)
	if err != nil {
		return "", nil // nobody could log in
	}
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var kept keptToken
	if err == nil && (json.Unmarshal(data, &kept) != nil || kept.Server != canonical(server) || kept.Token == "" || checkToken(kept.Token) != nil) {
		err = fmt.Errorf("%s is damaged", path) // and no part of it is shown
	}
	if err != nil {
		return "", fmt.Errorf("what tunnel-client login has kept cannot be read: %w: log in again", err)
	}
	return kept.Token, nil
}
