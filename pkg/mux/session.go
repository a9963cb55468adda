package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

const (
	defaultKeepAlive  = 15 * time.Second
	defaultDeadAfter  = 40 * time.Second
	defaultMaxStreams = 16384

	// writeTimeout ends a session whose peer takes no byte of a frame, though it
	// may go on sending. go-yamux's own 10 s end slow links that are alive.
	writeTimeout = 60 * time.Second

	// off is how long go-yamux waits between pings where they are switched off.
	off = 365 * 24 * time.Hour
)

// Client makes conn a session whose own streams have odd ids. It takes conn
// over, also where it returns an error.
func Client(conn net.Conn, c Config) (Session, error) { return newSession(conn, c, yamux.Client) }

// Server makes conn a session whose own streams have even ids. It takes conn
// over, also where it returns an error.
func Server(conn net.Conn, c Config) (Session, error) { return newSession(conn, c, yamux.Server) }

type side func(net.Conn, *yamux.Config, func() (yamux.MemoryManager, error)) (*yamux.Session, error)

func newSession(conn net.Conn, c Config, start side) (Session, error) {
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = defaultDeadAfter
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = defaultMaxStreams
	}
	y := yamux.DefaultConfig()
	y.EnableKeepAlive = false // it takes only an answered ping for life
	y.MeasureRTTInterval = off
	if c.KeepAlive > 0 {
		// go-yamux pings at this interval to measure; that is all a keep-alive
		// needs. The jitter keeps many sessions from pinging in step.
		y.MeasureRTTInterval = c.KeepAlive - rand.N(c.KeepAlive/5+1)
	}
	y.ConnectionWriteTimeout = writeTimeout
	y.MaxIncomingStreams = uint32(c.MaxStreams)
	y.LogOutput = io.Discard
	y.ReadBufSize = 32 << 10

	l := &lifeConn{Conn: conn, start: time.Now(), deadAfter: c.DeadAfter}
	if c.KeepAlive > 0 {
		l.watch()
	}
	ys, err := start(l, y, nil)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("mux: %w", err)
	}
	return &session{y: ys, conn: l}, nil
}

// session is a Session on go-yamux.
type session struct {
	y    *yamux.Session
	conn *lifeConn
}

func (s *session) Open(ctx context.Context) (Stream, error) {
	type opened struct {
		y   *yamux.Stream
		err error
	}
	// Where many wait for a slow connection, go-yamux's OpenStream outlasts ctx.
	c := make(chan opened)
	go func() {
		y, err := s.y.OpenStream(&placeContext{Context: ctx})
		select {
		case c <- opened{y, err}:
		case <-ctx.Done():
			if err == nil {
				y.Reset()
			}
		}
	}()
	select {
	case o := <-c:
		switch {
		case o.err == nil:
			return &stream{y: o.y, session: s}, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		return nil, s.wrap(o.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// placeContext ends OpenStream's first wait, the one for a place among the
// streams that the peer has not accepted yet, and not its second, for its first
// frame to be sent: go-yamux keeps a stream whose first frame it gave up for as
// long as the session lives. OpenStream calls Done once for each.
type placeContext struct {
	context.Context
	asked bool
}

func (c *placeContext) Done() <-chan struct{} {
	if c.asked {
		return nil
	}
	c.asked = true
	return c.Context.Done()
}

func (s *session) Accept() (Stream, error) {
	y, err := s.y.AcceptStream()
	if err != nil {
		return nil, s.wrap(err)
	}
	if s.y.IsClosed() { // go-yamux may still hand out streams, dead ones
		return nil, s.Err()
	}
	return &stream{y: y, session: s}, nil
}

func (s *session) Ping(ctx context.Context) (time.Duration, error) {
	type answer struct {
		rtt time.Duration
		err error
	}
	// go-yamux's Ping takes no context; it ends with the session or writeTimeout.
	c := make(chan answer, 1)
	go func() {
		rtt, err := s.y.Ping()
		c <- answer{rtt, err}
	}()
	select {
	case a := <-c:
		switch {
		case a.err != nil:
			return 0, s.wrap(a.err)
		case s.y.IsClosed():
			return 0, s.Err() // it joined a ping that was answered before
		}
		return a.rtt, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *session) Idle() time.Duration { return s.conn.idle() }

func (s *session) Close() error { return s.y.Close() }

func (s *session) Done() <-chan struct{} { return s.y.CloseChan() }

func (s *session) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

func (s *session) Err() error {
	if !s.y.IsClosed() {
		return nil
	}
	// go-yamux tells why it ended only to who asks for a stream.
	_, err := s.y.OpenStream(context.Background())
	return s.wrap(err)
}

// wrap makes an error of go-yamux one of ours. The cause of a dead session is
// formatted, not wrapped: it may be io.EOF, and nobody may take that for the
// clean end of a stream.
func (s *session) wrap(err error) error {
	var reset *yamux.StreamError
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reset), err == yamux.ErrStreamReset:
		return fmt.Errorf("%w: %v", ErrReset, err)
	case s.conn.silent.Load():
		return fmt.Errorf("%w: %w for %v", ErrClosed, ErrSilent, s.conn.deadAfter)
	case s.y.IsClosed(), errors.Is(err, yamux.ErrStreamsExhausted):
		return fmt.Errorf("%w: %v", ErrClosed, cause(err))
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	case errors.As(err, &timeout) && timeout.Timeout():
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("mux: %v", err)
}

func cause(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the peer closed the connection")
	}
	if errors.Is(err, yamux.ErrSessionShutdown) {
		return errors.New("closed on this side")
	}
	return err
}

// lifeConn remembers when a byte last arrived, and closes where none did for
// too long. A timer does it rather than a goroutine: there are many sessions,
// and most are idle.
type lifeConn struct {
	net.Conn
	start     time.Time
	last      atomic.Int64 // nanoseconds since start
	deadAfter time.Duration
	silent    atomic.Bool // the peer was given up

	mu     sync.Mutex  // guards the following
	timer  *time.Timer // nil: nobody watches
	closed bool
}

func (c *lifeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.last.Store(int64(time.Since(c.start)))
	}
	return n, err
}

// idle is how long nothing has arrived.
func (c *lifeConn) idle() time.Duration {
	return time.Since(c.start) - time.Duration(c.last.Load())
}

// watch looks after deadAfter whether the peer is still alive.
func (c *lifeConn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(c.deadAfter, c.check)
}

func (c *lifeConn) check() {
	c.mu.Lock()
	idle := c.idle()
	switch {
	case c.closed:
	case idle < c.deadAfter:
		c.timer.Reset(c.deadAfter - idle)
	default:
		c.silent.Store(true)
	}
	c.mu.Unlock()
	if c.silent.Load() {
		c.Close() // go-yamux reads an error, and ends the session
	}
}

func (c *lifeConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop() // or it keeps the dead session in memory
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
