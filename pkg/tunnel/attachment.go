package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// spares is how many idle connections of HTTP/1.1 stand by beside HTTP/2, for
	// upgrades, and mostSpares how many there may be in all. Without HTTP/2 they carry
	// everything.
	spares, mostSpares = 1, 64
	plains, mostPlains = 4, 100

	// shortLived is how soon a connection ends that the proxy did not want.
	shortLived = time.Second

	// A peer of HTTP/2 that is silent gets a PING after pingAfter, and is given up when
	// it did not answer for pingTime (R7).
	pingAfter = 15 * time.Second
	pingTime  = 15 * time.Second

	maxStreams   = 1000
	streamWindow = 256 << 10 // bytes of a request's body that may wait
	connWindow   = 4<<20 - 1 // and of all of them together; net/http takes less than 4 MiB
)

// Causes that events tell.
var (
	errGoAway = errors.New("the proxy wants another connection (GOAWAY)")
	errHungUp = errors.New("the proxy closed the connection")
	errGaveUp = errors.New("the proxy gave no sign of life, or broke the protocol")
)

// attachment is the connections by which a proxy sends requests: one of HTTP/2, with
// spare ones of HTTP/1.1 for what that cannot carry, or several of HTTP/1.1. It has
// ended when the one of HTTP/2 has, or all of the others; what is under way on other
// connections then goes on.
type attachment struct {
	b     *Backend
	s     *session
	first *attached

	h1, h2  *http.Server
	spare   *pipe              // where h1 accepts
	filling context.Context    // ends when no more connections are wanted
	stop    context.CancelFunc // ends filling
	ended   sync.Once          // closes done
	done    chan struct{}

	mu       sync.Mutex // guards the following
	conns    map[*attached]bool
	closed   bool
	draining bool          // requests on the others are waited for when that of HTTP/2 has ended
	wasted   int           // connections in a row that ended at once and unused
	err      error         // why it ended; valid after done
	turn     chan struct{} // closed and made anew with each change
}

func newAttachment(b *Backend, s *session, conn net.Conn, alpn string) *attachment {
	a := &attachment{
		b: b, s: s, spare: newPipe(), done: make(chan struct{}),
		conns: make(map[*attached]bool), turn: make(chan struct{}),
	}
	a.filling, a.stop = context.WithCancel(context.Background())
	a.h1 = a.server()
	a.h1.Protocols.SetHTTP1(true)
	a.first = &attached{Conn: conn}
	if alpn == protocol.ALPNHTTP2 {
		a.first.frames = new(frames)
		a.h2 = a.server()
		a.h2.Protocols.SetUnencryptedHTTP2(true)
		a.h2.HTTP2 = &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTime,
			MaxReceiveBufferPerConnection: connWindow, MaxReceiveBufferPerStream: streamWindow,
		}
	}
	a.add(a.first)
	return a
}

func (a *attachment) server() *http.Server {
	return &http.Server{
		Handler: a.b.handler, DisableGeneralOptionsHandler: true, Protocols: new(http.Protocols), ConnState: a.changed,
		MaxHeaderBytes: 16 << 20, // the proxy has the limit
		ErrorLog:       slog.NewLogLogger(a.b.log.Handler(), slog.LevelDebug),
	}
}

// serve serves the connections until all have ended, or ctx, with which they do.
func (a *attachment) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { a.Close() })()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { a.h1.Serve(a.spare) })
	if a.h2 != nil {
		one := newPipe()
		defer one.Close()
		tasks.Go(func() { a.h2.Serve(one) })
		one.put(a.first)
	} else {
		a.spare.put(a.first)
	}
	tasks.Go(a.fill)
	<-a.done
	a.stop()
	a.quit(ctx)
	for turned := a.turned(); !a.empty(); turned = a.turned() { // those that were upgraded
		select {
		case <-turned:
		case <-ctx.Done():
			a.Close()
		}
	}
	a.spare.Close()
}

// fill keeps as many idle connections of HTTP/1.1 as there should be.
func (a *attachment) fill() {
	want, most := plains, mostPlains
	if a.h2 != nil {
		want, most = spares, mostSpares
	}
	failures, full := 0, false
	for {
		turned := a.turned()
		idle, all, wasted := a.count()
		if all >= most && idle < want && !full {
			full = true
			a.b.log.Warn("as many connections to the proxy are in use as there may be", "connections", all)
		}
		if idle >= want || all >= most {
			select {
			case <-turned:
				continue
			case <-a.filling.Done():
				return
			}
		}
		select {
		case <-time.After(backoff(max(failures, wasted))):
		case <-a.filling.Done():
			return
		}
		failures++
		switch err := a.another(); {
		case err == nil:
			failures = 0
		case a.filling.Err() != nil:
			return
		case final(err):
			a.alone(err)
			return
		default:
			a.b.log.Debug("no further connection to the proxy", "err", err)
		}
	}
}

// another adds one connection of HTTP/1.1.
func (a *attachment) another() error {
	policy, err := a.b.lease.now()
	if err != nil {
		return err
	}
	dialer, err := tokenSource(a.b.client.TokenSource).fresh(a.filling, a.b.dialer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.filling, attemptTime)
	defer cancel()
	conn, _, err := dialer.DialPTTH(ctx, a.b.origins, policy, protocol.ALPNHTTP1)
	if err != nil {
		return err
	}
	c := &attached{Conn: conn}
	if !a.add(c) {
		conn.Close()
		return net.ErrClosed
	}
	a.spare.put(c)
	return nil
}

// final reports whether a proxy that has granted one connection will not grant a
// second one.
func final(err error) bool {
	var other *transport.UpgradeError
	return fatal(err) || errors.As(err, &other) && other.Status/100 == 4
}

// alone says that the proxy takes no further connection.
func (a *attachment) alone(err error) {
	if a.h2 != nil {
		a.b.log.Info("the proxy takes no connection of HTTP/1.1 beside that of HTTP/2: visitors' upgrades, such as WebSockets, do not get through", "err", err)
		return
	}
	a.b.log.Info("the proxy takes no further connection: requests come one at a time on each that there is", "err", err)
}

// add notes c, unless no connections are wanted any more.
func (a *attachment) add(c *attached) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	c.a, c.since = a, time.Now()
	a.conns[c] = true
	a.turns()
	return true
}

// remove notes that c is closed.
func (a *attachment) remove(c *attached) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
	switch {
	case c.used:
		a.wasted = 0
	case time.Since(c.since) < shortLived:
		a.wasted++
	}
	if c == a.first && a.h2 != nil && !a.draining || len(a.conns) == 0 {
		a.end(c)
	}
	a.turns()
}

// end is called with mu held, when the last connection that counts has ended.
func (a *attachment) end(last *attached) {
	a.ended.Do(func() {
		a.err = why(last.cause)
		close(a.done)
	})
}

// broke notes why c broke.
func (a *attachment) broke(c *attached, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.cause == nil {
		c.cause = err
	}
}

// goesAway is called when the proxy says that it sends no new requests.
func (a *attachment) goesAway() {
	a.stop()
	a.s.drains(errGoAway)
}

// changed is what net/http tells of a connection.
func (a *attachment) changed(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*attached)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c.state = state
	c.used = c.used || state == http.StateActive
	a.turns()
}

// turns is called with mu held.
func (a *attachment) turns() {
	close(a.turn)
	a.turn = make(chan struct{})
}

func (a *attachment) turned() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.turn
}

func (a *attachment) has(c *attached) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conns[c]
}

func (a *attachment) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns) == 0
}

// count is how many connections of HTTP/1.1 are idle, and how many there are.
func (a *attachment) count() (idle, all, wasted int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		if c.frames != nil {
			continue
		}
		if all++; c.state == http.StateNew || c.state == http.StateIdle {
			idle++
		}
	}
	return idle, all, a.wasted
}

// drain has the proxy send no new requests, and waits for the answers to those that
// are under way; the error is ctx's.
func (a *attachment) drain(ctx context.Context) error {
	a.mu.Lock()
	a.draining = true
	a.mu.Unlock()
	a.stop()
	if a.h2 == nil {
		return a.quit(ctx)
	}
	a.first.leave()
	err := a.quit(ctx)
	for turned := a.turned(); err == nil && a.has(a.first); turned = a.turned() {
		select {
		case <-turned:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining = false; !a.conns[a.first] {
		a.end(a.first)
	}
	return err
}

// quit ends the connections of HTTP/1.1 that are idle, and the others when they have
// answered.
func (a *attachment) quit(ctx context.Context) error {
	a.mu.Lock()
	var unused []*attached
	for c := range a.conns {
		if c.frames == nil && c.state == http.StateNew {
			unused = append(unused, c) // Shutdown would give them some seconds
		}
	}
	a.mu.Unlock()
	for _, c := range unused {
		c.Close()
	}
	return a.h1.Shutdown(ctx)
}

// Close ends all connections at once.
func (a *attachment) Close() error {
	a.stop()
	a.mu.Lock()
	a.closed = true
	var all []*attached
	for c := range a.conns {
		all = append(all, c)
	}
	a.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
	return nil
}

func (a *attachment) Done() <-chan struct{} { return a.done }

// Err says why the attachment ended; nil: it has not.
func (a *attachment) Err() error {
	if !isClosed(a.done) {
		return nil
	}
	return a.err
}

// Ping does nothing: net/http sends PINGs itself, and tells nobody.
func (a *attachment) Ping(context.Context) (time.Duration, error) { return 0, nil }

// Idle is not known.
func (a *attachment) Idle() time.Duration { return 0 }

// pipe is a net.Listener of connections that are there already.
type pipe struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), over: make(chan struct{})} }

// put hands conn to Accept, or closes it where nobody accepts any more.
func (p *pipe) put(conn net.Conn) {
	select {
	case p.conns <- conn:
	case <-p.over:
		conn.Close()
	}
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

func (p *pipe) Addr() net.Addr { return addr("ptth") }
