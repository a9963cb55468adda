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

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/pkg/protocol"
)

// lineWait is how long a request waits for room on one of the origin's connections,
// and lookAgain how often the first of those that wait looks for itself: nothing tells
// of the room that an origin of HTTP/2 makes by its SETTINGS, or by a PING.
const (
	lineWait  = 10 * time.Second
	lookAgain = 50 * time.Millisecond
)

// spareTime is how long after its first connection an origin of HTTP/2 may take to
// attach one of HTTP/1.1 for upgrades, which wait for that.
const spareTime = 3 * time.Second

// need is what a request needs a line for.
type need int

const (
	needRequest   need = iota // any line
	needContinue              // any line, of HTTP/1.1 if one is free
	needWebSocket             // a line of HTTP/1.1, or of HTTP/2 with extended CONNECT
	needUpgrade               // a line of HTTP/1.1
	needs
)

func (p *Lines) needOf(req *http.Request) need {
	switch up := strings.ToLower(req.Header.Get("Upgrade")); {
	case up == "websocket":
		return needWebSocket
	case up != "":
		return needUpgrade
	case httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue") && p.any2():
		// A server of HTTP/2 may hide it from the app and answer 100 itself, as net/http
		// does: then the visitor sends a body that the app may not want (R28).
		return needContinue
	}
	return needRequest
}

// Lines sends the requests of one origin over the connections that it has attached.
// A connection of HTTP/1.1 carries one request at a time: where all are busy, requests
// wait for one, in the order in which they came.
type Lines struct {
	max    int64
	active atomic.Int64

	mu      sync.Mutex // guards the following
	lines   []*Line
	since   time.Time              // the first line was there, or none is to come; zero: it is about to come
	spares  bool                   // one of HTTP/1.1 was
	waiting [needs][]chan struct{} // of the requests that wait for room, the oldest first
}

// any2 reports whether there is a line of HTTP/2.
func (p *Lines) any2() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, isH2)
}

func isH2(l *Line) bool { return l.h2 != nil }

// NewLines makes a pool without connections, in which requests wait for the first one
// until Abandon. maxRequests is how many requests may be
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
	p.spares = p.spares || l.h2 == nil
	if p.since.IsZero() {
		p.since = time.Now()
	}
	p.tell()
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
	defer p.mu.Unlock()
	if i := slices.Index(p.lines, l); i >= 0 {
		p.lines = slices.Delete(p.lines, i, i+1)
		for _, queue := range p.waiting {
			for _, turn := range queue { // it may have been the last that could serve them
				tell(turn)
			}
		}
	}
}

// Abandon says that no first line will come: what waits for it fails.
func (p *Lines) Abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		return
	}
	p.since = time.Now()
	for _, queue := range p.waiting {
		for _, turn := range queue {
			tell(turn)
		}
	}
}

// tell lets the first of each kind look for room. The caller holds mu.
func (p *Lines) tell() {
	for _, queue := range p.waiting {
		if len(queue) > 0 {
			tell(queue[0])
		}
	}
}

func tell(turn chan struct{}) {
	select {
	case turn <- struct{}{}:
	default:
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
	p.Abandon()
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

// Check ends the lines, but for the given one, that give no sign of life: an origin
// that attaches another connection may have lost those before. It does not wait for it.
// One of HTTP/1.1 says nothing about those of HTTP/2: it may be there for an upgrade.
func (p *Lines) Check(but *Line) {
	if but != nil && but.h2 == nil {
		return
	}
	for _, l := range p.All() {
		if l != but {
			l.ask(func(err error) {
				if err != nil {
					l.Close()
				}
			})
		}
	}
}

// Alive reports whether any of the lines gives a sign of life before ctx ends. Those of
// HTTP/1.1 cannot be asked, and count where there are no others alone: beside HTTP/2 they
// stand by, and may be open for long when the origin has gone.
func (p *Lines) Alive(ctx context.Context) bool {
	lines := p.All()
	if slices.ContainsFunc(lines, isH2) {
		lines = slices.DeleteFunc(lines, func(l *Line) bool { return !isH2(l) })
	}
	signs := make(chan bool, len(lines))
	for _, l := range lines {
		l.ask(func(err error) { signs <- err == nil })
	}
	for range lines {
		select {
		case alive := <-signs:
			if alive {
				return true
			}
		case <-ctx.Done():
			return false
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
		l, err := p.take(req.Context(), p.needOf(req))
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
func (p *Lines) take(ctx context.Context, what need) (*Line, error) {
	var turn chan struct{} // nil: it does not wait
	var timeout *time.Timer
	var look *time.Ticker
	for {
		l, err := p.pick(what, &turn)
		switch {
		case err != nil:
			return nil, err
		case l != nil && l.usable():
			return l, nil
		case l != nil:
			turn = nil // it has lost its place to a line that was closed
			continue
		}
		if timeout == nil {
			timeout, look = time.NewTimer(lineWait), time.NewTicker(lookAgain)
			defer timeout.Stop()
			defer look.Stop()
		}
		again := look.C
		if !p.isFirst(what, turn) {
			again = nil
		}
		select {
		case <-turn:
			continue
		case <-again:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-timeout.C:
			err = fmt.Errorf("%w: each connection of the origin is busy", ErrOverloaded)
		}
		p.mu.Lock()
		p.quit(what, turn)
		p.mu.Unlock()
		return nil, err
	}
}

func (p *Lines) isFirst(what need, turn chan struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting[what]) > 0 && p.waiting[what][0] == turn
}

// pick returns a line with room, which is reserved. Where there is none, or others of
// its kind have waited for longer, it returns neither that nor an error, and *turn has
// something to read when it is worth to look again.
func (p *Lines) pick(what need, turn *chan struct{}) (*Line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	some := slices.ContainsFunc(p.lines, func(l *Line) bool { return l.serves(what) })
	var l *Line
	var err error
	switch queue := p.waiting[what]; {
	case len(p.lines) == 0 && !p.since.IsZero():
		err = fmt.Errorf("%w: no connection of the origin is there", ErrNotSent)
	case len(p.lines) > 0 && !some && !p.spares && time.Since(p.since) > spareTime:
		err = ErrNoUpgrade
	case len(queue) == 0, queue[0] == *turn:
		l = p.reserve(what)
	}
	if l != nil || err != nil {
		p.quit(what, *turn)
		return l, err
	}
	if *turn == nil {
		*turn = make(chan struct{}, 1)
		p.waiting[what] = append(p.waiting[what], *turn)
	}
	return nil, nil
}

// reserve takes room on a line: for an upgrade, and where the visitor waits for 100
// (Continue), on one of HTTP/1.1 if there is one, for anything else on one of HTTP/2,
// the least busy. The caller holds mu.
func (p *Lines) reserve(what need) *Line {
	if what != needRequest {
		if l := p.reserve1(); l != nil {
			return l
		}
	}
	for {
		var best *Line
		for _, l := range p.lines {
			if l.h2 != nil && l.serves(what) && (best == nil || l.load.Load() < best.load.Load()) && l.h2.CanTakeNewRequest() {
				best = l
			}
		}
		switch {
		case best == nil && what == needRequest:
			return p.reserve1()
		case best == nil:
			return nil
		case best.take2(): // or another pool's request was faster
			return best
		}
	}
}

// reserve1 takes the line of HTTP/1.1 that was added last, of those that are free.
func (p *Lines) reserve1() *Line {
	for _, l := range slices.Backward(p.lines) {
		if l.h2 == nil && l.take1() {
			return l
		}
	}
	return nil
}

// wake lets those that wait look for room.
func (p *Lines) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell()
}

// quit takes turn out of those that wait, if it is there, and passes on what it was
// told. The caller holds mu.
func (p *Lines) quit(what need, turn chan struct{}) {
	if turn == nil {
		return
	}
	if i := slices.Index(p.waiting[what], turn); i >= 0 {
		p.waiting[what] = slices.Delete(p.waiting[what], i, i+1)
	}
	p.tell()
}
