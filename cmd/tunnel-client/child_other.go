//go:build !unix

package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// notifyAll has Ctrl-C sent to c, until the function that it returns is called. The
// command, at the same console, gets it by itself.
func notifyAll(c chan<- os.Signal) (stop func()) {
	signal.Notify(c, os.Interrupt)
	return func() { signal.Stop(c) }
}

// child is a command that runs.
type child struct {
	process *os.Process
	done    chan struct{}  // closed when it has ended
	code    exitCode       // then
	key     syscall.Signal // 0: no key is known to have ended it
}

func startChild(c *command, env []string) (*child, error) {
	p, err := os.StartProcess(c.path, c.args, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return nil, err
	}
	one := &child{process: p, done: make(chan struct{}), code: exitRuntime}
	go func() {
		defer close(one.done)
		if state, err := p.Wait(); err == nil {
			one.code = exitCode(state.ExitCode())
		}
	}()
	return one, nil
}

// signal has Ctrl-C alone, which has reached the command already. All else ends it.
func (c *child) signal(s os.Signal) {
	if s != os.Interrupt {
		c.kill()
	}
}

// kill ends the command, and what it has started.
func (c *child) kill() { killTree(c.process) }

// killTree ends p, and what it has started.
func killTree(p *os.Process) error {
	exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(p.Pid)).Run()
	return p.Kill() // where there is no taskkill
}

// endBy does nothing: no key is known here.
func endBy(syscall.Signal) {}

// sweep does nothing: what a command leaves behind cannot be found here.
func (c *child) sweep(context.Context, time.Duration) (left int) { return 0 }
