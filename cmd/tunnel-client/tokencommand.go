package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	// reuseTime is how long the token of one connection is that of the next one, too. While
	// the server is away there is an attempt every few seconds, and some commands are dear.
	reuseTime = 5 * time.Second
	// pipeTime is how long what a command has started may keep its output after its end.
	pipeTime = time.Second
)

// tokenCommand gets tokens from a command of the user's.
type tokenCommand struct {
	command string
	stderr  io.Writer

	mu    sync.Mutex // one command runs at a time; guards the following
	token string
	got   time.Time // without the monotonic clock, which stands still while the machine sleeps
}

// tokenSource runs --token-command, or is nil where there is none.
func tokenSource(c *cli.Context) (func(context.Context) (string, error), error) {
	switch command := c.String("token-command"); {
	case !c.IsSet("token-command"):
		return nil, nil
	case c.IsSet("token-file"):
		return nil, errors.New("--token-command and --token-file (or the variables TUNNEL_TOKEN_COMMAND and TUNNEL_TOKEN_FILE) exclude each other: leave one out")
	case strings.TrimSpace(command) == "":
		// A variable that was not filled in is no wish to go without.
		return nil, errors.New("--token-command names no command")
	default:
		return (&tokenCommand{command: command, stderr: c.App.ErrWriter}).source, nil
	}
}

// showsToken reports whether the user named a token, or what prints one.
func showsToken(t *tunnel.Client) bool { return t.Token != "" || t.TokenSource != nil }

// source is tunnel.Client's TokenSource.
func (c *tokenCommand) source(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := time.Since(c.got); c.token != "" && age >= 0 && age < reuseTime {
		return c.token, nil
	}
	token, err := c.run(ctx)
	c.token, c.got = token, time.Now().Round(0)
	return token, err
}

func (c *tokenCommand) run(ctx context.Context) (string, error) {
	var out beginning
	cmd := shell(ctx, c.command)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, c.stderr, pipeTime
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("--token-command has printed none in time: %w", ctx.Err())
	// exec waits for whatever has ended, and may have been faster.
	case err != nil && !errors.Is(err, exec.ErrWaitDelay) && !errors.Is(err, syscall.ECHILD):
		return "", fmt.Errorf("--token-command: %w", err)
	}
	line, _, _ := strings.Cut(string(out.kept), "\n")
	token := strings.TrimSpace(line)
	if token == "" {
		return "", errors.New("--token-command printed none: it must be the first line")
	}
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("what --token-command has printed %w", err)
	}
	return token, nil
}

// beginning keeps the first bytes of what is written.
type beginning struct{ kept []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), maxTokenFile-len(b.kept))]...)
	return len(p), nil
}
