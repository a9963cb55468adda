package upstream

//lint:file-ignore SA1019 see line2.go

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/transport"
)

// ErrNoUpgrade says that no connection of the origin can carry the upgrade that was
// asked for: those of HTTP/2 carry WebSockets alone, and only where the origin takes
// extended CONNECT (RFC 8441).
var ErrNoUpgrade = errors.New("no connection of the origin can be upgraded so")

// Line is one connection on which HTTP runs with the roles turned around, as PTTH
// makes them: we are the client. It serves the requests of each [Lines] that it was
// added to. Make it with [NewLine].
type Line struct {
	conn *lineConn
	h2   *http2.ClientConn // nil: HTTP/1.1
	h1   *proxy.Transport

	shut  sync.Once
	left  chan struct{} // closed when it takes no more requests
	gone  sync.Once
	going chan struct{} // closed when the origin says that it takes no more

	missed int // looks in a row; of run alone

	load atomic.Int64 // of HTTP/2: requests under way, or about to be

	mu     sync.Mutex // guards the following
	busy   bool       // of HTTP/1.1: a request is under way
	plain  bool       // of HTTP/2: the origin does not take extended CONNECT
	pools  map[*Lines]struct{}
	asking []func(error) // those that wait for the sign of life that was asked for
}

// NewLine makes a line of conn, which is its own from then on: of HTTP/2 with prior
// knowledge (RFC 9113, section 3.3), or of HTTP/1.1. With HTTP/2 it returns when the
// origin has shown that it speaks that, or ctx ends.
func NewLine(ctx context.Context, conn net.Conn, h2 bool) (*Line, error) {
	l := &Line{conn: newLineConn(conn), left: make(chan struct{}), going: make(chan struct{}), pools: make(map[*Lines]struct{})}
	if !h2 {
		l.h1 = l.transport1()
		l.conn.watch()
		go l.run()
		return l, nil
	}
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	err := l.start2(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.conn.Close()
		return nil, fmt.Errorf("the origin does not speak HTTP/2 as it said: %w", err)
	}
	go l.run()
	return l, nil
}

// run waits for the line's end, and takes it out of its pools. One that takes no more
// requests ends with the last that is under way.
func (l *Line) run() {
	looking := time.NewTicker(lookEvery)
	defer looking.Stop()
	for {
		select {
		case <-looking.C:
			l.look()
			continue
		case <-l.conn.done:
		case <-l.going:
			l.leave()
			ctx, cancel := context.WithTimeout(context.Background(), goTime)
			l.Shutdown(ctx)
			cancel()
		}
		break
	}
	l.leave()
	if l.h1 != nil {
		l.h1.CloseIdle()
	}
}

// How an origin is noticed that is gone, within 40 s (R8). It is looked at every lookEvery,
// and has missed a look of HTTP/2 where nothing came since the one before, and of
// HTTP/1.1, which has no PING, where its kernel has acknowledged nothing that it was to;
// where nothing is, TCP's keep-alive does it. Looks are counted, and no time, as this
// process may have been stopped.
const (
	lookEvery = 5 * time.Second
	pingFrom  = 3 // looks that were missed: then it is asked
	missMost  = 7 // beyond, it is given up
)

func (l *Line) look() {
	if l.h2 != nil && l.conn.heard.Swap(false) || l.h2 == nil && !transport.Unheard(l.conn.Conn, lookEvery) {
		l.missed = 0
		return
	}
	l.missed++
	switch {
	case l.missed > missMost:
		l.conn.silent.Store(true)
		l.Close()
	case l.missed >= pingFrom && l.h2 != nil:
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), lookEvery)
			defer cancel()
			l.h2.Ping(ctx)
		}()
	}
}

// goTime is how long what is under way may take where the origin said GOAWAY.
const goTime = 10 * time.Minute

// Left is closed when the line takes no more requests: it has ended, or its origin
// said GOAWAY and lets finish what is under way.
func (l *Line) Left() <-chan struct{} { return l.left }

// Done is closed when the connection has ended.
func (l *Line) Done() <-chan struct{} { return l.conn.done }

// Silent reports whether the connection was given up because the origin did not
// answer.
func (l *Line) Silent() bool { return l.conn.silent.Load() }

// leave takes the line out of its pools.
func (l *Line) leave() {
	l.shut.Do(func() { close(l.left) })
	l.mu.Lock()
	pools := l.pools
	l.pools = nil
	l.mu.Unlock()
	for p := range pools {
		p.remove(l)
	}
}

// askTime is how long an origin may take for a sign of life that was asked for.
const askTime = 3 * time.Second

// ask asks the origin for a sign of life, once for all that ask at the same time, and
// tells what came of it, from another goroutine. Any byte is one: on a slow path the
// answer to a PING may wait for long behind an answer to a request. Of HTTP/1.1, which
// has no PING, an open connection is one.
func (l *Line) ask(tell func(error)) {
	if l.h2 == nil {
		if l.open() {
			tell(nil)
		} else {
			tell(net.ErrClosed)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking = append(l.asking, tell); len(l.asking) > 1 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		var heard atomic.Bool
		ear := func() { heard.Store(true); cancel() }
		l.conn.ear.Store(&ear)
		err := l.h2.Ping(ctx)
		l.conn.ear.Store(nil)
		if heard.Load() {
			err = nil
		}
		if err == nil && !l.open() {
			err = net.ErrClosed
		}
		l.mu.Lock()
		asking := l.asking
		l.asking = nil
		l.mu.Unlock()
		for _, tell := range asking {
			tell(err)
		}
	}()
}

// Shutdown takes no more requests, tells the origin so where it speaks HTTP/2, and
// closes the connection when those under way have ended, or ctx has.
func (l *Line) Shutdown(ctx context.Context) {
	l.leave()
	// An origin that reads nothing would hold up what tells it.
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	if l.h2 != nil {
		l.h2.Shutdown(ctx)
	} else {
		l.settle(ctx)
	}
	l.Close()
}

// settle waits until no request is under way.
func (l *Line) settle(ctx context.Context) {
	poll := time.NewTicker(settlePoll)
	defer poll.Stop()
	for l.isBusy() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		case <-l.conn.done:
			return
		}
	}
}

// settlePoll is how often it is seen whether a line is idle that is to end.
const settlePoll = 50 * time.Millisecond

func (l *Line) isBusy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy
}

// Close ends the connection, and what is under way on it with an error.
func (l *Line) Close() {
	l.leave()
	l.conn.Close()
}

// join makes the line one of p's, unless it has left.
func (l *Line) join(p *Lines) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pools == nil {
		return false
	}
	l.pools[p] = struct{}{}
	return true
}

// part takes the line out of p, and reports whether p was its last pool.
func (l *Line) part(p *Lines) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pools == nil {
		return false
	}
	delete(l.pools, p)
	return len(l.pools) == 0
}

// serves reports whether the line may serve what is needed, when it has room.
func (l *Line) serves(what need) bool {
	return l.h2 == nil || what < needWebSocket || what == needWebSocket && !l.isPlain()
}

// freed tells the line's pools that there is room.
func (l *Line) freed() {
	l.mu.Lock()
	l.busy = false
	var few [4]*Lines
	pools := few[:0]
	for p := range l.pools {
		pools = append(pools, p)
	}
	l.mu.Unlock()
	for _, p := range pools {
		p.wake()
	}
}

// trip sends a request on the line, which has room for it.
func (l *Line) trip(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	if l.h2 != nil {
		return l.trip2(req, got1xx)
	}
	return l.trip1(req, got1xx)
}

// explain adds to err what it means that the line has ended.
func (l *Line) explain(err error) error {
	if errors.Is(err, ErrNotSent) || errors.Is(err, context.Canceled) || errors.Is(err, proxy.ErrRequestBody) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if l.lost() {
		return fmt.Errorf("%w: %w", ErrSessionLost, err)
	}
	return err
}

// lost reports whether the connection has ended under a request. That of HTTP/1.1 is
// also closed by who sends on it, for an answer that is none.
func (l *Line) lost() bool {
	if l.h2 == nil {
		return l.conn.broke.Load()
	}
	return !l.open()
}
