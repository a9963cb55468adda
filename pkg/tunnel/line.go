package tunnel

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// maxUnread is how many bytes may have come on a line's streams that nobody has
// read, in all. Beyond it the streams of which most is waiting are reset.
const maxUnread = 256 << 20

// errAway is why there is no latency.
var errAway = errors.New("tunnel: the connection to the server is away")

// line is a connection to the server that is made again by itself: what a
// [Listener] and a [Connector] have in common.
type line struct {
	client *Client
	log    *slog.Logger
	name   string
	url    string
	urls   []string

	connect func(context.Context) (*session, error) // makes one attempt to get a session
	serve   func(context.Context, *session)         // uses a session until it has ended
	spent   func()                                  // a session goes on beside the next one: its ids ran out

	stop   context.CancelFunc // ends attempts to connect
	cancel context.CancelFunc // ends run, and all sessions
	ended  chan struct{}      // closed when run has ended
	err    error              // why; valid after ended
	tasks  sync.WaitGroup

	mu      sync.Mutex // guards the following
	live    []*session // one, and those that are being drained
	closing bool       // Drain or Close was called

	telling sync.Mutex // one event at a time; guards told
	told    EventType
}

// newLine is a line whose sessions have streams, and claim bind, if there is one.
func (c *Client) newLine(dialer *transport.Dialer, bind *protocol.Bind) line {
	k := c.link(dialer)
	return line{
		client: c, log: c.log(),
		connect: func(ctx context.Context) (*session, error) { return k.connect(ctx, bind) },
		spent:   func() { k.resume = "" }, // the next session is not to fence it
	}
}

// link is what makes the sessions of a line.
func (c *Client) link(dialer *transport.Dialer) *link {
	l := &link{dialer: dialer, source: c.TokenSource, log: c.log(), budget: mux.NewBudget(maxUnread), maxOpened: c.maxOpened}
	if c.Transport == Raw || c.Transport == WebSocket {
		l.only = transport.Kind(c.Transport)
	}
	if c.TryFirst == WebSocket {
		l.prefer = transport.WebSocket
	}
	return l
}

// first makes the first session.
func (l *line) first(ctx context.Context, retry bool) (*session, error) {
	s, err := l.connect(ctx)
	if err != nil && retry && !fatal(err) {
		l.log.Warn("server cannot be reached, retrying", "err", err)
		s, err = l.reconnect(ctx, 1, err, nil)
	}
	return s, err
}

// begin goes on with the first session, until end.
func (l *line) begin(ctx context.Context, s *session) {
	l.ended = make(chan struct{})
	l.live = []*session{s}
	l.tell(Ready, nil)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	connecting, stop := context.WithCancel(running)
	l.cancel, l.stop = cancel, stop
	l.tasks.Go(func() { l.run(running, connecting, s) })
	l.tasks.Go(func() { l.watchSleep(running) })
}

// end ends the line at once, and returns when everything that it started has ended.
func (l *line) end() error {
	var leaving sync.WaitGroup
	for _, s := range l.close() {
		leaving.Go(s.farewell)
	}
	leaving.Wait()
	l.cancel()
	l.tasks.Wait()
	return nil
}

// close notes that no new session is wanted, and returns those that live.
func (l *line) close() []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.stop()
	return slices.DeleteFunc(slices.Clone(l.live), func(s *session) bool { return isClosed(s.Done()) })
}

// drain notes that no new session is wanted, gives the name back and waits until
// the answers to all requests under way have arrived, or the sessions have ended; the
// error is ctx's.
func (l *line) drain(ctx context.Context) error {
	sessions := l.close()
	if len(sessions) > 0 {
		l.tell(Draining, nil)
	}
	errs := make(chan error)
	for _, s := range sessions {
		go func() { errs <- s.drain(ctx) }()
	}
	var err error
	for range sessions {
		err = cmp.Or(err, <-errs)
	}
	return err
}

// drainAfter runs until, which returns why the line has ended. When ctx ends it drains
// the line, and ends it.
func (l *line) drainAfter(ctx context.Context, until func() error) error {
	served := make(chan error, 1)
	go func() { served <- until() }()
	var err error
	select {
	case err = <-served: // the line has ended for good
	case <-ctx.Done():
		grace := max(l.client.grace(), 0)
		draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		if err := l.drain(draining); errors.Is(err, context.DeadlineExceeded) {
			l.log.Warn("grace is over, ending what is left", "grace", grace)
		}
		cancel()
		l.end()
		err = <-served
	}
	if errors.Is(err, errClosed) {
		return nil
	}
	return err
}

func (l *line) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// tell calls Events, once for each change. After Drain and Close were called
// what happens to the connection is no change.
func (l *line) tell(t EventType, err error) {
	l.telling.Lock()
	defer l.telling.Unlock()
	final := t == Draining || t == Closed
	if l.told == Closed || l.told == t || !final && l.isClosing() {
		return
	}
	l.told = t
	l.log.Debug("connection", "event", string(t), "name", l.name, "err", err)
	if l.client.Events != nil {
		e := Event{Type: t, Name: l.name, URL: l.url, URLs: slices.Clone(l.urls), Err: err}
		if t == Ready || t == Reconnected {
			e.Transport, e.Protocol, e.RawShut = l.transport()
		}
		l.client.Events(e)
	}
}

// transport is what the newest session runs on, what is spoken there by PTTH, and
// whether raw was shut out.
func (l *line) transport() (t Transport, alpn string, rawShut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) == 0 {
		return "", "", false
	}
	s := l.live[len(l.live)-1]
	return Transport(s.kind), s.alpn, s.rawShut
}

// latency asks the newest session for a sign of life.
func (l *line) latency(ctx context.Context) (time.Duration, error) {
	l.mu.Lock()
	live := slices.Clone(l.live)
	l.mu.Unlock()
	if len(live) == 0 {
		return 0, errAway
	}
	return live[len(live)-1].Ping(ctx)
}

// run keeps the line connected until it is closed or the server says no.
func (l *line) run(ctx, connecting context.Context, s *session) {
	var sessions sync.WaitGroup
	err := l.keep(ctx, connecting, s, &sessions)
	if l.isClosing() {
		err = nil
	}
	l.close()
	l.tell(Closed, err)
	l.err = err
	if err == nil {
		l.err = errClosed
	}
	close(l.ended)
	l.cancel()
	sessions.Wait()
}

func (l *line) keep(ctx, connecting context.Context, s *session, sessions *sync.WaitGroup) error {
	failures := 0
	for {
		sessions.Go(func() { l.serve(ctx, s) })
		start := time.Now()
		gone, err := l.watch(s)
		if err != nil {
			return err
		}
		// A server that takes a session and ends it at once is not asked in a loop.
		if failures++; time.Since(start) > maxBackoff {
			failures = 0
		}
		next, err := l.reconnect(connecting, failures, nil, gone)
		if err != nil {
			<-s.Done() // what is under way while the server drains may finish
			return err
		}
		if !l.add(next) {
			next.farewell()
			<-s.Done()
			return nil
		}
		l.tell(Reconnected, nil)
		s = next
	}
}

// watch waits until a new session is needed. Where s goes on for a while, gone
// is its end. The error is one after which no session will come.
func (l *line) watch(s *session) (gone <-chan struct{}, err error) {
	select {
	case <-s.draining:
		if s.spent() {
			l.spent()
		}
		l.tell(Draining, s.reason)
		return s.Done(), nil
	case <-s.Done():
	}
	err = s.err()
	if errors.Is(err, &protocol.Error{Code: protocol.Draining}) {
		l.tell(Draining, errServerDrains) // it had no time to say so before
	}
	l.tell(Disconnected, err)
	if fatal(err) {
		return nil, err
	}
	return nil, nil
}

// add makes s a session of the line, unless that is closing.
func (l *line) add(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.live = append(l.live, s)
	}
	return !l.closing
}

func (l *line) remove(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = slices.DeleteFunc(l.live, func(one *session) bool { return one == s })
}
