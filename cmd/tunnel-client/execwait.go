package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	pollTime = 100 * time.Millisecond // between two looks at whether the app is ready
	// lookTime is for one look: an app that compiles what is asked for takes its time.
	lookTime = 10 * time.Second
)

// commandError says that COMMAND cannot be run.
type commandError struct {
	code exitCode
	error
}

func (e commandError) Unwrap() error { return e.error }

// notReadyError says that the app was not ready in time.
type notReadyError struct {
	what    string
	timeout time.Duration
	last    error
}

func (e notReadyError) Error() string {
	return fmt.Sprintf("the local app is not ready: %s did not answer within %s: %v", e.what, e.timeout, e.last)
}

func (e notReadyError) Unwrap() error { return e.last }

// findCommand is the path of COMMAND. It tells, as shells do, what is not there from what
// cannot be run.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		return path, nil // whoever has "." in PATH wants that
	case strings.ContainsRune(name, filepath.Separator) && !errors.Is(err, fs.ErrNotExist),
		errors.Is(err, exec.ErrNotFound) && lies(name):
		return "", commandError{exitNotExecutable, fmt.Errorf("%s: it cannot be run: is it executable, and no directory?", name)}
	}
	return "", commandError{exitNotFound, fmt.Errorf("%s: command not found", name)}
}

// lies reports whether a file of that name is in a directory of PATH.
func lies(name string) bool {
	if strings.ContainsRune(name, filepath.Separator) {
		return false
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// awaitApp returns when the app is ready: nil, or a notReadyError after the time-out, or
// ctx's error.
func (c *config) awaitApp(ctx context.Context) error {
	timeout, what, look := c.command.timeout, c.target.String(), c.lookAtTarget
	if c.command.wait != nil {
		what, look = c.command.wait.Redacted(), c.lookAtURL()
	}
	within := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	due, limited := within.Deadline()
	var last error
	for {
		one, cancel := context.WithTimeout(within, lookTime)
		err := look(one)
		cancel()
		switch {
		case err == nil:
			return nil
		case last == nil || !limited || time.Now().Before(due):
			last = err // else it would only say that time is up, which a dial may notice before ctx
		}
		select {
		case <-within.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return notReadyError{what, timeout, last}
		case <-time.After(pollTime):
		}
	}
}

// lookAtTarget succeeds when the target takes connections.
func (c *config) lookAtTarget(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, c.target.Network, c.target.Addr)
	if err != nil {
		return err
	}
	if c.prepare != nil {
		c.prepare(conn, "") // or the app's log has a broken header
	}
	return conn.Close()
}

// lookAtURL returns what succeeds when the URL of --wait answers well. It follows no
// redirects: the app answers, and that is enough.
func (c *config) lookAtURL() func(context.Context) error {
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, // or the connection would be the app's to close at its end
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: c.forward.Insecure},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.command.wait.String(), nil)
		if err != nil {
			return err
		}
		r.Header.Set("User-Agent", c.client.Agent)
		res, err := client.Do(r)
		if err != nil {
			if of, ok := errors.AsType[*url.Error](err); ok {
				err = of.Err
			}
			return err
		}
		res.Body.Close()
		if res.StatusCode >= 400 {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	}
}
