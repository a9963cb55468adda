package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// config is what a command that exposes something was told.
type config struct {
	target    forward.Target
	forward   forward.Options // of kind HTTP
	idle      time.Duration   // of kind UDP
	prepare   prepare         // nil: nothing
	client    *tunnel.Client
	listen    tunnel.Options
	hasToken  bool                         // the user named one
	login     bool                         // who asks is login, which has neither --retry nor a token from elsewhere
	command   *command                     // of exec; nil: the user runs the app
	inspect   inspecting                   // of kind HTTP
	terminate *terminator                  // of kind TLS; nil: the app speaks TLS itself
	links     *links                       // of kind HTTP; nil: none
	used      func(tunnel.Transport) error // keeps what got through for the next start; nil: nothing is kept

	json      bool
	urlFile   string
	logFormat string
	log       *slog.Logger
	of        *member // of start, with its output and inspector; nil: it is a command of its own
}

// prepare is what is done to a connection to the local app before anything is sent on
// it, for the visitor of that address; "": of none, or none that is known.
type prepare func(app net.Conn, visitor string) error

// configure reads flags, environment and the files that they name.
func configure(c *cli.Context, stderr io.Writer) (*config, error) {
	log, err := logger(c, stderr)
	if err != nil {
		return nil, err
	}
	return configureLog(c, log)
}

// configureLog is configure with a log that is there already.
func configureLog(c *cli.Context, log *slog.Logger) (*config, error) {
	f := &config{json: c.Bool("json"), urlFile: c.String("url-file"), logFormat: text(c, "log-format"), log: log}
	f.listen = tunnel.Options{Kind: kindOf(c.Command.Name), Name: c.String("name"), Private: c.Bool("private"), Retry: c.Bool("retry")}
	dir, isDir, err := folder(c)
	if err != nil {
		return nil, err
	}
	if !isDir {
		if f.target, err = targetOf(c, f.listen.Kind); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"app-timeout", "grace", "idle-timeout", "wait-timeout"} {
		if c.Duration(name) < 0 {
			return nil, fmt.Errorf("--%s %s is negative", name, c.Duration(name))
		}
	}
	if f.prepare, err = proxyProtocol(c, f.listen.Kind); err != nil {
		return nil, err
	}
	f.forward = forward.Options{Prepare: f.prepare, Insecure: c.Bool("insecure-upstream"), Timeout: c.Duration("app-timeout"), Log: f.log}
	if isDir {
		if err := f.serveFolder(c, dir); err != nil {
			return nil, err
		}
	}
	if err := f.checkName(c); err != nil {
		return nil, err
	}
	if err := f.configureShare(c); err != nil {
		return nil, err
	}
	if f.listen.Domains, err = domains(c.StringSlice("domain")); err != nil {
		return nil, err
	}
	switch f.listen.Kind {
	case protocol.KindHTTP:
		if f.inspect, err = newInspecting(c); err != nil {
			return nil, err
		}
		if !isDir {
			f.listen.Upstream, err = upstream(text(c, "host-header"), f.target)
		}
		f.listen.Visitor = f.prepare != nil
	case protocol.KindTCP, protocol.KindUDP:
		f.idle = c.Duration("idle-timeout")
		if f.listen.Port = c.Int("remote-port"); f.listen.Port < 0 || f.listen.Port > 65535 {
			err = fmt.Errorf("--remote-port %d is not between 1 and 65535", f.listen.Port)
		}
	case protocol.KindTLS:
		f.terminate, err = newTerminator(c, f)
	}
	if err != nil {
		return nil, err
	}
	if f.client, err = client(c); err != nil {
		return nil, err
	}
	if err := f.reverse(text(c, "origin")); err != nil {
		return nil, err
	}
	if f.listen.Private {
		if f.listen.Upstream = nil; f.listen.Port != 0 {
			return nil, errors.New("--private has no public port: leave --remote-port out")
		}
		if f.listen.Generation != 0 {
			return nil, errors.New("--private endpoints have no generations: leave --generation out")
		}
	}
	if c.Command.Name == "exec" {
		if f.command, err = newCommand(c, f); err != nil {
			return nil, err
		}
	}
	f.client.Log = f.log
	f.hasToken = showsToken(f.client)
	return f, nil
}

// checkName checks --name, and reads --generation.
func (f *config) checkName(c *cli.Context) error {
	f.listen.Generation = c.Uint64("generation")
	switch err := protocol.CheckName(f.listen.Name); {
	case f.listen.Name == "" && f.listen.Generation != 0:
		return errors.New("--generation orders the clients of one name: add --name")
	case f.listen.Name != "" && err != nil:
		return fmt.Errorf("--name: %w", err)
	}
	return nil
}

// proxyProtocol reads --proxy-protocol.
func proxyProtocol(c *cli.Context, kind protocol.Kind) (prepare, error) {
	switch version := c.String("proxy-protocol"); {
	case version == "":
		return nil, nil
	case kind == protocol.KindUDP:
		return nil, errors.New("--proxy-protocol is not for udp: the header begins a connection, and datagrams have none; each visitor has a socket of its own")
	case version != "v2":
		return nil, fmt.Errorf("--proxy-protocol %q: use v2, the one version that is sent", version)
	}
	return forward.ProxyV2, nil
}

// reverse is what is different over PTTH, by which the server is told of nothing but
// origins, and who may visit them.
func (f *config) reverse(origin string) error {
	switch {
	case f.client.Transport != tunnel.PTTH && origin != "":
		return errors.New("--origin is for proxies that speak PTTH: add --transport ptth")
	case f.client.Transport != tunnel.PTTH:
		return nil
	case f.listen.Kind != protocol.KindHTTP:
		return fmt.Errorf("--transport ptth carries HTTP alone, not %s: use another transport", f.listen.Kind)
	case f.listen.Generation != 0:
		return errors.New("--generation needs a server that knows it, which PTTH has no word for: use another --transport")
	case f.listen.Private:
		return errors.New("--private needs streams, which PTTH has not: use another --transport")
	case f.listen.Visitor:
		return errors.New("--proxy-protocol needs a server that says who visitors are, which PTTH has no word for: use another --transport")
	case origin != "" && f.listen.Name != "":
		return errors.New("--origin has a name already: leave --name out")
	}
	f.listen.Origin = origin
	f.forward.Upstream, f.listen.Upstream = f.listen.Upstream, nil
	return nil
}

// client is the way to the server. What it is told of server and transport is
// checked when it listens.
func client(c *cli.Context) (*tunnel.Client, error) {
	t := &tunnel.Client{
		Server:    text(c, "server"),
		Transport: tunnel.Transport(text(c, "transport")),
		Grace:     c.Duration("grace"),
		Agent:     "tunnel-client/" + c.App.Version,
	}
	if t.Grace == 0 {
		t.Grace = -1 // not the default
	}
	var err error
	if t.TokenSource, err = tokenSource(c); err == nil && t.TokenSource == nil {
		t.Token, err = token(c)
	}
	if err == nil && !showsToken(t) {
		t.Token, err = loginToken(t.Server)
	}
	if err != nil {
		return nil, err
	}
	if proxy := c.String("proxy"); proxy != "" {
		if t.Proxy, err = tunnel.FixedProxy(proxy); err != nil {
			return nil, fmt.Errorf("--proxy: %w", err)
		}
	}
	if file := c.String("ca"); file != "" {
		if t.TLS, err = trust(file); err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
	}
	return t, nil
}

// text is the value of a flag that has a default. An empty one is a variable
// that was not filled in.
func text(c *cli.Context, name string) string {
	if s := c.String(name); s != "" {
		return s
	}
	for _, f := range c.Command.Flags {
		if s, ok := f.(*cli.StringFlag); ok && s.Name == name {
			return s.Value
		}
	}
	return ""
}

func logger(c *cli.Context, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text(c, "log-level"))); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", c.String("log-level"))
	}
	o := &slog.HandlerOptions{Level: level}
	switch format := text(c, "log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: use text or json", format)
	}
}

// kindOf is what a command exposes.
func kindOf(command string) protocol.Kind {
	if command == "exec" || command == "file" {
		return protocol.KindHTTP
	}
	return protocol.Kind(command)
}

// targetOf is the local app, which exec has in a flag, as its arguments are COMMAND's.
func targetOf(c *cli.Context, kind protocol.Kind) (forward.Target, error) {
	if c.Command.Name != "exec" {
		return target(kind, c.Args().Slice())
	}
	given := c.String("target")
	if given == "" {
		return forward.Target{}, errors.New("exec needs --target, where COMMAND listens: tunnel-client exec --target 3000 -- npm start (see tunnel-client exec --help)")
	}
	t, err := forward.ParseTarget(given)
	if err != nil {
		return t, fmt.Errorf("--target: %w", err)
	}
	return t, nil
}

func target(kind protocol.Kind, args []string) (forward.Target, error) {
	switch {
	case len(args) == 0:
		return forward.Target{}, fmt.Errorf("%s needs a TARGET, the local app: tunnel-client %[1]s 3000 (see tunnel-client %[1]s --help)", kind)
	case len(args) > 1:
		return forward.Target{}, fmt.Errorf("%s takes one TARGET, got %d: %s", kind, len(args), strings.Join(args, " "))
	case kind == protocol.KindHTTP:
		t, err := forward.ParseTarget(args[0])
		switch {
		case err == nil:
		case isFolder(args[0]):
			err = fmt.Errorf("%s is a folder: tunnel-client file %[1]s serves it", args[0])
		case isPath(args[0]):
			err = fmt.Errorf("%s is a path, not an app: a folder is served by tunnel-client file %[1]s", args[0])
		}
		return t, err
	}
	scheme := "tcp"
	if kind == protocol.KindUDP {
		scheme = "udp"
	}
	return forward.ParseRawTarget(args[0], scheme)
}

// upstream is what the server rewrites requests to: the app's own origin, none,
// or the one that the user chose.
func upstream(hostHeader string, t forward.Target) (*protocol.Upstream, error) {
	switch hostHeader {
	case "rewrite":
		return &protocol.Upstream{Scheme: t.OriginScheme(), Host: t.Host}, nil
	case "preserve":
		return nil, nil
	}
	u, err := url.Parse("http://" + hostHeader)
	if err != nil || u.Host != hostHeader || u.Hostname() == "" || len(hostHeader) > 255 || printable(hostHeader) != hostHeader {
		return nil, fmt.Errorf("--host-header %q: use rewrite, preserve, or a host[:port]", hostHeader)
	}
	return &protocol.Upstream{Scheme: t.OriginScheme(), Host: hostHeader}, nil
}

// trust is the system's roots and the certificates in file.
func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without roots
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate: it must be PEM, with BEGIN CERTIFICATE", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}

// exposesToken reports whether a token would cross a network in the clear.
func (c *config) exposesToken() bool {
	u, err := url.Parse(c.client.Server)
	return err == nil && c.hasToken && u.Scheme == "http" && !loopback(u.Hostname())
}

func loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
