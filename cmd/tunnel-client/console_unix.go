//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// drawable reports whether a screen can be shown at f, a terminal.
func drawable(f *os.File) bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb" && foreground(f)
}

// foreground reports whether f is this process's to draw on: it is not where the shell
// runs it in the background.
func foreground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp() // no job control: it is
}

// watchConsole repaints s when the window has another size, and gives the terminal back
// while the process is stopped (Ctrl-Z).
func watchConsole(s *screen) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGCONT)
	if !signal.Ignored(syscall.SIGTSTP) {
		signal.Notify(signals, syscall.SIGTSTP)
	}
	end, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer signal.Stop(signals)
		for {
			select {
			case one := <-signals:
				if one == syscall.SIGTSTP {
					s.suspend(signals, end)
				}
				s.repaint()
			case <-end:
				return
			}
		}
	}()
	return func() {
		close(end)
		<-stopped
	}
}

// suspend stops the process as the signal would have, and returns when it goes on. Once a
// signal was caught, Go has no way back to what the system does at it.
func (s *screen) suspend(signals <-chan os.Signal, end <-chan struct{}) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.exit()
	if !resumable() {
		return
	}
	syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	for { // another thread may be the one to notice, and this one be faster
		select {
		case one := <-signals:
			if one == syscall.SIGCONT {
				return
			}
		case <-end:
			return
		}
	}
}

// resumable reports whether there is a shell that can have the process go on: the one that
// has put it into a process group which is not its own. Where there is none the system
// ignores SIGTSTP (POSIX, orphaned process groups), but not SIGSTOP.
func resumable() bool {
	session, err := unix.Getsid(0)
	parents, bad := unix.Getsid(os.Getppid())
	return err == nil && bad == nil && parents == session && unix.Getpgrp() != session
}
