//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One run's token is good for the next connection, and no longer; also where the clock went
// back, or stood still.
func TestTokenCommandIsRunAnew(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c := &tokenCommand{command: "echo run >>" + log + "; echo token-$(wc -l <" + log + " | tr -d ' ')", stderr: io.Discard}
	for n, want := range []string{"token-1", "token-1", "token-2", "token-3"} {
		if n == 2 {
			c.got = time.Now().Add(-reuseTime).Round(0)
		}
		if n == 3 {
			c.got = time.Now().Add(time.Hour).Round(0)
		}
		if got, err := c.source(t.Context()); got != want || err != nil {
			t.Errorf("run %d: %q, %v", n, got, err)
		}
	}
	c.command, c.got = "exit 1", time.Time{}
	for range 2 {
		if got, err := c.source(t.Context()); got != "" || err == nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// A command that does not end, or leaves something behind that does not, is not waited for.
func TestTokenCommandHangs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	c := &tokenCommand{command: "echo early-token; sleep 600; :", stderr: io.Discard}
	if got, err := c.source(ctx); got != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %q, %v", got, err)
	}
	left := filepath.Join(t.TempDir(), "left")
	c = &tokenCommand{command: "sleep 600 & echo $! >" + left + "; echo a-token", stderr: io.Discard}
	if got, err := c.source(t.Context()); got != "a-token" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("it took %v", took)
	}
	if pid, err := os.ReadFile(left); err == nil {
		(&tokenCommand{command: "kill " + string(pid), stderr: io.Discard}).run(t.Context())
	}
}

// A command that is not waited for any more leaves nothing running.
func TestTokenCommandIsKilled(t *testing.T) {
	if mayPrompt() {
		t.Skip("at a terminal the shell alone is killed")
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		c := &tokenCommand{command: "sh -c 'echo $$; exec sleep 600' >" + fifo + "; :", stderr: io.Discard}
		_, err := c.source(ctx)
		ended <- err
	}()
	alive, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	var pid int
	if _, err := fmt.Fscanln(alive, &pid); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := alive.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := alive.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("what it has started goes on: %d, %v", n, err)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Whatever is printed, what is kept of it has a bound.
func TestTokenCommandFloods(t *testing.T) {
	c := &tokenCommand{command: "head -c 3000000 /dev/zero | tr '\\0' x", stderr: io.Discard}
	if got, err := c.source(t.Context()); len(got) != maxTokenFile || strings.Trim(got, "x") != "" || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
