package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
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
	request(request)
	close() // what was shown is written when it returns, or can't be
}

// change is a tunnel.Event as it is shown.
type change struct {
	event    tunnel.EventType
	endpoint string // of start
	url      string
	urls     []string // of the domains
	name     string
	target   string
	server   string
	served   string           // what the local app is asked: requests or connections
	listen   string           // of connect, in place of the target
	inspect  string           // where the inspector is, when ready; "": there is none
	fallback tunnel.Transport // what is used in place of raw; "": raw
	spoken   string           // on it, of PTTH: h2 or http/1.1
	code     protocol.Code
	cause    string
	byUser   bool  // a signal asked for it
	inFlight int64 // requests
	shared   sharing
	former   bool          // the endpoint is in the configuration no longer, or not so
	latency  time.Duration // to the server
}

// request is one that is over.
type request struct {
	endpoint string // of start
	at       time.Time
	forward.Exchange
}

// done shows on out what is over.
func done(out output) func(forward.Exchange) {
	return func(e forward.Exchange) { out.request(request{Exchange: e}) }
}

// newOutput chooses the form for c.
func newOutput(p process, c *config) output {
	switch {
	case c.of != nil:
		return c.of
	case c.command != nil && c.json:
		return &jsonLines{w: p.stderr, log: c.log} // the other is the command's
	case c.command != nil:
		return &logLines{log: c.log}
	}
	return p.output(c.json, c.log)
}

// output is for programs, for a person at a terminal, or a log.
func (p process) output(asJSON bool, log *slog.Logger) output {
	switch {
	case asJSON:
		return &jsonLines{w: p.stdout, log: log}
	case isTerminal(p.stdout) && drawable(p.stdout.(*os.File)):
		return newScreen(p)
	case isTerminal(p.stdout):
		return newScroll(p.stdout)
	}
	return &logLines{log: log}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// jsonLines is one JSON object a line for each change.
type jsonLines struct {
	mu  sync.Mutex
	w   io.Writer
	log *slog.Logger
}

func (j *jsonLines) change(c change) {
	line := struct {
		Event    string   `json:"event"`
		Endpoint string   `json:"endpoint,omitempty"`
		URL      string   `json:"url,omitempty"`
		URLs     []string `json:"urls,omitempty"`
		Name     string   `json:"name,omitempty"`
		Target   string   `json:"target,omitempty"`
		Listen   string   `json:"listen,omitempty"`

		Inspect   string    `json:"inspect,omitempty"`
		ShareURL  string    `json:"share_url,omitempty"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`

		Transport string `json:"transport,omitempty"`
		Protocol  string `json:"protocol,omitempty"`

		Code  string `json:"code,omitempty"`
		Cause string `json:"cause,omitempty"`
	}{Event: string(c.event), Endpoint: c.endpoint, Code: string(c.code), Cause: c.cause}
	if c.event == tunnel.Ready {
		line.URL, line.URLs, line.Name, line.Target, line.Listen = c.url, c.urls, c.name, c.target, c.listen
		line.Transport, line.Protocol = string(c.fallback), c.spoken
		line.ShareURL, line.ExpiresAt = c.shared.url, c.shared.ends.UTC().Truncate(time.Second)
	}
	if c.event == tunnel.Ready || c.event == opened {
		line.Inspect = c.inspect
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e := json.NewEncoder(j.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(line); err != nil {
		j.log.Warn("the events cannot be written", "err", err)
	}
}

func (j *jsonLines) request(r request) { logRequest(j.log, r) }

func (j *jsonLines) close() {}

// logLines is the log alone.
type logLines struct{ log *slog.Logger }

func (l *logLines) change(c change) {
	level := slog.LevelInfo
	var attrs []any
	switch c.event {
	case tunnel.Ready:
		attrs = []any{"url", c.url, "name", c.name, "target", c.target}
		if c.listen != "" {
			attrs = []any{"url", c.url, "listen", c.listen}
		}
		if c.inspect != "" {
			attrs = append(attrs, "inspect", c.inspect)
		}
		if len(c.urls) > 0 {
			attrs = append(attrs, "urls", strings.Join(c.urls, " "))
		}
		if c.shared.url != "" {
			attrs = append(attrs, "share_url", c.shared.url)
		}
		if !c.shared.ends.IsZero() {
			attrs = append(attrs, "expires_at", c.shared.ends.UTC().Format(time.RFC3339))
		}
	case opened:
		attrs = []any{"inspect", c.inspect}
	case tunnel.Disconnected:
		level = slog.LevelWarn
	case failed:
		level = slog.LevelError
	}
	if c.endpoint != "" {
		attrs = append([]any{"endpoint", c.endpoint}, attrs...)
	}
	if c.fallback != "" {
		attrs = append(attrs, "transport", string(c.fallback))
	}
	if c.spoken != "" {
		attrs = append(attrs, "protocol", c.spoken)
	}
	if c.code != "" {
		attrs = append(attrs, "code", string(c.code))
	}
	if c.cause != "" {
		attrs = append(attrs, "cause", c.cause)
	}
	l.log.Log(context.Background(), level, string(c.event), attrs...)
}

func (l *logLines) request(r request) { logRequest(l.log, r) }

func (l *logLines) close() {}

func logRequest(log *slog.Logger, r request) {
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return // what the line would be made of costs, too
	}
	if r.endpoint != "" {
		log = log.With("endpoint", r.endpoint)
	}
	log.Debug("request", "method", r.Method, "path", r.Path, "status", r.Status,
		"bytes", r.Bytes, "duration", r.Duration, "code", string(r.Code))
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

// newChange adds to e what the command line knows: why ctx has ended is the cause of an
// end that has no other.
func newChange(ctx context.Context, e tunnel.Event, target string) change {
	c := change{event: e.Type, url: e.URL, urls: e.URLs, name: e.Name, target: target, spoken: e.Protocol}
	if e.Transport != tunnel.Raw {
		c.fallback = e.Transport
	}
	ending := e.Type == tunnel.Draining || e.Type == tunnel.Closed
	var said *protocol.Error
	switch {
	case errors.As(e.Err, &said):
		c.code, c.cause = said.Code, said.Message
	case e.Err != nil:
		c.cause = e.Err.Error()
	case ending && ctx.Err() != nil:
		_, c.byUser = errors.AsType[signalError](context.Cause(ctx))
		c.cause = context.Cause(ctx).Error()
	}
	return c
}
