package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// expose is a command such as http: it claims a name and serves it with the local app
// until a signal comes, ctx ends or the server says no.
func (p process) expose(ctx context.Context, c *config) error {
	drain, end, stop := p.watch(ctx)
	defer stop()
	return p.exposeUntil(drain, end, c)
}

// exposeUntil is expose with the contexts of watch.
func (p process) exposeUntil(drain, end context.Context, c *config) error {
	file, err := newURLFile(c.urlFile)
	if err != nil {
		return usageError{err}
	}
	defer file.remove()
	if c.exposesToken() {
		c.log.Warn(tokenInTheClear, "server", c.client.Server)
	}
	x := newExposed(p, c)
	defer x.out.close()
	defer x.inspector.close()
	defer x.app.Close()
	c.client.Events = func(e tunnel.Event) { x.show(drain, e) }
	l, err := c.open(drain, c.linked(x.claim))
	if err != nil {
		if drain.Err() != nil {
			return context.Cause(end) // nil, but after a second signal
		}
		return err
	}
	if err := file.write(l.URL()); err != nil {
		l.Close()
		return err
	}
	if c.terminate != nil {
		if err := c.terminate.start(c, l.URL()); err != nil {
			l.Close()
			return err
		}
	}
	return x.serve(drain, end, l)
}

const tokenInTheClear = "the token crosses the network in the clear: use an https:// server"

// exposed is one local app behind its public name.
type exposed struct {
	*config
	out       output
	app       app
	inspector *inspector // nil: none of its own
}

// endpoint is a public name that was claimed.
type endpoint interface {
	Name() string
	URL() string
	Close() error
}

// claiming claims a name.
type claiming func(context.Context, tunnel.Options) (endpoint, error)

// claim has the app's name claimed by the transport that was chosen.
func (x *exposed) claim(ctx context.Context, o tunnel.Options) (endpoint, error) {
	if handler, ok := x.app.(http.Handler); ok && x.client.Transport == tunnel.PTTH {
		b, err := x.client.Attach(ctx, o, handler)
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	l, err := x.client.Listen(ctx, o)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// app answers what comes by the tunnel.
type app interface {
	ServeConn(stream net.Conn)
	InFlight() int64
	Close()
}

func newExposed(p process, c *config) *exposed {
	x := &exposed{config: c, out: newOutput(p, c)}
	switch {
	case c.listen.Kind == protocol.KindHTTP && !c.listen.Private:
		o := c.forward
		o.Done = done(x.out)
		if c.of != nil {
			o.Watch = c.of.inspector.watch(c.of.spec.name)
		} else {
			x.inspector = c.inspect.open(c.log)
			o.Watch = x.inspector.watch("")
		}
		if c.command != nil {
			o.Ready = c.command.ready.Load
		}
		x.app = forward.New(c.target, o) // which o.Handler may answer for
	case c.listen.Kind == protocol.KindUDP:
		x.app = forward.NewUDP(c.target, forward.UDPOptions{Idle: c.idle, Done: done(x.out), Log: c.log})
	default:
		o := forward.RawOptions{Prepare: c.prepare, Done: done(x.out), Log: c.log}
		if c.terminate != nil {
			o.TLS = c.terminate.config()
		}
		x.app = forward.NewRaw(c.target, o)
	}
	return x
}

// show shows what the SDK tells of the connection.
func (x *exposed) show(drain context.Context, e tunnel.Event) {
	change := newChange(drain, e, x.target.String())
	change.inFlight, change.inspect = x.app.InFlight(), x.inspector.url()
	change.server, change.served = x.client.Server, servedConnections
	if x.listen.Kind == protocol.KindHTTP && !x.listen.Private {
		change.served = servedRequests
	}
	if e.Type == tunnel.Ready {
		change.shared = x.sharing(e.URL)
	}
	x.out.change(change)
	x.keepTransport(e)
}

// keepTransport keeps what got through for the next start.
func (c *config) keepTransport(e tunnel.Event) {
	if c.used != nil && c.client.Transport == tunnel.Auto && (e.Transport == tunnel.Raw || e.RawShut) {
		if err := c.used(e.Transport); err != nil {
			c.log.Debug("the transport cannot be kept", "err", err)
		}
	}
}

// serve passes requests on to the app. drain and end are those of watch.
func (x *exposed) serve(drain, end context.Context, l endpoint) error {
	// What goes on beside serving, and ends with it.
	serving, served := context.WithCancel(context.WithoutCancel(drain))
	var tasks sync.WaitGroup
	tasks.Go(func() { closeAfter(l, end, serving) })
	if x.terminate != nil {
		tasks.Go(func() { x.terminate.run(serving) })
	}
	tasks.Go(func() { measure(serving, x.out, l) })
	if !x.json && x.forward.Handler == nil && x.command == nil {
		tasks.Go(func() { x.lookForApp(serving) })
	}
	var err error
	switch l := l.(type) {
	case *tunnel.Listener:
		err = l.ServeConns(drain, x.app.ServeConn)
	case *tunnel.Backend:
		err = l.Run(drain)
	}
	served()
	tasks.Wait()
	switch {
	case end.Err() != nil:
		return context.Cause(end)
	case errors.Is(err, &protocol.Error{Code: protocol.Ended}):
		return nil // --ttl
	case err != nil:
		return lostError{err}
	}
	return nil
}

// watch returns two contexts: drain ends with the first signal, end with the
// second one. Each has the signal as its cause.
func (p process) watch(ctx context.Context) (drain, end context.Context, stop func()) {
	signals := make(chan os.Signal, 2)
	p.notify(signals)
	drain, first := context.WithCancelCause(ctx)
	end, second := context.WithCancelCause(context.WithoutCancel(ctx))
	watching, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for asked := (asking{}); ; {
			select {
			case s := <-signals:
				switch asked.next(s) {
				case asksFirst:
					first(signalError{s})
				case asksAgain:
					second(signalError{s})
					return
				}
			case <-watching:
				return
			}
		}
	}()
	return drain, end, func() {
		close(watching)
		<-stopped
		first(nil)
		second(nil)
	}
}

// closeAfter closes l at once when end ends before serving does.
func closeAfter(l endpoint, end, serving context.Context) {
	select {
	case <-end.Done():
		l.Close()
	case <-serving.Done():
	}
}

const noKey = "there is no key of this machine: after a crash the name may stay taken for a while"

// open claims the name that the user chose, or the one that is kept, or one that
// the server picks.
func (c *config) open(ctx context.Context, claim claiming) (endpoint, error) {
	if c.listen.Origin != "" {
		return claim(ctx, c.listen) // the proxy is not ours: nothing is kept for it, and nothing shown
	}
	server := canonical(c.client.Server)
	s, err := openState()
	if err == nil {
		c.client.TryFirst = s.transport(server)
		c.used = func(t tunnel.Transport) error { return s.keepTransport(server, t) }
	}
	if c.listen.Name != "" && c.hasToken {
		return claim(ctx, c.listen)
	}
	if err != nil {
		warning := "state cannot be kept, so the next start gets another URL: --name NAME chooses one"
		if c.listen.Name != "" {
			warning = noKey
		}
		c.log.Warn(warning, "err", err)
		return claim(ctx, c.listen)
	}
	if !c.hasToken {
		if c.client.Token, err = s.machineToken(server); err != nil {
			c.log.Warn(noKey, "err", err)
		}
	}
	if c.listen.Name != "" {
		return claim(ctx, c.listen)
	}
	return c.openKept(ctx, claim, s, server)
}

func (c *config) openKept(ctx context.Context, claim claiming, s *state, server string) (endpoint, error) {
	o := c.listen
	here, err := newPlace(server, c.target.String())
	if err == nil {
		o.Name, err = s.name(here)
	}
	if err != nil {
		c.log.Warn("the kept name cannot be read, the server picks a new one", "err", err)
	}
	l, err := claim(ctx, o)
	if o.Name != "" && errors.Is(err, &protocol.Error{Code: protocol.NameTaken}) {
		// It stays kept: the next start has the known URL again if it is free then.
		l, err = claim(ctx, c.listen)
		if err == nil {
			c.log.Warn("the kept name is taken, the server picked another one for now", "kept", o.Name, "name", l.Name())
		}
		return l, err
	}
	if err == nil && o.Name == "" && here != (place{}) {
		if err := s.keep(here, l.Name()); err != nil {
			c.log.Warn("the name cannot be kept, so the next start gets another URL: --name NAME chooses one", "err", err)
		}
	}
	return l, err
}

// canonical is a server's URL so that the same server has the same one.
func canonical(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	return strings.ToLower(u.Scheme+"://"+u.Host) + strings.TrimRight(u.Path, "/")
}

// appTime is how long the local app may take to be noticed at the start.
const appTime = 2 * time.Second

// lookForApp warns where nothing answers at the app's address. The tunnel does
// not wait for it: it may well be started later.
func (c *config) lookForApp(ctx context.Context) {
	conn, err := (&net.Dialer{Timeout: appTime}).DialContext(ctx, c.target.Network, c.target.Addr)
	if err == nil {
		if c.prepare != nil {
			c.prepare(conn, "") // or the app's log has a broken header
		}
		conn.Close()
		return
	}
	if ctx.Err() == nil {
		c.log.Warn("the local app does not answer yet, start it: until then visitors get app_refused", "target", c.target.String(), "err", err)
	}
}
