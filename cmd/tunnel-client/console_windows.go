package main

import (
	"os"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// sizeTime is how often the window's size is asked for: nobody tells.
const sizeTime = time.Second

// drawable reports whether a screen can be shown at f, a console, and has it obey
// control sequences.
func drawable(f *os.File) bool {
	var mode uint32
	console := windows.Handle(f.Fd())
	return windows.GetConsoleMode(console, &mode) == nil &&
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}

// foreground is always so: there is no job control.
func foreground(*os.File) bool { return true }

// watchConsole repaints s when the window has another size.
func watchConsole(s *screen) (stop func()) {
	end, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(sizeTime)
		defer tick.Stop()
		cols, rows := 0, 0
		for {
			select {
			case <-tick.C:
			case <-end:
				return
			}
			if c, r, err := term.GetSize(int(s.tty.Fd())); err == nil && (c != cols || r != rows) {
				cols, rows = c, r
				s.repaint()
			}
		}
	}()
	return func() {
		close(end)
		<-stopped
	}
}
