package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve claims a name and serves its requests with handler until ctx ends; then
// it drains: the name is given back, requests under way finish within Grace,
// and Serve returns nil. An error is Listen's, or says why the server ended the
// session for good.
func (c *Client) Serve(ctx context.Context, o Options, handler http.Handler) error {
	l, err := c.Listen(ctx, o)
	if err != nil {
		return err
	}
	return l.Serve(ctx, handler)
}

// Serve is [Client.Serve] on a name that is claimed already. The listener is
// closed when it returns; Close, called meanwhile, ends it at once.
func (l *Listener) Serve(ctx context.Context, handler http.Handler) error {
	s := &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               16 << 20, // the server has the limit
		ErrorLog:                     slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	err := l.drainAfter(ctx, func() error { return s.Serve(l) })
	s.Close()
	return err
}

// ServeConns is [Listener.Serve] for a caller that speaks HTTP/1.1 itself: serve
// gets each connection, on a goroutine of its own, and is to close it. Draining is
// the same, and so is the end: connections then read and write errors, and idle ones
// are no different from others. ServeConns returns when all calls of serve have.
func (l *Listener) ServeConns(ctx context.Context, serve func(net.Conn)) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	return l.drainAfter(ctx, func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			serving.Go(func() { serve(conn) })
		}
	})
}

// drainAfter runs serve, which accepts until the listener has ended. When ctx ends
// it drains the listener, and closes it.
func (l *Listener) drainAfter(ctx context.Context, serve func() error) error {
	served := make(chan error, 1)
	go func() { served <- serve() }()
	var err error
	select {
	case err = <-served: // the listener has ended for good
	case <-ctx.Done():
		grace := max(l.client.grace(), 0)
		draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		if err := l.Drain(draining); errors.Is(err, context.DeadlineExceeded) {
			l.log.Warn("grace is over, ending what is left", "grace", grace)
		}
		cancel()
		l.Close()
		err = <-served
	}
	if errors.Is(err, errClosed) {
		return nil
	}
	return err
}

func (c *Client) grace() time.Duration {
	if c.Grace == 0 {
		return 30 * time.Second
	}
	return c.Grace
}
