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
					s.suspend(signals)
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

// suspend stops the process as the signal would have, and returns when it goes on.
func (s *screen) suspend(signals chan os.Signal) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.exit()
	signal.Reset(syscall.SIGTSTP)
	syscall.Kill(syscall.Getpid(), syscall.SIGTSTP)
	signal.Notify(signals, syscall.SIGTSTP)
}
