package main

import (
	"context"
	"os/exec"
	"syscall"
)

// shell runs a command as the user would type it. cmd has quotes of its own: with /s it
// takes off the first and the last one, and leaves the rest as it is. The end of ctx kills
// all that it has started.
func shell(ctx context.Context, command string) *exec.Cmd {
	c := exec.CommandContext(ctx, "cmd")
	c.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /d /s /c "` + command + `"`}
	c.Cancel = func() error { return killTree(c.Process) }
	return c
}
