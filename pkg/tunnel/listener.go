package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// maxUnread is how many bytes of requests may have come that the handler has not
// read, in all. Beyond it the requests of which most is waiting are reset.
const maxUnread = 256 << 20

// errClosed is Accept's after Close.
var errClosed = fmt.Errorf("tunnel: listener is closed: %w", net.ErrClosed)

// Listener is a claimed name. Its connections come from the server, one HTTP/1.1
// connection each, whatever happens to the connection that carries them.
type Listener struct {
	client *Client
	log    *slog.Logger
	link   *link
	bind   *protocol.Bind
	name   string
	url    string
	urls   []string

	stop    context.CancelFunc // ends attempts to connect
	cancel  context.CancelFunc // ends run, and all sessions
	streams chan net.Conn
	ended   chan struct{} // closed when run has ended
	err     error         // why; valid after ended
	tasks   sync.WaitGroup

	mu      sync.Mutex // guards the following
	live    []*session // one, and those that the server is draining
	closing bool       // Drain or Close was called

	telling sync.Mutex // one event at a time; guards told
	told    EventType
}

// Listen connects to the server and claims a name, which [Listener.Name] and
// [Listener.URL] tell. It makes one attempt, unless Options.Retry is set; ctx
// bounds that, and has no hold on the Listener.
//
// The error wraps a [*protocol.Error] where the server said no, such as
// [protocol.Unauthorized] or [protocol.NameTaken]; it is a [*ConfigError] where a
// field can't be used, and otherwise wraps [ErrUnreachable] or, where ctx was
// cancelled, its error.
func (c *Client) Listen(ctx context.Context, o Options) (*Listener, error) {
	dialer, err := c.dialer()
	if err != nil {
		return nil, err
	}
	if o.Name != "" {
		if err := protocol.CheckName(o.Name); err != nil {
			return nil, &ConfigError{Err: err}
		}
	}
	for _, domain := range o.Domains {
		if err := protocol.CheckDomain(domain); err != nil {
			return nil, &ConfigError{Err: err}
		}
	}
	l := &Listener{
		client: c, log: c.log(), link: &link{dialer: dialer, log: c.log(), budget: mux.NewBudget(maxUnread)},
		bind: &protocol.Bind{
			ID: 1, Kind: cmp.Or(o.Kind, protocol.KindHTTP), Name: o.Name, Port: o.Port,
			Domains: slices.Clone(o.Domains), Private: o.Private, Upstream: o.Upstream,
		},
		streams: make(chan net.Conn), ended: make(chan struct{}),
	}
	if c.Transport == Raw || c.Transport == WebSocket {
		l.link.only = transport.Kind(c.Transport)
	}
	if c.TryFirst == WebSocket {
		l.link.prefer = transport.WebSocket
	}
	s, err := l.link.connect(ctx, l.bind)
	if err != nil && o.Retry && !fatal(err) {
		l.log.Warn("server cannot be reached, retrying", "err", err)
		s, err = l.reconnect(ctx, 1, err, nil)
	}
	if err != nil {
		return nil, listenError(ctx, err)
	}
	l.name, l.url, l.urls = s.name, s.url, s.urls
	l.bind.Name, l.bind.Port = s.name, s.port // the same ones again
	l.live = []*session{s}
	l.tell(Ready, nil)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	connecting, stop := context.WithCancel(running)
	l.cancel, l.stop = cancel, stop
	l.tasks.Go(func() { l.run(running, connecting, s) })
	l.tasks.Go(func() { l.watchSleep(running) })
	return l, nil
}

// listenError sorts the errors of the first attempt.
func listenError(ctx context.Context, err error) error {
	var said *protocol.Error
	var config *ConfigError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("tunnel: listen: %w", context.Cause(ctx))
	case errors.As(err, &said), errors.As(err, &config):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// Name is the claimed name. It stays the same.
func (l *Listener) Name() string { return l.name }

// URL is where visitors find the listener. It stays the same.
func (l *Listener) URL() string { return l.url }

// URLs are those of Options.Domains, in their order.
func (l *Listener) URLs() []string { return slices.Clone(l.urls) }

// Addr is the public address: its String is URL.
func (l *Listener) Addr() net.Addr { return addr(l.url) }

type addr string

func (addr) Network() string  { return "tunnel" }
func (a addr) String() string { return string(a) }

// Accept waits for a connection from the server. An error is final: it says why
// the server ended the session for good, or wraps net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.streams:
		return c, nil
	case <-l.ended:
		return nil, l.err
	}
}

// Drain gives the name back and waits until the server has got the answers to
// all requests under way, or the connection has ended; the error is ctx's.
// Connections that were upgraded, such as WebSockets, have no end to wait for.
// Close is still to be called.
func (l *Listener) Drain(ctx context.Context) error {
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

// Close gives the name back and ends the connection at once: visitors see that
// what is under way was cut off. An http.Server that is shut down closes its
// listener first, so call Drain before. Close returns when everything that the
// listener started has ended; closing twice is fine.
func (l *Listener) Close() error {
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
func (l *Listener) close() []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.stop()
	return slices.DeleteFunc(slices.Clone(l.live), func(s *session) bool { return isClosed(s.mux.Done()) })
}

func (l *Listener) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// tell calls Events, once for each change. After Drain and Close were called
// what happens to the connection is no change.
func (l *Listener) tell(t EventType, err error) {
	l.telling.Lock()
	defer l.telling.Unlock()
	final := t == Draining || t == Closed
	if l.told == Closed || l.told == t || !final && l.isClosing() {
		return
	}
	l.told = t
	l.log.Debug("connection", "event", string(t), "name", l.name, "err", err)
	if l.client.Events != nil {
		e := Event{Type: t, Name: l.name, URL: l.url, URLs: l.URLs(), Err: err}
		if t == Ready || t == Reconnected {
			e.Transport, e.RawShut = l.transport()
		}
		l.client.Events(e)
	}
}

// transport is what the newest session runs on, and whether raw was shut out.
func (l *Listener) transport() (t Transport, rawShut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) == 0 {
		return "", false
	}
	s := l.live[len(l.live)-1]
	return Transport(s.kind), s.rawShut
}

// run keeps the listener connected until it is closed or the server says no.
func (l *Listener) run(ctx, connecting context.Context, s *session) {
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

func (l *Listener) keep(ctx, connecting context.Context, s *session, sessions *sync.WaitGroup) error {
	failures := 0
	for {
		sessions.Go(func() { l.accept(ctx, s) })
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
			<-s.mux.Done() // what is under way while the server drains may finish
			return err
		}
		if !l.add(next) {
			next.farewell()
			<-s.mux.Done()
			return nil
		}
		l.tell(Reconnected, nil)
		s = next
	}
}

// watch waits until a new session is needed. Where s goes on for a while, gone
// is its end. The error is one after which no session will come.
func (l *Listener) watch(s *session) (gone <-chan struct{}, err error) {
	select {
	case <-s.draining:
		l.tell(Draining, s.reason)
		return s.mux.Done(), nil
	case <-s.mux.Done():
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

// add makes s a session of the listener, unless that is closing.
func (l *Listener) add(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.live = append(l.live, s)
	}
	return !l.closing
}

func (l *Listener) remove(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = slices.DeleteFunc(l.live, func(one *session) bool { return one == s })
}

// accept hands the server's streams to Accept until the session ends.
func (l *Listener) accept(ctx context.Context, s *session) {
	defer l.remove(s)
	defer func() { <-s.read }()
	defer context.AfterFunc(ctx, func() { s.mux.Close() })()
	for {
		stream, err := s.mux.Accept()
		if err != nil {
			return
		}
		select {
		case l.streams <- stream:
		case <-s.mux.Done():
			stream.Reset()
		}
	}
}
