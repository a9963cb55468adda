package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve claims a name and serves its requests with handler until ctx ends; then
// it drains: the name is given back, requests under way finish within Grace,
// and Serve returns nil. An error is Listen's, or says why the server ended the
// session for good. Over PTTH it is [Client.Attach] and [Backend.Run], and nothing gives
// the name back: a tunnel server holds it for the same token, and has visitors wait, as
// when a connection is lost.
func (c *Client) Serve(ctx context.Context, o Options, handler http.Handler) error {
	if c.Transport == PTTH {
		b, err := c.Attach(ctx, o, handler)
		if err != nil {
			return err
		}
		return b.Run(ctx)
	}
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

func (c *Client) grace() time.Duration {
	if c.Grace == 0 {
		return 30 * time.Second
	}
	return c.Grace
}
