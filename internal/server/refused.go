package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// maxRefusedLines is how many refusals of one code are logged in a minute, or
// whoever asks again and again would fill the log.
const maxRefusedLines = 10

// refused counts refusals. The zero value has seen none.
type refused struct {
	mu    sync.Mutex // guards the following
	codes map[protocol.Code]*refusals
}

// refusals are those of one code within a minute.
type refusals struct {
	since    time.Time
	logged   int
	unlogged int // since the last line
}

// log writes a line about a refusal, as often as is bearable.
func (r *refused) log(log *slog.Logger, code protocol.Code, line string, args ...any) {
	level, unlogged := r.count(code, time.Now())
	if unlogged > 0 {
		args = append(args, "unlogged", unlogged)
	}
	log.Log(context.Background(), level, line, args...)
}

// count returns the level at which a refusal is logged, and how many there were
// since the last line that is above debug.
func (r *refused) count(code protocol.Code, now time.Time) (level slog.Level, unlogged int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.codes[code]
	if n == nil {
		n = &refusals{since: now}
		if r.codes == nil {
			r.codes = make(map[protocol.Code]*refusals)
		}
		r.codes[code] = n
	}
	if now.Sub(n.since) >= time.Minute {
		n.since, n.logged = now, 0
	}
	if code == protocol.LoginThrottled || n.logged == maxRefusedLines { // the throttle has a line of its own
		n.unlogged++
		return slog.LevelDebug, 0
	}
	n.logged++
	unlogged, n.unlogged = n.unlogged, 0
	return slog.LevelInfo, unlogged
}
