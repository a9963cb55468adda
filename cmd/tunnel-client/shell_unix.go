//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// shell runs a command as the user would type it. The end of ctx kills all of it, but for
// what the command has put into a group of its own. At a terminal it kills the shell alone:
// what prompts has to be in the group that has the terminal, which is this process's.
func shell(ctx context.Context, command string) *exec.Cmd {
	c := exec.CommandContext(ctx, "sh", "-c", command)
	if !mayPrompt() {
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	}
	return c
}

// mayPrompt reports whether there is a terminal, whatever the standard files are.
func mayPrompt() bool {
	tty, err := os.Open("/dev/tty")
	if err == nil {
		tty.Close()
	}
	return err == nil
}
