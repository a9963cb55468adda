package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// output is what the user sees of a tunnel. Its methods may be called from many
// goroutines.
type output interface {
	change(change)
	request(forward.Exchange)
}

// change is a tunnel.Event as it is shown.
type change struct {
	event    tunnel.EventType
	url      string
	name     string
	target   string
	code     protocol.Code
	cause    string
	byUser   bool  // a signal asked for it
	inFlight int64 // requests
}

// newOutput chooses the form: for programs, for a person at a terminal, or for a
// log.
func newOutput(p process, c *config) output {
	switch {
	case c.json:
		return &jsonLines{w: p.stdout, log: c.log}
	case isTerminal(p.stdout):
		return &screen{w: p.stdout, server: c.client.Server, color: wantsColor(), now: time.Now}
	}
	return &logLines{log: c.log}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wantsColor is no-color.org's convention. Older Windows consoles show escape
// sequences as they are.
func wantsColor() bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && runtime.GOOS != "windows"
}

// jsonLines is one JSON object a line for each change.
type jsonLines struct {
	mu  sync.Mutex
	w   io.Writer
	log *slog.Logger
}

func (j *jsonLines) change(c change) {
	line := struct {
		Event  string `json:"event"`
		URL    string `json:"url,omitempty"`
		Name   string `json:"name,omitempty"`
		Target string `json:"target,omitempty"`
		Code   string `json:"code,omitempty"`
		Cause  string `json:"cause,omitempty"`
	}{Event: string(c.event), Code: string(c.code), Cause: c.cause}
	if c.event == tunnel.Ready {
		line.URL, line.Name, line.Target = c.url, c.name, c.target
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e := json.NewEncoder(j.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(line); err != nil {
		j.log.Warn("standard output cannot be written", "err", err)
	}
}

func (j *jsonLines) request(e forward.Exchange) { logRequest(j.log, e) }

// logLines is the log alone.
type logLines struct{ log *slog.Logger }

func (l *logLines) change(c change) {
	level := slog.LevelInfo
	var attrs []any
	switch c.event {
	case tunnel.Ready:
		attrs = []any{"url", c.url, "name", c.name, "target", c.target}
	case tunnel.Disconnected:
		level = slog.LevelWarn
	}
	if c.code != "" {
		attrs = append(attrs, "code", string(c.code))
	}
	if c.cause != "" {
		attrs = append(attrs, "cause", c.cause)
	}
	l.log.Log(context.Background(), level, string(c.event), attrs...)
}

func (l *logLines) request(e forward.Exchange) { logRequest(l.log, e) }

func logRequest(log *slog.Logger, e forward.Exchange) {
	log.Debug("request", "method", e.Method, "path", e.Path, "status", e.Status,
		"bytes", e.Bytes, "duration", e.Duration, "code", string(e.Code))
}

// screen is for a person: a column of labels and one of values, then a line for
// each change and request.
type screen struct {
	mu     sync.Mutex
	w      io.Writer
	server string
	color  bool
	now    func() time.Time
}

func (s *screen) change(c change) {
	if c.event == tunnel.Ready {
		s.print("Status       online\n" +
			"Server       " + printable(s.server) + "\n" +
			"Forwarding   " + printable(c.url) + " -> " + printable(c.target) + "\n" +
			"Stop         Ctrl-C\n\n")
		return
	}
	line := string(c.event)
	switch {
	case c.event == tunnel.Draining && c.byUser:
		line += fmt.Sprintf(", %s in flight; press Ctrl-C again to stop at once", plural(c.inFlight, "request"))
	case c.cause != "":
		line += ": " + c.cause
		if c.code != "" {
			line += " (" + string(c.code) + ")"
		}
	}
	s.print(s.clock() + "  " + printable(line) + "\n")
}

func (s *screen) request(e forward.Exchange) {
	status := "cut off"
	if e.Status != 0 {
		status = fmt.Sprintf("%d", e.Status)
	}
	if e.Code != "" {
		status += " " + string(e.Code)
	}
	s.print(fmt.Sprintf("%s  %-7s %s  %s  %s\n",
		s.clock(), printable(e.Method), printable(e.Path), s.colored(status, e.Status), short(e.Duration)))
}

func (s *screen) clock() string { return s.now().Format(time.TimeOnly) }

func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	io.WriteString(s.w, text) // a terminal that has gone away needs nothing
}

// colored makes what went well green, what the visitor did wrong yellow, and the
// rest red (ECMA-48, SGR).
func (s *screen) colored(text string, status int) string {
	if !s.color {
		return text
	}
	color := "31"
	switch {
	case status >= 100 && status < 400:
		color = "32"
	case status >= 400 && status < 500:
		color = "33"
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func plural(n int64, one string) string {
	if n != 1 {
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}

// short leaves out digits that nobody reads.
func short(d time.Duration) string {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// printable makes a text that came over the network one line without control
// characters, which a terminal would obey (S22).
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// newChange adds to e what the command line knows: a signal is the cause of an
// end that has no other.
func newChange(ctx context.Context, e tunnel.Event, target string) change {
	c := change{event: e.Type, url: e.URL, name: e.Name, target: target}
	ending := e.Type == tunnel.Draining || e.Type == tunnel.Closed
	var said *protocol.Error
	switch {
	case errors.As(e.Err, &said):
		c.code, c.cause = said.Code, said.Message
	case e.Err != nil:
		c.cause = e.Err.Error()
	case ending && ctx.Err() != nil:
		c.byUser, c.cause = true, context.Cause(ctx).Error()
	}
	return c
}
