package main

import (
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
	"golang.org/x/net/idna"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/internal/server"
)

// flags are those of serve. Each has an environment variable of its name.
func flags() []cli.Flag {
	str := func(name, value, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
	}
	span := func(name string, value time.Duration, usage string) cli.Flag {
		return &cli.DurationFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
	}
	number := func(name string, value int, usage string) cli.Flag {
		return &cli.IntFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
	}
	return append([]cli.Flag{
		str("listen", "127.0.0.1:8080", "`HOST:PORT` to listen on for visitors and clients; with TLS it serves plain HTTP, by default on :80"),
		str("domain", "localhost", "make a client's NAME public as NAME.`DOMAIN`"),
		&cli.BoolFlag{Name: "path-names", Usage: "make a client's NAME public as https://DOMAIN/NAME/, too, for domains without wildcard DNS; such names share one origin in browsers", EnvVars: env("path-names")},
		str("public-url", "", "`URL` that visitors reach the server at when it sits behind another proxy: its scheme and port appear in the public URLs"),
		str("trusted-proxies", "", "`CIDR,…` of the proxies whose X-Forwarded-* headers are trusted, and whose connections may begin with a PROXY protocol (version 2) header"),
		str("tcp-ports", "", "TCP ports that clients may use, as `FIRST-LAST`, such as 20000-20999; they are on the host of --tls-listen if TLS is on, else of --listen (default: none)"),
		str("udp-ports", "", "UDP ports that clients may use, as `FIRST-LAST`, on the same host as --tcp-ports, with which they may overlap (default: none)"),
		span("udp-idle", 2*time.Minute, "drop a visitor of a UDP port who has sent and received no datagram for this `TIME`"),
		number("udp-visitors", 1000, "`NUMBER` of visitors that one UDP port may have at a time; the longest idle one is dropped beyond that"),
		str("token-file", "", "`FILE` with the tokens that clients must show one of: each line has a token, followed by what it may claim, or oidc=ISSUER aud=… claim:…=… for the tokens of an issuer; # begins a comment"),
		&cli.BoolFlag{Name: "anonymous", Usage: "let clients connect without a token", EnvVars: env("anonymous")},
		span("grace", 30*time.Second, "how long requests may take to finish at shutdown, after SIGTERM: a `TIME` such as 30s"),
		span("hold", time.Minute, "how long the names of a client that lost its connection stay reserved for it: a `TIME`"),
		span("park", 10*time.Second, "how long a request waits for a client that is reconnecting: a `TIME`"),
		number("max-header-bytes", 64<<10, "`BYTES`: the maximum size of a request's header; larger ones get 431"),
		number("max-uri-bytes", 16<<10, "`BYTES`: the maximum length of a request's URI; longer ones get 414"),
		span("header-timeout", 10*time.Second, "`TIME` a visitor may take to send a request's header before the connection is closed"),
		span("idle-timeout", 2*time.Minute, "close a visitor's connection that has been idle for this `TIME`"),
		number("max-sessions", 10_000, "`NUMBER` of clients that may be connected at once; further ones get 503"),
		number("login-failures", 10, "`NUMBER` of wrong tokens from one address in a minute, or 140 times as many from all addresses, after which attempts get 429; visitors' wrong passwords are counted the same way, but separately; 0 disables the limit"),
		number("max-requests", 10_000, "`NUMBER` of requests that one client may have under way at once; further ones get 503"),
		str("memory-limit", "", "`SIZE` such as 512MiB, or share such as 50%: visitors and clients get 503 when the server's memory comes near it; off disables the limit (default: GOMEMLIMIT, or 80% of what the machine or container has)"),
		str("log-format", "text", "`FORMAT` of the log: text or json"),
		str("log-level", "info", "`LEVEL` of the log: debug, info, warn or error"),
	}, tlsFlags()...)
}

func env(flag string) []string {
	return []string{"TUNNEL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// configure makes the server's configuration of the flags.
func configure(c *cli.Context, stderr io.Writer) (server.Config, error) {
	config := server.Config{
		Listen:         listen(c),
		Grace:          c.Duration("grace"),
		Hold:           c.Duration("hold"),
		Park:           c.Duration("park"),
		MaxHeaderBytes: c.Int("max-header-bytes"),
		MaxURIBytes:    c.Int("max-uri-bytes"),
		HeaderTimeout:  c.Duration("header-timeout"),
		IdleTimeout:    c.Duration("idle-timeout"),
		MaxSessions:    c.Int("max-sessions"),
		MaxRequests:    c.Int("max-requests"),
		UDPIdle:        c.Duration("udp-idle"),
		UDPVisitors:    c.Int("udp-visitors"),
		LoginFailures:  c.Int("login-failures"),
		PathNames:      c.Bool("path-names"),
		Agent:          "tunnel-server/" + version(),
	}
	if err := checkPairs(c); err != nil {
		return config, err
	}
	if err := positive(c); err != nil {
		return config, err
	}
	for _, l := range listens(c) {
		if err := checkListen(l.flag, l.value); err != nil {
			return config, err
		}
	}
	var err error
	if config.Log, err = logger(c, stderr); err != nil {
		return config, err
	}
	if config.Domain, err = domain(text(c, "domain")); err != nil {
		return config, err
	}
	if config.PublicURL, err = publicURL(c.String("public-url")); err != nil {
		return config, err
	}
	if config.Trusted, err = prefixes(c.String("trusted-proxies")); err != nil {
		return config, err
	}
	if config.TCPPorts, err = server.ParsePorts(c.String("tcp-ports")); err != nil {
		return config, fmt.Errorf("--tcp-ports %w", err)
	}
	if config.UDPPorts, err = server.ParsePorts(c.String("udp-ports")); err != nil {
		return config, fmt.Errorf("--udp-ports %w", err)
	}
	if config.Memory, err = memory(c, pace.Available(os.DirFS("/"))); err != nil {
		return config, err
	}
	config.Auth, err = authenticator(c, config.Log)
	return config, err
}

// text is the value of a flag that has a default. An empty one is a variable
// that was not filled in.
func text(c *cli.Context, name string) string {
	if s := c.String(name); s != "" {
		return s
	}
	for _, f := range flags() {
		if s, ok := f.(*cli.StringFlag); ok && s.Name == name {
			return s.Value
		}
	}
	return ""
}

func checkListen(flag, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return fmt.Errorf("%s %q is not HOST:PORT: give one such as 127.0.0.1:8080, or :8080 for all addresses", flag, addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%s %q: there is no port %q: use 1 to 65535, or 0 for any that is free", flag, addr, port)
	}
	return nil
}

// maxLoginFailures is no hindrance to who guesses any more, and bounds what is
// remembered of who failed.
const maxLoginFailures = 1000

// positive refuses limits that would let nothing through.
func positive(c *cli.Context) error {
	for _, name := range []string{"max-header-bytes", "max-uri-bytes", "max-sessions", "max-requests", "udp-visitors"} {
		if c.Int(name) <= 0 {
			return fmt.Errorf("--%s %d lets nothing through: give a number above 0", name, c.Int(name))
		}
	}
	if c.Duration("udp-idle") < time.Second {
		return fmt.Errorf("--udp-idle %s is less than a second: visitors would be forgotten before they are answered", c.Duration("udp-idle"))
	}
	if n := c.Int("login-failures"); n < 0 || n > maxLoginFailures {
		return fmt.Errorf("--login-failures %d: give 1 to %d, or 0 for no limit", n, maxLoginFailures)
	}
	for _, name := range []string{"grace", "hold", "park", "header-timeout", "idle-timeout"} {
		if c.Duration(name) < 0 {
			return fmt.Errorf("--%s %s is negative", name, c.Duration(name))
		}
	}
	return nil
}

func logger(c *cli.Context, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text(c, "log-level"))); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", c.String("log-level"))
	}
	o := &slog.HandlerOptions{Level: level}
	switch text(c, "log-format") {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: use text or json", c.String("log-format"))
}

func domain(s string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(strings.ToLower(strings.TrimSuffix(s, ".")))
	if err != nil || ascii == "" || strings.ContainsAny(ascii, ":/@ ") {
		return "", fmt.Errorf("--domain %q is not a domain name: give one such as tunnel.example.com, without scheme and port", s)
	}
	if _, err := netip.ParseAddr(ascii); err == nil {
		return "", fmt.Errorf("--domain %q is an address: names need a domain to stand before, such as localhost", s)
	}
	return ascii, nil
}

func publicURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err == nil && u.Hostname() != "" {
		u.Host, err = publicHost(u)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery != "" {
		return nil, fmt.Errorf("--public-url %q is not http://HOST[:PORT] or https://HOST[:PORT]", s)
	}
	return u, nil
}

// publicHost is u's host as visitors send it: an international name as its
// A-label, without the root's dot. Spelled otherwise it would not be known as the
// server's own, and be free to claim where it is below the domain.
func publicHost(u *url.URL) (string, error) {
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return u.Host, nil
	}
	host, err := domain(host)
	if port := u.Port(); port != "" {
		host = net.JoinHostPort(host, port)
	}
	return host, err
}

func prefixes(list string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		p, err := netip.ParsePrefix(one)
		if err != nil {
			a, aerr := netip.ParseAddr(one)
			if aerr != nil {
				return nil, fmt.Errorf("--trusted-proxies: %q is not an address or CIDR such as 10.0.0.0/8", one)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// authenticator decides who may connect. Without tokens the door is open on a
// loopback address only, unless --anonymous says otherwise (S12).
func authenticator(c *cli.Context, log *slog.Logger) (auth.Authenticator, error) {
	if c.IsSet("token-file") {
		if c.String("token-file") == "" {
			// A variable that was not filled in is no wish to go without.
			return nil, errors.New("--token-file names no file")
		}
		if c.Bool("anonymous") {
			return nil, errors.New("--token-file and --anonymous exclude each other: choose who may connect")
		}
		tokens, err := auth.OpenTokens(c.String("token-file"), log)
		if err != nil {
			return nil, err
		}
		return tokens, nil
	}
	if !c.Bool("anonymous") {
		for _, l := range listens(c) {
			if !loopback(l.value) {
				return nil, fmt.Errorf("%s %s is not a loopback address, and anybody could open tunnels: give --token-file FILE, or --anonymous if that is intended", l.flag, l.value)
			}
		}
		log.Warn("no --token-file: every client is let in, from this machine only as the address is a loopback one")
	}
	return auth.Anonymous{}, nil
}

func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
