package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Dialer is the client's way to a server. Its fields are not to be changed
// once it dials.
type Dialer struct {
	Server *url.URL // http or https; a path is put before [protocol.PathPrefix]
	Token  string   // "": none is shown
	Agent  string   // the User-Agent; "": Go's

	// TLS is for servers and proxies at https; nil is the system's roots. HTTP/1.1
	// is the only protocol that is offered, and a ServerName is the server's.
	TLS *tls.Config

	// Proxy chooses the forward proxy for a server, nil for none. A nil function
	// chooses none. See [FixedProxy] and [FromEnvironment].
	Proxy func(*url.URL) (*url.URL, error)

	// DialContext connects to a host:port. Nil is a net.Dialer with a keep-alive
	// of 30 s, which takes connectTime at most.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Trace is told of each stage that is over, on the goroutine that dials. Nil: nobody
	// is.
	Trace func(Step)
}

// connectTime bounds connecting. Each time the first packet is lost, the system
// waits twice as long before it sends it again: another attempt gets through sooner
// than one that has lasted for long (R8).
const connectTime = 8 * time.Second

// Dial makes one connection and upgrades it for session. ctx bounds all of it
// and has no hold on the connection afterwards, which comes without
// deadlines.
//
// Where no byte was read ahead a [Raw] connection is what DialContext made, or
// the TLS connection on it; where it can close its writing side alone, it has a
// method CloseWrite.
//
// The error is a [*Refused] where the server itself said no, an
// [*UpgradeError] where something else than a tunnel server was reached, and
// otherwise says why nothing was reached. It names the cause and the way out,
// and never the token or the proxy's password.
func (d *Dialer) Dial(ctx context.Context, kind Kind, session string) (net.Conn, error) {
	if kind != Raw && kind != WebSocket {
		return nil, fmt.Errorf("transport %q is unknown: use %s or %s", kind, Raw, WebSocket)
	}
	if session == "" {
		return nil, errors.New("the session id is empty")
	}
	req, err := d.request(ctx, protocol.PathPrefix+session, protocol.PathPrefix+url.PathEscape(session))
	if err != nil {
		return nil, err
	}
	return d.dial(ctx, func(x *exchange) (net.Conn, error) {
		if kind == WebSocket {
			return dialWebSocket(x, req)
		}
		return dialRaw(x, req)
	})
}

// dial makes a connection to the server, on which ask has it upgraded.
func (d *Dialer) dial(ctx context.Context, ask func(*exchange) (net.Conn, error)) (net.Conn, error) {
	proxy, err := d.proxy()
	if err != nil {
		return nil, err
	}
	base, err := d.connect(ctx, proxy)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { base.Close() })
	conn, err := d.reach(ctx, base, proxy)
	if err == nil {
		conn, err = ask(&exchange{server: address(d.Server), conn: conn})
	}
	if !stop() && err == nil {
		err = &UpgradeError{Server: address(d.Server), Err: ctx.Err()}
	}
	if err != nil {
		base.Close()
		return nil, err
	}
	LimitUnsent(base)
	return conn, nil
}

// request makes the request for the upgrade at path, which is escaped as raw, and
// checks what d is made of.
func (d *Dialer) request(ctx context.Context, path, raw string) (*http.Request, error) {
	switch {
	case d.Server == nil || d.Server.Scheme != "http" && d.Server.Scheme != "https" || d.Server.Hostname() == "":
		return nil, errors.New("the server's URL is not http://HOST[:PORT] or https://HOST[:PORT]")
	case d.Server.User != nil:
		return nil, errors.New("the server's URL has a user in it: a token is passed with --token-file or TUNNEL_TOKEN")
	case !httpguts.ValidHeaderFieldValue(d.Token) || !httpguts.ValidHeaderFieldValue(d.Agent):
		return nil, errors.New("the token has a line end or control character in it, which no HTTP header can carry")
	}
	target := &url.URL{
		// The connection is made before the request, so its scheme says nothing.
		Scheme:  "http",
		Host:    d.Server.Host,
		Path:    strings.TrimSuffix(d.Server.Path, "/") + path,
		RawPath: strings.TrimSuffix(d.Server.EscapedPath(), "/") + raw,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("the server's URL: %w", err)
	}
	if d.Agent != "" {
		req.Header.Set("User-Agent", d.Agent)
	}
	if d.Token != "" {
		req.Header.Set("Authorization", "Bearer "+d.Token)
	}
	return req, nil
}

func (d *Dialer) proxy() (*url.URL, error) {
	if d.Proxy == nil {
		return nil, nil
	}
	proxy, err := d.Proxy(d.Server)
	if proxy == nil || err != nil {
		return nil, err
	}
	return proxy, checkProxy(proxy)
}

// connect opens the connection to the server, or to proxy where there is one.
func (d *Dialer) connect(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	what, hop, hint := "server", d.Server, "--server"
	if proxy != nil {
		what, hop, hint = "proxy", proxy, "--proxy, or HTTP_PROXY and HTTPS_PROXY"
	}
	dial := d.DialContext
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 30 * time.Second, Timeout: connectTime}).DialContext
	}
	conn, err := dial(ctx, "tcp", address(hop))
	if err != nil {
		return nil, fmt.Errorf("the %s at %s cannot be reached: %w", what, address(hop), unreachable(ctx, err, hint))
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// unreachable shortens an error of package net, and adds a way out.
func unreachable(ctx context.Context, err error, hint string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer so far: %w: check %s, and whether a firewall is on the way", ctx.Err(), hint)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		hint += ", and whether it is running"
	}
	return fmt.Errorf("%w: check %s", err, hint)
}

// reach makes base a connection to the server, through proxy and with TLS as they
// apply.
func (d *Dialer) reach(ctx context.Context, base net.Conn, proxy *url.URL) (net.Conn, error) {
	conn, err := base, error(nil)
	if proxy != nil {
		if proxy.Scheme == "https" {
			if conn, err = d.secure(ctx, conn, ProxySecured, proxy, hostname(proxy)); err != nil {
				return nil, err
			}
		}
		start := time.Now()
		conn, err = tunnelThrough(ctx, conn, proxy, address(d.Server), d.Agent)
		if d.trace(start, Step{Stage: Proxied, Err: err}); err != nil {
			return nil, err
		}
	}
	if d.Server.Scheme == "https" {
		name := hostname(d.Server)
		if d.TLS != nil && d.TLS.ServerName != "" {
			name = d.TLS.ServerName
		}
		if conn, err = d.secure(ctx, conn, Secured, d.Server, name); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// secure does the TLS handshake with the peer at u, whose certificate is for
// name.
func (d *Dialer) secure(ctx context.Context, conn net.Conn, stage Stage, u *url.URL, name string) (net.Conn, error) {
	start := time.Now()
	config := new(tls.Config)
	if d.TLS != nil {
		config = d.TLS.Clone()
	}
	config.ServerName = name
	config.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrade
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		err = fmt.Errorf("TLS with %s: %w", address(u), explainTLS(interrupted(ctx, err)))
		d.trace(start, Step{Stage: stage, Err: err})
		return nil, err
	}
	d.trace(start, Step{Stage: stage, TLS: secured.ConnectionState()})
	return secured, nil
}

// explainTLS adds a way out.
func explainTLS(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: pass the authority's certificate with --ca FILE", err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: use a name that the certificate is for", err)
	case errors.As(err, &plain):
		return fmt.Errorf("it does not speak TLS: use http:// for it (%w)", err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the connection was closed in the handshake: is it an https port? (%w)", err)
	}
	return err
}

// origin is u without what may be secret.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// address is where to connect for u, as host:port.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(hostname(u), port)
}

// hostname is u's as the DNS and certificates have it (RFC 5891).
func hostname(u *url.URL) string {
	name := u.Hostname()
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		return ascii
	}
	return name
}
