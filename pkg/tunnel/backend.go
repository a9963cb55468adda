package tunnel

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Backend serves origins by PTTH: it has asked a proxy for their requests, and gets
// them as plain HTTP on the connections by which it asked.
type Backend struct {
	line
	dialer  *transport.Dialer
	handler http.Handler
	options Options
	origins []protocol.Origin // of the name, and of the domains; nil: not known yet
	lease   lease
	held    bool // the proxy has granted them before
}

// Attach asks a proxy by PTTH for the requests of an origin, and serves them with
// handler from then on, over HTTP/2 or, where the proxy chooses that, HTTP/1.1. The
// proxy is a tunnel server of ours, which tells the origin of Options.Name, for
// which a random one is made up where it is ""; or another one, for Options.Origin.
// Beside HTTP/2 it keeps a spare connection of HTTP/1.1, for visitors' upgrades such as
// WebSockets.
//
// It makes one attempt, unless Options.Retry is set; ctx bounds that, and has no hold
// on the Backend. Errors are those of [Client.Listen]; beside HTTP/2's none is told of
// a proxy that takes no second connection. A proxy that is not ours does not know
// Options.Share, which is an error with [protocol.ShareUnsupported]. Options.Upstream is for the handler to see
// to, and Port, Private and other kinds than HTTP are not to be had by PTTH.
func (c *Client) Attach(ctx context.Context, o Options, handler http.Handler) (*Backend, error) {
	dialer, err := c.dialer()
	if err != nil {
		return nil, err
	}
	b := &Backend{line: line{client: c, log: c.log()}, dialer: dialer, handler: handler, options: o, lease: lease{share: o.Share}}
	if err := b.configure(); err != nil {
		return nil, err
	}
	b.connect, b.serve = b.attach, b.carry
	s, err := b.first(ctx, o.Retry)
	if err != nil {
		return nil, listenError(ctx, err)
	}
	b.name, b.url, b.urls = s.name, s.url, s.urls
	b.begin(ctx, s)
	return b, nil
}

// configure checks the options.
func (b *Backend) configure() error {
	o := &b.options
	if err := o.check(); err != nil {
		return err
	}
	switch {
	case cmp.Or(o.Kind, protocol.KindHTTP) != protocol.KindHTTP:
		return configError("PTTH carries HTTP alone, not %s: use another transport", o.Kind)
	case o.Private, o.Port != 0:
		return configError("PTTH has no private endpoints and no ports: use another transport")
	case o.Generation != 0:
		return configError("PTTH has no generations: use another transport")
	case o.Visitor:
		return configError("PTTH does not have the proxy say who visitors are: use another transport")
	case o.Upstream != nil:
		return configError("PTTH does not tell the proxy what to rewrite: have the handler do it")
	case o.Origin != "" && o.Name != "":
		return configError("a name and an origin exclude each other: the origin is for proxies that are not ours, and has a name")
	case o.Origin != "":
		return b.serveOrigin(o.Origin)
	}
	o.Name = cmp.Or(o.Name, protocol.RandomName())
	// A server that lets everyone in is to know that all connections are of one.
	if b.client.TokenSource == nil {
		b.dialer.Token = cmp.Or(b.dialer.Token, rand.Text())
	}
	return nil
}

// serveOrigin notes the first origin to ask for, and with it those of the domains.
func (b *Backend) serveOrigin(serialized string) error {
	first, err := protocol.ParseOrigin(serialized)
	if err != nil {
		return &ConfigError{Err: err}
	}
	origins := []protocol.Origin{first}
	for _, domain := range b.options.Domains {
		origins = append(origins, protocol.Origin{Scheme: first.Scheme, Host: domain, Port: first.Port})
	}
	b.origins = origins
	return nil
}

// discover asks the server for the origin of the name.
func (b *Backend) discover(ctx context.Context) error {
	about, err := b.dialer.Describe(ctx)
	switch {
	case errors.Is(err, transport.ErrNoDescription):
		return &ConfigError{Err: fmt.Errorf("%s does not tell what origins it has (%w): name the one to serve with --origin URL", b.dialer.Server.Host, err)}
	case err != nil:
		return err
	case !slices.Contains(about.Transports, protocol.UpgradePTTH) || about.Origins == "":
		return &ConfigError{Err: errors.New("the server does not speak PTTH: use a newer tunnel-server, or --transport auto")}
	}
	return b.serveOrigin(strings.ReplaceAll(about.Origins, "*", b.options.Name))
}

// attach makes one attempt to be given the origins' requests.
func (b *Backend) attach(ctx context.Context) (*session, error) {
	policy, err := b.lease.now()
	if err != nil {
		return nil, err
	}
	dialer, err := tokenSource(b.client.TokenSource).fresh(ctx, b.dialer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	if b.origins == nil {
		if err := b.discover(ctx); err != nil {
			return nil, sorted(err)
		}
	}
	conn, alpn, err := dialer.DialPTTH(ctx, b.origins, policy, protocol.ALPNHTTP2, protocol.ALPNHTTP1)
	switch {
	case b.held && b.options.Origin != "" && errors.Is(err, &protocol.Error{Code: protocol.NameTaken}):
		// Not all proxies know that this is who was there before.
		return nil, fmt.Errorf("the proxy may not have noticed yet that the last connection is lost: %v", err)
	case err != nil:
		return nil, sorted(err)
	}
	b.held = true
	b.lease.claimed()
	s := newSession()
	s.conduit = newAttachment(b, s, conn, alpn)
	close(s.read) // there is nothing but requests to read
	s.kind, s.alpn, s.name, s.url = transport.Kind(PTTH), alpn, b.options.Name, b.origins[0].String()
	for _, origin := range b.origins[1:] {
		s.urls = append(s.urls, origin.String())
	}
	return s, nil
}

// sorted tells what is no proxy for PTTH from one that is away.
func sorted(err error) error {
	if foreign(err) {
		return notTunnelServer{err}
	}
	return err
}

// carry serves a session until it has ended, and what was under way on its connections.
func (b *Backend) carry(ctx context.Context, s *session) {
	defer b.remove(s)
	s.conduit.(*attachment).serve(ctx)
}

// Name is that of the options, or the one that was made up; "" where Options.Origin
// was set.
func (b *Backend) Name() string { return b.name }

// URL is the origin. It stays the same.
func (b *Backend) URL() string { return b.url }

// URLs are the origins of Options.Domains, in their order.
func (b *Backend) URLs() []string { return slices.Clone(b.urls) }

// Run waits until ctx ends; then it drains, see [Client.Serve], and closes the
// Backend. Close, called meanwhile, ends it at once. The error is nil, or says why the
// proxy ended it for good.
func (b *Backend) Run(ctx context.Context) error {
	return b.drainAfter(ctx, func() error {
		<-b.ended
		return b.err
	})
}

// Drain tells the proxy to send no new requests, by GOAWAY where it is HTTP/2, and
// waits until those under way are answered; the error is ctx's. Connections that were
// upgraded, such as WebSockets, have no end to wait for. Close is still to be called.
func (b *Backend) Drain(ctx context.Context) error { return b.drain(ctx) }

// Close ends the connections at once, as [Listener.Close] does.
func (b *Backend) Close() error { return b.end() }
