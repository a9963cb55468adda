package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/tunnel"
)

// command is what exec runs, beside the tunnel.
type command struct {
	path    string
	args    []string      // the first is its name, as the user wrote it
	port    string        // for PORT; "": not asked for
	wait    *url.URL      // that answers when the app is ready; nil: the target takes connections
	timeout time.Duration // to be ready in; 0: without limit
	ready   atomic.Bool
}

// appReady is told, after tunnel.Ready, when visitors reach the app.
const appReady tunnel.EventType = "app_ready"

func (p process) execCommand() *cli.Command {
	return &cli.Command{
		Name:            "exec",
		Usage:           "run a command with its public URL, and end with it",
		UsageText:       "tunnel-client exec --target TARGET [options] -- COMMAND [ARGUMENT...]",
		Description:     execDescription,
		Flags:           execFlags(),
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			config, err := configure(c, p.stderr)
			if err != nil {
				return usageError{err}
			}
			err = p.exec(c.Context, config)
			if key, ok := err.(keyError); ok {
				endBy(key.signal)
				return key.exitCode
			}
			if code, ok := err.(exitCode); ok {
				return code // COMMAND's own, or a signal's: there is nothing to tell
			}
			if err != nil {
				config.report(p.stderr, err)
				return codeOf(err)
			}
			return nil
		},
	}
}

// newCommand reads what only exec has.
func newCommand(c *cli.Context, f *config) (*command, error) {
	cmd := &command{args: c.Args().Slice(), timeout: c.Duration("wait-timeout")}
	if len(cmd.args) == 0 || cmd.args[0] == "" {
		return nil, errors.New("exec needs a COMMAND: tunnel-client exec --target 3000 -- npm start (see tunnel-client exec --help)")
	}
	if f.listen.Private {
		return nil, errors.New("--private has no public URL for COMMAND: use tunnel-client http --private beside it")
	}
	if c.Bool("set-port") {
		if cmd.port = f.target.Addr[strings.LastIndexByte(f.target.Addr, ':')+1:]; f.target.Network == "unix" {
			return nil, errors.New("--set-port: a socket has no port")
		}
	}
	if wait := c.String("wait"); wait != "" {
		u, err := url.Parse(wait)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return nil, errors.New("--wait is not http://HOST… or https://HOST…, such as http://localhost:3000/healthz")
		}
		cmd.wait = u
	}
	return cmd, nil
}

// environ is that of COMMAND. The token, and what --token-command gets one with, is nobody's
// business but this process's.
func (c *command) environ(public string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "TUNNEL_TOKEN") && name != "TUNNEL_URL" && (name != "PORT" || c.port == "") {
			env = append(env, v)
		}
	}
	env = append(env, "TUNNEL_URL="+public)
	if c.port != "" {
		env = append(env, "PORT="+c.port)
	}
	return env
}

// execution is a command that runs behind its public name.
type execution struct {
	*exposed
	file    *urlFile
	signals chan os.Signal
	asked   asking // since the command runs

	drain, end context.Context // as those of process.watch
	over       context.CancelCauseFunc
	cut        context.CancelCauseFunc
}

// exec claims the name, runs the command, and gives the name back when it has ended. The
// error is an exitCode where the command ended with another than 0, and a keyError where
// that was a key's doing.
func (p process) exec(ctx context.Context, c *config) error {
	path, err := findCommand(c.command.args[0])
	if err != nil {
		return err
	}
	c.command.path = path
	file, err := newURLFile(c.urlFile)
	if err != nil {
		return usageError{err}
	}
	defer file.remove()
	if c.exposesToken() {
		c.log.Warn(tokenInTheClear, "server", c.client.Server)
	}
	e := &execution{file: file, signals: make(chan os.Signal, 64)}
	e.drain, e.over = context.WithCancelCause(ctx)
	e.end, e.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	defer e.over(nil)
	defer e.cut(nil)
	defer notifyAll(e.signals)()
	e.exposed = newExposed(p, c)
	defer e.out.close()
	defer e.app.Close()
	c.client.Events = func(event tunnel.Event) { e.show(e.drain, event) }
	l, err := e.claimed()
	if err != nil {
		return err
	}
	child, err := startChild(c.command, c.command.environ(l.URL()))
	if err != nil {
		l.Close()
		return commandError{exitNotExecutable, fmt.Errorf("%s: %w", c.command.args[0], err)}
	}
	return e.run(l, child)
}

// claimed claims the name. A signal that ends the command ends that.
func (e *execution) claimed() (endpoint, error) {
	var l endpoint
	var err error
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		l, err = e.open(e.drain, e.claim)
	}()
	var ended error
	for {
		select {
		case s := <-e.signals:
			if endsBefore(s) && ended == nil {
				ended = codeOf(signalError{s})
				e.over(signalError{s})
			}
			continue
		case <-opened:
		}
		if ended != nil && err == nil {
			l.Close()
		}
		if ended != nil {
			return nil, ended // no 0: the command was not run
		}
		return l, err
	}
}

// run returns when the command, what it started, and the tunnel have ended.
func (e *execution) run(l endpoint, c *child) error {
	served, waited := make(chan error, 1), make(chan error, 1)
	go func() {
		defer close(served)
		served <- e.serve(e.drain, e.end, l)
	}()
	waiting, stop := context.WithCancel(e.end)
	go func() { waited <- e.awaitApp(waiting) }()
	failure := e.attend(l, c, served, waited)
	stop()
	e.over(endedError{c.code})
	e.finish(c, served)
	switch {
	case failure != nil:
		return failure
	case c.key != 0:
		return keyError{c.code, c.key}
	case c.code != 0:
		return c.code
	}
	return nil
}

// attend passes signals on to the command until it has ended. The error is why it had to.
func (e *execution) attend(l endpoint, c *child, served, waited <-chan error) (failure error) {
	grace := max(e.client.Grace, 0)
	var late <-chan time.Time // when the command, which is to end, is killed; nil: it may go on
	for {
		var failed error
		select {
		case <-c.done:
			return failure
		case <-late:
			e.log.Warn("the command does not end, so it is killed", "grace", grace)
			c.kill()
		case s := <-e.signals:
			if !asksForEnd(s) {
				c.signal(s)
				continue
			}
			switch asked := e.asked.next(s); {
			case asked == asksFirst && late == nil:
				c.signal(s)
				late = time.After(grace)
			case asked != asksTwice:
				c.kill()
			}
		case failed = <-served:
			served = nil
		case failed = <-waited:
			if waited = nil; failed == nil {
				failed = e.appeared(l)
			}
		}
		if failed != nil && late == nil {
			failure = failed
			c.signal(syscall.SIGTERM)
			late = time.After(grace)
		}
	}
}

// appeared lets visitors reach the app.
func (e *execution) appeared(l endpoint) error {
	e.command.ready.Store(true)
	e.out.change(change{event: appReady})
	return e.file.write(l.URL())
}

// finish ends what the command has left behind, and waits for the tunnel to drain. A
// signal that asks for an end ends both at once.
func (e *execution) finish(c *child, served <-chan error) {
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		if left := c.sweep(e.end, max(e.client.Grace, 0)); left > 0 {
			e.log.Warn("not all that the command started could be ended", "processes", left)
		}
	}()
	for done := (<-chan struct{})(swept); done != nil || served != nil; {
		select {
		case s := <-e.signals:
			if asksForEnd(s) && e.asked.next(s) != asksTwice {
				e.cut(signalError{s})
			}
		case <-served: // how the tunnel ended is told in its events
			served = nil
		case <-done:
			done = nil
		}
	}
}

// asksForEnd reports whether s is one after which the command has --grace to end in, and
// whose repetition ends it at once. Others are only passed on: SIGHUP may mean reload.
func asksForEnd(s os.Signal) bool { return s == os.Interrupt || s == syscall.SIGTERM }

// endsBefore reports whether s is one that ends exec while there is no command.
func endsBefore(s os.Signal) bool {
	return asksForEnd(s) || s == syscall.SIGHUP || s == syscall.SIGQUIT
}

// keyError says that a key of the terminal, such as Ctrl-C, has ended the command.
type keyError struct {
	exitCode
	signal syscall.Signal
}

// endedError is the cause of a tunnel's end when its command has ended.
type endedError struct{ code exitCode }

func (e endedError) Error() string { return fmt.Sprintf("the command ended with %d", int(e.code)) }
