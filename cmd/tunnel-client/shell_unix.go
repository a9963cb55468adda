//go:build unix

package main

import (
	"context"
	"os/exec"
)

// shell runs a command as the user would type it.
func shell(ctx context.Context, command string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", "-c", command)
}
