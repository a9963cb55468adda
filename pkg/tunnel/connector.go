package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// errDisconnected is Dial's after Close.
var errDisconnected = fmt.Errorf("tunnel: connector is closed: %w", net.ErrClosed)

// Connector reaches private endpoints: those that other clients of the same token
// have claimed with Options.Private. Like a [Listener] it has one connection to the
// server, which is made again by itself. Its methods may be called from many
// goroutines.
type Connector struct {
	line

	guard    sync.Mutex // guards the following
	current  *carrier   // the session for new connections; nil: none
	changed  chan struct{}
	open     int           // connections
	drained  chan struct{} // closed when draining and none is open
	draining bool
}

// carrier is a session that carries connections.
type carrier struct {
	*session
	calls calls
	open  int
	idle  chan struct{} // closed when its ids ran out, another one is there, and none is open
}

// ConnectOptions tune a Connector.
type ConnectOptions struct {
	// Retry makes Connect keep trying, until its context ends, where the server
	// can't be reached at first or has no room.
	Retry bool
}

// Connect connects to the server to reach private endpoints. It makes one attempt,
// unless ConnectOptions.Retry is set; ctx bounds that, and has no hold on the
// Connector. The errors are those of [Client.Listen]; that of a server without private
// endpoints has [protocol.KindUnsupported]. Whether there is an endpoint shows only when
// it is dialled.
func (c *Client) Connect(ctx context.Context, o ConnectOptions) (*Connector, error) {
	dialer, err := c.dialer()
	if err != nil {
		return nil, err
	}
	if c.Transport == PTTH {
		return nil, errNoStreams()
	}
	d := &Connector{
		line:    c.newLine(dialer, nil),
		changed: make(chan struct{}), drained: make(chan struct{}),
	}
	d.serve = d.carry
	s, err := d.first(ctx, o.Retry)
	if err != nil {
		return nil, listenError(ctx, err)
	}
	d.begin(ctx, s)
	return d, nil
}

// Dial connects to the private endpoint name. While the connection to the server is
// away it waits, until ctx ends; ctx has no hold on what it returns. The connection
// has CloseWrite, which ends one direction, and Reset, of which the other side sees an
// error; one that is lost reads an error, never io.EOF.
//
// The error is a [*protocol.Error] where the server or the other client said no, such as
// [protocol.NameUnknown], [protocol.ClientOffline] or [protocol.AppRefused]; or it is
// ctx's; or it says why the connector has ended, and wraps net.ErrClosed after Close.
//
// An endpoint of kind UDP has names of its own, see DialUDP: that one is there, and no
// other, has [protocol.WrongKind].
func (d *Connector) Dial(ctx context.Context, name string) (net.Conn, error) {
	c, err := d.dial(ctx, protocol.KindTCP, name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// dial is Dial, and DialCapsules of kind UDP.
func (d *Connector) dial(ctx context.Context, kind protocol.Kind, name string) (*conn, error) {
	if err := protocol.CheckName(name); err != nil {
		return nil, err
	}
	for {
		c, err := d.take(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := c.calls.call(ctx, c.mux, kind, name)
		if err == nil {
			return &conn{rawConn: stream, remote: addr("private:" + name), release: sync.OnceFunc(func() { d.release(c) })}, nil
		}
		d.release(c)
		if ctx.Err() != nil || !errors.Is(err, errNotCarried) {
			return nil, callError(ctx, kind, name, err)
		}
		d.leave(c) // nothing of the caller's has left: it may go by another session
	}
}

// Done is closed when the connector has ended, see Err.
func (d *Connector) Done() <-chan struct{} { return d.ended }

// Err says why the server ended the connector for good, wraps net.ErrClosed after
// Close, and is nil before.
func (d *Connector) Err() error {
	if !isClosed(d.ended) {
		return nil
	}
	if errors.Is(d.err, errClosed) {
		return errDisconnected
	}
	return d.err
}

// Active is how many connections are open.
func (d *Connector) Active() int {
	d.guard.Lock()
	defer d.guard.Unlock()
	return d.open
}

// Latency is [Listener.Latency].
func (d *Connector) Latency(ctx context.Context) (time.Duration, error) { return d.latency(ctx) }

// Drain takes no new connections and waits until those that are open have been closed,
// ctx ends, whose error it returns, or the connector does. Close is still to be called.
func (d *Connector) Drain(ctx context.Context) error {
	d.close()
	d.tell(Draining, nil)
	d.refuse()
	select {
	case <-d.drained:
		return nil
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connector and its connections at once, which both sides see as an
// error. It returns when everything that the connector started has ended; closing twice
// is fine.
func (d *Connector) Close() error {
	d.refuse()
	return d.end()
}

// refuse lets Dial through no more, also where it waits.
func (d *Connector) refuse() {
	d.guard.Lock()
	defer d.guard.Unlock()
	d.draining = true
	d.become(d.current)
	d.settle()
}

// carry lets Dial use s until it has ended, or is not needed any more.
func (d *Connector) carry(ctx context.Context, s *session) {
	defer d.remove(s)
	defer func() { <-s.read }()
	defer context.AfterFunc(ctx, func() { s.mux.Close() })()
	var refusing sync.WaitGroup
	defer refusing.Wait()
	refusing.Go(func() { refuseAll(s) })
	c := &carrier{session: s, idle: make(chan struct{})}
	d.use(c)
	select {
	case <-s.mux.Done():
	case <-c.idle:
		s.farewell()
	}
	d.leave(c)
}

// refuseAll resets what the server opens: nobody has claimed a name.
func refuseAll(s *session) {
	for {
		stream, err := s.mux.Accept()
		if err != nil {
			return
		}
		stream.Reset()
	}
}

// use makes c the session for new connections.
func (d *Connector) use(c *carrier) {
	d.guard.Lock()
	defer d.guard.Unlock()
	old := d.current
	d.become(c)
	if old != nil {
		d.spare(old)
	}
}

// leave takes c out of use for new connections.
func (d *Connector) leave(c *carrier) {
	d.guard.Lock()
	defer d.guard.Unlock()
	if d.current == c {
		d.become(nil)
	}
}

// become is called with guard held.
func (d *Connector) become(c *carrier) {
	d.current = c
	close(d.changed)
	d.changed = make(chan struct{})
}

// take returns the session for a new connection, which is counted.
func (d *Connector) take(ctx context.Context) (*carrier, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.guard.Lock()
		c, changed, draining := d.current, d.changed, d.draining
		if c != nil && !draining {
			c.open++
			d.open++
			d.guard.Unlock()
			return c, nil
		}
		d.guard.Unlock()
		if draining {
			return nil, errDisconnected
		}
		select {
		case <-changed:
		case <-d.ended:
			return nil, d.Err()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *Connector) release(c *carrier) {
	d.guard.Lock()
	defer d.guard.Unlock()
	c.open--
	d.open--
	d.spare(c)
	d.settle()
}

// spare ends a session that has no ids left, and no connection. It is called with
// guard held.
func (d *Connector) spare(c *carrier) {
	if c.open == 0 && c != d.current && c.spent() && !isClosed(c.idle) {
		close(c.idle)
	}
}

// settle is called with guard held.
func (d *Connector) settle() {
	if d.draining && d.open == 0 && !isClosed(d.drained) {
		close(d.drained)
	}
}
