package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// errClosed is Accept's after Close.
var errClosed = fmt.Errorf("tunnel: listener is closed: %w", net.ErrClosed)

// Listener is a claimed name. Its connections come from the server, one HTTP/1.1
// connection each, whatever happens to the connection that carries them.
type Listener struct {
	line
	streams chan net.Conn
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
	switch {
	case c.Transport == PTTH:
		return nil, errNoStreams()
	case o.Origin != "":
		return nil, configError("an origin is for PTTH: use that transport, or leave the origin out")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	bind := &protocol.Bind{
		ID: 1, Kind: cmp.Or(o.Kind, protocol.KindHTTP), Name: o.Name, Generation: o.Generation, Port: o.Port,
		Domains: slices.Clone(o.Domains), Private: o.Private, Upstream: o.Upstream, Visitor: o.Visitor, Share: o.Share,
	}
	l := &Listener{line: c.newLine(dialer, bind), streams: make(chan net.Conn)}
	l.connect = living(l.connect, bind)
	l.serve = l.accept
	s, err := l.first(ctx, o.Retry)
	if err != nil {
		return nil, listenError(ctx, err)
	}
	l.name, l.url, l.urls = s.name, s.url, s.urls
	bind.Name, bind.Port = s.name, s.port // the same ones again
	l.begin(ctx, s)
	return l, nil
}

// check checks what a name and domains have to keep to.
func (o *Options) check() error {
	if o.Name != "" {
		if err := protocol.CheckName(o.Name); err != nil {
			return &ConfigError{Err: err}
		}
	}
	for _, domain := range o.Domains {
		if err := protocol.CheckDomain(domain); err != nil {
			return &ConfigError{Err: err}
		}
	}
	return o.checkShare()
}

// listenError sorts the errors of the first attempt.
func listenError(ctx context.Context, err error) error {
	var said *protocol.Error
	var config *ConfigError
	var token *TokenError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("tunnel: listen: %w", context.Cause(ctx))
	case errors.As(err, &said), errors.As(err, &config), errors.As(err, &token):
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

// Latency measures one round trip to the server. The error is ctx's, or says that the
// connection is away.
func (l *Listener) Latency(ctx context.Context) (time.Duration, error) { return l.latency(ctx) }

// Drain gives the name back and waits until the server has got the answers to
// all requests under way, or the connection has ended; the error is ctx's.
// Connections that were upgraded, such as WebSockets, have no end to wait for.
// Close is still to be called.
func (l *Listener) Drain(ctx context.Context) error { return l.drain(ctx) }

// Close gives the name back and ends the connection at once: visitors see that
// what is under way was cut off. An http.Server that is shut down closes its
// listener first, so call Drain before. Close returns when everything that the
// listener started has ended; closing twice is fine.
func (l *Listener) Close() error { return l.end() }

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
