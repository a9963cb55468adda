package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
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
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
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
	s.Close()
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
