package tunnel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	minBackoff = 100 * time.Millisecond
	// maxBackoff is short, so that a client is back within 5 s when the path has
	// healed, or the server is there again (R8). A server that has too much to do says
	// itself when to come again.
	maxBackoff = 3 * time.Second

	// sleepCheck is how often the clock is looked at; a step of more than
	// sleepGap means that the machine, or the process, was asleep.
	sleepCheck = 2 * time.Second
	sleepGap   = 8 * time.Second
	// sleepPing is how long the server may take to answer after a sleep.
	sleepPing = 3 * time.Second
)

// Causes that events tell.
var (
	errServerDrains = errors.New("the server is shutting down")
	errServerGone   = errors.New("the server has shut down")
	errSpent        = errors.New("the connection has carried as many streams as it can")
	errAfterSleep   = fmt.Errorf("no sign of life from the server for %v after a sleep", sleepPing)
)

// backoff is how long to wait before attempt n: not at all before the first,
// then a random time below a bound that doubles ("full jitter"), so that many
// clients of one server do not come back in step.
func backoff(n int) time.Duration {
	if n == 0 {
		return 0
	}
	limit := maxBackoff
	if n < 8 {
		limit = min(limit, minBackoff<<(n-1))
	}
	return rand.N(limit) + 1
}

// reconnect makes attempts until one succeeds, ctx ends, or the server says no
// for good. n is the number of the first, and last why the one before failed, if
// there was one. Where gone is not nil it is the end of a session that the server
// is draining.
func (l *line) reconnect(ctx context.Context, n int, last error, gone <-chan struct{}) (*session, error) {
	for ; ; n++ {
		wait := time.NewTimer(pause(n, last))
		for waiting := true; waiting; {
			select {
			case <-wait.C:
				waiting = false
			case <-gone:
				l.tell(Disconnected, errServerGone)
				gone = nil
			case <-ctx.Done():
				wait.Stop()
				return nil, interrupted(ctx, last)
			}
		}
		s, err := l.connect(ctx)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil:
			return nil, interrupted(ctx, last)
		case fatal(err):
			return nil, err
		}
		l.log.Info("reconnecting", "attempt", n+1, "err", err)
		last = err
	}
}

// pause is how long to wait before attempt n, after err.
func pause(n int, err error) time.Duration {
	var refused *transport.Refused
	if !errors.As(err, &refused) || refused.Err.Code == protocol.Draining {
		// One that drains knows when it ends, not when another takes its place.
		return backoff(n)
	}
	// The server knows when it will have time; not all come at once then.
	return refused.RetryAfter + backoff(n)
}

// interrupted is ctx's error, with what was wrong until then.
func interrupted(ctx context.Context, last error) error {
	if last == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), last)
}

// watchSleep asks the server for a sign of life when the machine has slept, so
// that a laptop that is opened is back at once and not when the silence has
// lasted long enough (R9). The wall clock tells, as the other one may stop.
func (l *line) watchSleep(ctx context.Context) {
	now := l.client.now
	if now == nil {
		now = time.Now
	}
	tick := time.NewTicker(sleepCheck)
	defer tick.Stop()
	last := now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		woke := now().Round(0)
		if woke.Sub(last) > sleepGap {
			l.checkLife(ctx)
		}
		last = now().Round(0)
	}
}

// checkLife ends the sessions whose server does not answer.
func (l *line) checkLife(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sleepPing)
	defer cancel()
	l.mu.Lock()
	sessions := slices.Clone(l.live)
	l.mu.Unlock()
	for _, s := range sessions {
		asked := time.Now()
		_, err := s.Ping(ctx)
		// Any byte is life: on a slow link the answer may stand behind much else.
		if errors.Is(err, context.DeadlineExceeded) && s.Idle() >= time.Since(asked) {
			s.end(errAfterSleep)
		}
	}
}
