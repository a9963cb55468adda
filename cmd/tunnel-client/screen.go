package main

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	// frameTime is how long a frame stands, at least.
	frameTime = 100 * time.Millisecond
	// latencyTime is how often the way to the server is measured.
	latencyTime = 5 * time.Second

	// Control sequences of DEC and xterm, which all terminals took over: the other
	// screen, which leaves alone what is in the first, without a cursor and without
	// wrapping, or a character that is wider than thought would tear the frame.
	enter      = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leave      = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	topLeft    = "\x1b[H"
	clearRow   = "\x1b[K" // clears the rest of the row
	clearBelow = "\x1b[J" // clears the rest of the screen
)

// What only a screen shows.
const (
	trying   tunnel.EventType = "trying"   // which server is asked
	measured tunnel.EventType = "measured" // how far it is
)

// screen is for a person at a terminal: all of the window, from ready, or where there are
// endpoints with names from their first, until close; and what stays of it then on the
// first screen.
//
// A terminal can be held (Ctrl-S), and no request may wait for that: requests change
// what is to be seen, and a goroutine of its own writes it.
type screen struct {
	tty     *os.File
	err     *outlet // whose lines are taken in; nil: they go elsewhere
	now     func() time.Time
	dirty   chan struct{} // holds one where there is something new to be seen
	ending  chan struct{}
	written chan struct{}

	mu   sync.Mutex // guards the following
	on   bool       // there is something to be seen
	view view

	writing sync.Mutex // held while something is written; guards entered
	entered bool
}

func newScreen(p process) *screen {
	s := &screen{
		tty: p.stdout.(*os.File), now: time.Now, dirty: make(chan struct{}, 1),
		ending: make(chan struct{}), written: make(chan struct{}),
		view: view{color: wantsColor(), endpoints: []*shown{{}}},
	}
	if err, ok := p.stderr.(*outlet); ok && isTerminal(err.w) {
		s.err = err
	}
	go s.paint()
	return s
}

// paint shows what is new until close.
func (s *screen) paint() {
	defer close(s.written)
	defer s.finish()
	defer watchConsole(s)()
	for {
		select {
		case <-s.dirty:
		case <-s.ending:
			return
		}
		s.draw()
		select {
		case <-time.After(frameTime):
		case <-s.ending:
			return
		}
	}
}

// draw writes a whole frame, whatever else may have been written there.
func (s *screen) draw() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	on := s.on
	cols, rows, err := term.GetSize(int(s.tty.Fd()))
	if err != nil || cols < 1 || rows < 1 {
		cols, rows = 80, 24
	}
	lines := s.view.frame(cols, rows)
	s.mu.Unlock()
	if !on || !foreground(s.tty) {
		return
	}
	// A row is cleared first: behind its last column that would take the last character.
	frame := topLeft + clearRow + strings.Join(lines, "\r\n"+clearRow)
	if len(lines) < rows {
		frame += "\r\n" + clearBelow
	}
	if !s.entered {
		frame = enter + frame
	}
	s.entered = true
	io.WriteString(s.tty, frame) // a terminal that has gone away needs nothing
}

// finish gives the first screen back, with what stays.
func (s *screen) finish() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	on, lines := s.on, s.view.last()
	s.mu.Unlock()
	if on {
		s.exit()
		io.WriteString(s.tty, strings.Join(lines, "\n")+"\n")
	}
}

// exit gives the first screen back. It is called with writing held.
func (s *screen) exit() {
	if s.entered {
		io.WriteString(s.tty, leave)
	}
	s.entered = false
}

func (s *screen) close() {
	close(s.ending)
	select {
	case <-s.written:
	case <-time.After(lastLines):
	}
	if s.err != nil {
		s.err.divert(nil)
	}
}

func (s *screen) change(c change) {
	s.update(func() {
		if s.view.change(c, s.now()); c.event == tunnel.Ready {
			s.show()
		}
	})
}

// arrange has the endpoints be names; those of begun begin anew.
func (s *screen) arrange(names, begun []string, inspect string) {
	s.update(func() {
		s.view.arrange(names, begun, inspect)
		s.show()
	})
}

// refuse shows what is wrong with the new configuration until there is another one.
func (s *screen) refuse(wrong problems) {
	s.update(func() { s.view.refuse(wrong) })
}

// show is called with mu held.
func (s *screen) show() {
	if !s.on && s.err != nil {
		s.err.divert(s.log)
	}
	s.on = true
}

func (s *screen) request(r request) {
	r.at = s.now()
	s.update(func() { s.view.request(r) })
}

// log takes a line of the log in, whose time is that of the note.
func (s *screen) log(line string) {
	line = strings.TrimSuffix(line, "\n")
	if strings.HasPrefix(line, "time=") {
		_, line, _ = strings.Cut(line, " ")
	}
	s.update(func() { s.view.note(note{at: s.now(), text: printable(line)}) })
}

// update changes what is to be seen.
func (s *screen) update(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	s.repaint()
}

func (s *screen) repaint() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// live reports whether out is a screen, or shown on one.
func live(out output) bool {
	if m, ok := out.(*member); ok {
		out = m.starter.out
	}
	_, ok := out.(*screen)
	return ok
}

// measure shows how far the server is, where out shows it and l can tell, until ctx
// ends.
func measure(ctx context.Context, out output, l any) {
	tells, can := l.(interface {
		Latency(context.Context) (time.Duration, error)
	})
	if !can || !live(out) {
		return
	}
	for {
		asking, cancel := context.WithTimeout(ctx, latencyTime)
		if trip, err := tells.Latency(asking); err == nil {
			out.change(change{event: measured, latency: trip})
		}
		cancel()
		select {
		case <-time.After(latencyTime):
		case <-ctx.Done():
			return
		}
	}
}
