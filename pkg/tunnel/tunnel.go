// Package tunnel publishes a local handler or listener through a tunnel server.
//
//	c := &tunnel.Client{Server: "https://tunnel.example.com", Token: token}
//	l, err := c.Listen(ctx, tunnel.Options{Name: "demo"})
//	…
//	fmt.Println(l.URL()) // https://demo.tunnel.example.com
//	err = http.Serve(l, handler)
//
// The connections that the [Listener] accepts are HTTP/1.1 connections on which
// the tunnel server is the client, so an http.Server is all it takes. The
// connection to the tunnel server is made again by itself whenever it is lost;
// [Client.Events] tells of it.
//
// What was claimed with Options.Private has no public side: other clients reach it,
// with the same token, by a [Connector].
package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

// DefaultServer is where a client connects when it is not told otherwise.
const DefaultServer = "http://127.0.0.1:8080"

// Transport is a way to upgrade the connection to the server.
type Transport string

// The transports. Auto tries raw, then websocket, and stays with what worked. PTTH is
// reverse HTTP as draft-kazuho-ptth-ptth-01 has it, which other proxies may speak, too:
// it has no streams, so it is for [Client.Serve] and [Client.Attach] alone, see there.
const (
	Auto      Transport = "auto"
	Raw       Transport = "raw"
	WebSocket Transport = "websocket"
	PTTH      Transport = "ptth"
)

// Client knows a server and how to reach it. Only Server is usually set. Its
// fields are not to be changed once it is used; each [Listener] and [Connector] has
// a connection of its own.
type Client struct {
	Server    string      // URL; default DefaultServer
	Token     string      // shown to the server; "": none, or that of TokenSource
	Transport Transport   // default Auto
	TryFirst  Transport   // of Auto: what worked in the process before; default Raw
	TLS       *tls.Config // for https servers and proxies; nil: the system's roots

	// TokenSource returns the token for one connection to the server, before it is made: it
	// is for tokens that do not live long. It has 30 s. Its error, a [*TokenError] then, is
	// one like any other of connecting: what may be tried again is. It may be called from
	// many goroutines. Nil: Token is shown.
	TokenSource func(ctx context.Context) (string, error)

	// Proxy chooses the forward proxy for the server's URL. Nil: HTTP_PROXY,
	// HTTPS_PROXY and NO_PROXY.
	Proxy func(*url.URL) (*url.URL, error)

	// Events is called for each change of a listener's or connector's connection, one
	// at a time for each of them. It must return soon and not call Drain or Close, which
	// wait for it. Nil: nobody is told.
	Events func(Event)

	// Grace is how long Serve, when its context ended, lets requests finish.
	// Default 30 s; negative: not at all.
	Grace time.Duration

	Agent string       // says "NAME/VERSION" to the server; default "tunnel-go"
	Log   *slog.Logger // nil discards; never shows the token

	// Of tests; nil and 0: the real ones.
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	now       func() time.Time
	maxOpened int
}

// Options say what a listener claims.
type Options struct {
	// Name is the public name, one DNS label; the server picks one when it is "".
	Name string
	// Generation, of kind HTTP, orders clients with the same token that claim Name with
	// one, such as the runs of a CI pipeline: the highest takes the name over from one
	// that lives, and a lower one is refused with [protocol.NameTaken] while the name is
	// bound or held. 0: the name is taken over from nobody who lives.
	Generation uint64
	// Upstream makes the server rewrite requests and answers as for a local app
	// that is called by this origin. Nil: they come as they are.
	Upstream *protocol.Upstream
	// Kind is what the endpoint carries. Default [protocol.KindHTTP]. Connections of
	// the other kinds come as CONNECT requests, a visitor's datagrams as an upgrade to
	// connect-udp, see package protocol.
	Kind protocol.Kind
	// Port is the public port that is wanted, of kinds TCP and UDP; 0: the server
	// picks one, the same each time for the same token and Name where it can.
	Port int
	// Domains are host names that lead to the endpoint beside Name's, of kinds HTTP and
	// TLS, each as [protocol.CheckDomain] has it. The server takes those that the token
	// may claim, or whose TXT record _tunnel.DOMAIN says so; its refusal, of code
	// [protocol.Forbidden], names the record. Either all are claimed or nothing is.
	Domains []string
	// Private makes an endpoint that only clients with the same token reach, see
	// [Client.Connect]. It is of kind HTTP, TCP or UDP. Its connections come as CONNECT
	// requests, also of kind HTTP; its URL is "private:" and the name.
	Private bool
	// Visitor makes requests of kind HTTP say who they are from, ADDRESS:PORT, in
	// [protocol.HeaderVisitor]. Port is 0 where a proxy in front of the server said so. The
	// field is missing where it is not known, and nobody but the server can set it.
	Visitor bool
	// Share is who may visit, how long, and what is changed on the way, all of it at the
	// server. One that does not enforce each part is no server for it: the error is of code
	// [protocol.ShareUnsupported], and nothing is served. When TTL is over, the listener ends
	// with [protocol.Ended]. Not for PTTH. Nil: everybody, without end.
	Share *protocol.Share
	// Origin is what a proxy that is not ours is asked to serve, such as
	// https://app.example.com: for PTTH alone, in place of Name. Domains are served
	// with its scheme and port.
	Origin string
	// Retry makes Listen keep trying, until its context ends, where the server
	// can't be reached at first or has no room.
	Retry bool
}

// EventType is what has changed.
type EventType string

// The changes of a connection.
const (
	Ready        EventType = "ready"        // first, when the name was claimed, or the connector is connected
	Disconnected EventType = "disconnected" // the connection was lost; Err says why
	Reconnected  EventType = "reconnected"  // and is back
	Draining     EventType = "draining"     // the server goes, Err says so; or Drain was called, and Err is nil
	Closed       EventType = "closed"       // last; Err is nil for a normal end
)

// Event is a change of a listener's or connector's connection.
type Event struct {
	Type EventType
	Name string   // the listener's; "" of a connector
	URL  string   // the listener's; "" of a connector
	URLs []string // the listener's
	Err  error    // the cause, if there is one

	// Transport is what the connection runs on, where the event is Ready or
	// Reconnected.
	Transport Transport
	// Protocol is what is spoken there, h2 or http/1.1, where Transport is PTTH.
	Protocol string
	// RawShut says that Raw was tried before, and that something on the way does not
	// let it pass: the next process may as well try WebSocket first.
	RawShut bool
}

// ErrUnreachable says that the first attempt did not get through to the server;
// it is wrapped with the cause.
var ErrUnreachable = errors.New("server cannot be reached")

func (c *Client) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// dialer is the way to the server. The error is of the configuration, and shows
// nothing of it that may be secret.
func (c *Client) dialer() (*transport.Dialer, error) {
	server := cmp.Or(c.Server, DefaultServer)
	u, err := url.Parse(server)
	switch {
	case strings.Contains(server, "@"):
		return nil, configError("the server's URL has a user in it: write http://HOST[:PORT] or https://HOST[:PORT]") // a password perhaps, so it is not shown
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, &ConfigError{Err: transport.WrongServer(server)}
	case c.Token != "" && c.TokenSource != nil:
		return nil, configError("Token and TokenSource exclude each other: leave one out")
	case !httpguts.ValidHeaderFieldValue(c.Token):
		return nil, configError("the token has a line end or control character in it")
	}
	for _, t := range []Transport{c.Transport, c.TryFirst} {
		switch t {
		case "", Auto, Raw, WebSocket, PTTH:
		default:
			return nil, configError("transport %q is unknown: use auto, raw, websocket or ptth", t)
		}
	}
	d := &transport.Dialer{Server: u, Token: c.Token, Agent: cmp.Or(c.Agent, "tunnel-go"), TLS: c.TLS, Proxy: c.Proxy, DialContext: c.dial}
	if d.Proxy == nil {
		d.Proxy = transport.FromEnvironment()
	}
	if _, err := d.Proxy(u); err != nil {
		return nil, &ConfigError{Err: err}
	}
	return d, nil
}

// ConfigError says that a field of Client or Options can't be used.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

func errNoStreams() error {
	return configError("PTTH has no streams: use Serve, or another transport")
}

func configError(format string, args ...any) error {
	return &ConfigError{Err: fmt.Errorf(format, args...)}
}
