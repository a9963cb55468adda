//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// notifyAll has the signals that exec passes on sent to c, until the function that it
// returns is called. nohup's SIGHUP stays ignored, by the command, too.
func notifyAll(c chan<- os.Signal) (stop func()) {
	for _, s := range []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT,
	} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	return func() { signal.Stop(c) }
}

// child is a command that runs in a process group of its own, which has the terminal while
// this process's group would have it.
type child struct {
	pid    int
	before []int // children of this process that are not the command's
	tty    *terminal
	done   chan struct{}  // closed when the command has ended
	code   exitCode       // then
	key    syscall.Signal // by which a key of the terminal ended it; 0: none did
}

// startChild starts the command.
func startChild(c *command, env []string) (*child, error) {
	one := &child{done: make(chan struct{})}
	started := make(chan error)
	go one.live(c, env, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return one, nil
}

// live starts the command and waits for its end, on a thread of its own: on Linux the end
// of the thread that has started a process may be the end of that.
func (c *child) live(cmd *command, env []string, started chan<- error) {
	runtime.LockOSThread()
	c.before = adopt()
	c.tty = terminalHere()
	p, err := os.StartProcess(cmd.path, cmd.args, &os.ProcAttr{
		Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: childAttributes(),
	})
	if err == nil {
		c.pid = p.Pid
		p.Release() // Wait4 knows of stops, and of the orphans that were adopted
		c.tty.handOver(c.pid)
		c.tty.ignore()
	}
	started <- err
	if err != nil {
		return
	}
	defer close(c.done)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			c.code = exitRuntime
			return
		case pid == c.pid && status.Stopped():
			c.tty.stop(c.pid)
		case pid == c.pid:
			c.ended(status)
			return
		}
	}
}

func (c *child) ended(status syscall.WaitStatus) {
	c.code = exitCode(status.ExitStatus())
	had := c.tty.takeBack()
	if !status.Signaled() {
		return
	}
	c.code = exitSignal + exitCode(status.Signal())
	if s := status.Signal(); had && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
		c.key = s
	}
}

// endBy has s end this process and its group, as a key would have that ended a command
// run alone: a script that runs this program then does not go on with its next line.
// Shells look at what their child ended by, and not at whether they got the signal
// themselves. It returns where s is ignored, and with SIGQUIT, at which Go would print
// all goroutines.
func endBy(s syscall.Signal) {
	if signal.Ignored(s) {
		return
	}
	if s == syscall.SIGQUIT {
		signal.Ignore(s)
		syscall.Kill(0, s)
		return
	}
	signal.Reset(s)
	syscall.Kill(0, s)
	time.Sleep(time.Minute) // another thread may be the one that gets it
}

// signal passes s on to the command's group.
func (c *child) signal(s os.Signal) {
	n := s.(syscall.Signal)
	if n == syscall.SIGCONT {
		c.tty.handOver(c.pid) // where this process is in the foreground again
	}
	c.send(n)
	if asksForEnd(s) {
		c.send(syscall.SIGCONT) // one that is stopped would never notice
	}
}

// kill ends the command's group at once.
func (c *child) kill() { c.send(syscall.SIGKILL) }

func (c *child) send(s syscall.Signal) {
	select {
	case <-c.done: // the id may be another's now
	default:
		syscall.Kill(-c.pid, s)
	}
}

// sweepPoll is how often it is looked what is left of a command, sweepTime how long what
// was killed may take to be gone.
const (
	sweepPoll = 20 * time.Millisecond
	sweepTime = 5 * time.Second
)

// sweep ends what the command has left running: it may end by itself within grace, or until
// end does. It returns how many processes were not to be ended.
func (c *child) sweep(end context.Context, grace time.Duration) (left int) {
	told := map[int]bool{}
	over := time.After(grace)
	var gone <-chan time.Time
	done := end.Done()
	for {
		rest := slices.DeleteFunc(leftOf(c.pid), func(pid int) bool { return slices.Contains(c.before, pid) })
		for _, pid := range rest {
			switch {
			case gone != nil:
				syscall.Kill(pid, syscall.SIGKILL)
			case !told[pid]:
				told[pid] = true
				syscall.Kill(pid, syscall.SIGTERM)
				syscall.Kill(pid, syscall.SIGCONT)
			}
		}
		if len(rest) == 0 {
			return 0
		}
		select {
		case <-gone:
			return len(rest)
		case <-over:
			over, gone = nil, time.After(sweepTime)
		case <-done:
			done, over, gone = nil, nil, time.After(sweepTime)
		case <-time.After(sweepPoll):
		}
	}
}

// terminal is the one that this process was started at; the zero value is none.
type terminal struct {
	there bool
	given atomic.Bool // to the command: what was not given is not taken back
}

// terminalHere is that of standard input: what reads its keys has to be in the foreground.
func terminalHere() *terminal { return &terminal{there: term.IsTerminal(0)} }

// ignore ignores the signal that is sent to who takes the terminal back. The command, which
// would inherit that, has been started.
func (t *terminal) ignore() {
	if t.there {
		signal.Ignore(syscall.SIGTTOU)
	}
}

// has reports whether the group has the terminal.
func (t *terminal) has(group int) bool {
	if !t.there {
		return false
	}
	now, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && now == group
}

// handOver gives the group the terminal, where this process has it.
func (t *terminal) handOver(group int) {
	if t.has(unix.Getpgrp()) {
		t.given.Store(unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, group) == nil)
		syscall.Kill(-group, syscall.SIGCONT) // it may have read before
	}
}

// takeBack takes the terminal from a command that has ended or stopped, and reports
// whether it had it.
func (t *terminal) takeBack() bool {
	return t.given.Swap(false) && unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, unix.Getpgrp()) == nil
}

// stop stops this process with its command, so that the shell that has started it notices.
// SIGCONT is passed on when that lets both go on.
func (t *terminal) stop(group int) {
	if !t.there {
		return
	}
	own, err := unix.Getsid(0)
	parent, err2 := unix.Getsid(unix.Getppid())
	if err != nil || err2 != nil || own != parent {
		syscall.Kill(-group, syscall.SIGCONT) // there is no shell to go on by
		return
	}
	t.takeBack()
	syscall.Kill(0, syscall.SIGSTOP)
}
