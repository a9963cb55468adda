package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// lineWait is how long a request waits for room on one of the origin's connections.
const lineWait = 10 * time.Second

// Lines sends the requests of one origin over the connections that it has attached.
// A connection of HTTP/1.1 carries one request at a time: where all are busy, requests
// wait for one, in the order in which they came.
type Lines struct {
	max    int64
	active atomic.Int64

	mu      sync.Mutex // guards the following
	lines   []*Line
	waiting []chan struct{} // those of the requests that wait for room, the oldest first
}

// NewLines makes a pool without connections. maxRequests is how many requests may be
// under way at once, or wait; 0 is 10,000.
func NewLines(maxRequests int) *Lines {
	if maxRequests <= 0 {
		maxRequests = 10_000
	}
	return &Lines{max: int64(maxRequests)}
}

// Add lets l serve the origin's requests, unless it has left.
func (p *Lines) Add(l *Line) bool {
	if !l.join(p) {
		return false
	}
	p.mu.Lock()
	p.lines = append(p.lines, l)
	n := len(p.waiting)
	if l.h2 == nil {
		n = min(n, 1)
	}
	for _, c := range p.waiting[:n] {
		c <- struct{}{}
	}
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.mu.Unlock()
	select {
	case <-l.left: // it may have left before it was in the list
		p.remove(l)
	default:
	}
	return true
}

// remove takes l out.
func (p *Lines) remove(l *Line) {
	p.mu.Lock()
	i := slices.Index(p.lines, l)
	if i >= 0 {
		p.lines = slices.Delete(p.lines, i, i+1)
	}
	none := i >= 0 && len(p.lines) == 0
	var waiting []chan struct{}
	if none {
		waiting, p.waiting = p.waiting, nil
	}
	p.mu.Unlock()
	for _, c := range waiting {
		c <- struct{}{} // to learn that nobody is there
	}
}

// All returns the lines there are.
func (p *Lines) All() []*Line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// Drop gives the lines up: those that serve nothing else are shut down, which takes as
// long as what is under way on them, and until ctx ends at most.
func (p *Lines) Drop(ctx context.Context) {
	var ending sync.WaitGroup
	for _, l := range p.All() {
		last := l.part(p)
		p.remove(l)
		if last {
			ending.Go(func() { l.Shutdown(ctx) })
		}
	}
	ending.Wait()
}

// Check ends the lines, but for the given one, that give no sign of life before ctx
// ends: an origin that attaches another connection may have lost those before.
func (p *Lines) Check(ctx context.Context, but *Line) {
	var asking sync.WaitGroup
	for _, l := range p.All() {
		if l != but {
			asking.Go(func() {
				if l.Ping(ctx) != nil {
					l.Close()
				}
			})
		}
	}
	asking.Wait()
}

// Alive reports whether any of the lines gives a sign of life before ctx ends.
func (p *Lines) Alive(ctx context.Context) bool {
	lines := p.All()
	signs := make(chan bool, len(lines))
	for _, l := range lines {
		go func() { signs <- l.Ping(ctx) == nil }()
	}
	for range lines {
		if <-signs {
			return true
		}
	}
	return false
}

// Active is how many requests are under way or wait, with upgraded connections.
func (p *Lines) Active() int { return int(p.active.Load()) }

// RoundTrip sends req to the origin. Its errors are those of a [Pool]'s route, and
// [ErrNoUpgrade].
func (p *Lines) RoundTrip(req *http.Request) (*http.Response, error) {
	return p.RoundTripInterim(req, nil)
}

// RoundTripInterim is what proxy.Forward asks for.
func (p *Lines) RoundTripInterim(req *http.Request, got1xx func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	if p.active.Add(1) > p.max {
		p.leave()
		return nil, ErrOverloaded
	}
	open := false
	defer func() {
		if !open {
			p.leave()
		}
	}()
	res, err := p.trip(req, got1xx)
	if err != nil {
		return nil, err
	}
	if res.Body == http.NoBody {
		return res, nil
	}
	open = true
	if rwc, ok := res.Body.(io.ReadWriteCloser); ok {
		res.Body = &upgraded{ReadWriteCloser: rwc, pool: p}
	} else {
		delete(res.Trailer, protocol.HeaderError)
		res.Body = &body{ReadCloser: res.Body, pool: p, res: res}
	}
	return res, nil
}

func (p *Lines) leave()         { p.active.Add(-1) }
func (p *Lines) leaveUpgraded() { p.active.Add(-1) }

// trip sends req on a line with room. One of HTTP/2 may turn out to take no upgrade.
func (p *Lines) trip(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	for {
		l, err := p.take(req.Context(), strings.ToLower(req.Header.Get("Upgrade")))
		if err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
		res, err := l.trip(req, got1xx)
		if !errors.Is(err, ErrNoUpgrade) {
			return res, err
		}
	}
}

// take finds a line with room, and waits for one for lineWait.
func (p *Lines) take(ctx context.Context, upgrade string) (*Line, error) {
	var timeout *time.Timer
	for {
		l, wait, err := p.pick(upgrade, timeout != nil)
		switch {
		case err != nil:
			return nil, err
		case l != nil && l.usable():
			return l, nil
		case l != nil:
			continue
		}
		if timeout == nil {
			timeout = time.NewTimer(lineWait)
			defer timeout.Stop()
		}
		select {
		case <-wait:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-timeout.C:
			err = fmt.Errorf("%w: each connection of the origin is busy", ErrOverloaded)
		}
		p.giveUp(wait)
		return nil, err
	}
}

// pick returns a line with room: for an upgrade a free one of HTTP/1.1 if there is one,
// for anything else one of HTTP/2, the least busy. Where there is room on none it
// returns what to wait for; a request that has waited before stands first.
func (p *Lines) pick(upgrade string, again bool) (*Line, <-chan struct{}, error) {
	var left []*Line
	defer func() {
		for _, l := range left {
			l.leave()
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *Line
	most, some := 0, false
	for _, l := range p.lines {
		if l.h2 == nil {
			some = true
			continue
		}
		room := l.room2()
		if room < 0 {
			left = append(left, l)
			continue
		}
		if upgrade != "" && (upgrade != "websocket" || l.isPlain()) {
			continue
		}
		if some = true; room > most {
			best, most = l, room
		}
	}
	queued := len(p.waiting) > 0 && !again
	if best == nil && !queued || upgrade != "" {
		for _, l := range slices.Backward(p.lines) {
			if l.h2 == nil && l.take1() {
				return l, nil, nil
			}
		}
	}
	switch {
	case best != nil:
		return best, nil, nil
	case len(p.lines) == len(left):
		return nil, nil, fmt.Errorf("%w: no connection of the origin is there", ErrNotSent)
	case !some:
		return nil, nil, ErrNoUpgrade
	}
	c := make(chan struct{}, 1)
	if again {
		p.waiting = slices.Insert(p.waiting, 0, c)
	} else {
		p.waiting = append(p.waiting, c)
	}
	return nil, c, nil
}

// wakeOne lets the request look again that has waited longest.
func (p *Lines) wakeOne() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 {
		p.waiting[0] <- struct{}{}
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
}

// giveUp ends the wait on c. The room that it was told of is another's.
func (p *Lines) giveUp(c <-chan struct{}) {
	p.mu.Lock()
	i := slices.IndexFunc(p.waiting, func(w chan struct{}) bool { return w == c })
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 {
		p.wakeOne()
	}
}
