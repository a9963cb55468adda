package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/slip"
	"github.com/revtun/tunnel/pkg/tunnel"
)

const httpDescription = `TARGET is the local app: 3000, host:port, http://host, https://host, h2c://host (HTTP/2
without TLS, for gRPC) or unix:/path; or file:///path, a folder, as tunnel-client file has it.
Options may stand before and after it.

Without --name the public name is a random one that is kept for the server, this directory
and TARGET; with a token from --token-file, --token-command or TUNNEL_TOKEN it is the token's,
without one this machine's and user's. Where something on the way shuts the raw upgrade out,
that is kept for a day. What is kept is in tunnel-client/ below $XDG_STATE_HOME, or in the
system's directory for state.

The first Ctrl-C or SIGTERM lets requests under way finish, the second one ends at once.

Exit codes: 0 clean, 1 runtime, 2 usage or configuration, 3 authentication, 4 name taken,
5 server unreachable at the first attempt.`

const execDescription = `Claims the name, runs COMMAND with its public URL in TUNNEL_URL, and ends with COMMAND's
exit code. Everything behind the first word that is no option is COMMAND's; -- may stand before it.

Until the app is ready visitors get 503 with Retry-After. It is ready when TARGET takes
connections, or when --wait URL answers; then --url-file is written. An app that is not ready
within --wait-timeout is ended.

Signals are passed on to COMMAND and all in its process group: SIGINT, SIGTERM, SIGHUP,
SIGQUIT, SIGUSR1, SIGUSR2. After the first SIGINT or SIGTERM it has --grace to end in; the
second one kills it. At a terminal the keys, such as Ctrl-C and Ctrl-Z, are COMMAND's, as if it
were run alone. When it has ended, so is what it started and left behind, on Linux also what
went into the background as a daemon. If the tunnel ends for good, COMMAND is ended.

Standard input, output and error are COMMAND's. What this program has to say, also with --json,
goes to standard error. COMMAND does not see TUNNEL_TOKEN.

Exit codes: COMMAND's, or 128 and the signal's number where one ended it; 127 COMMAND not found,
126 COMMAND cannot be run; 1 runtime, 2 usage or configuration, 3 authentication, 4 name taken,
5 server unreachable at the first attempt, 6 the app was not ready in time. With 2 to 5, 126 and
127 COMMAND was not run, unless the tunnel ended meanwhile.`

const tcpDescription = `TARGET is where the local app takes connections: 22, host:port, tcp://host:port or
unix:/path. Options may stand before and after it.

The server gives a port, which is printed as tcp://HOST:PORT. It is the same one after the
connection was lost, and, with the same --name and token, at the next start. Without --name
one is kept for the server, this directory and TARGET.

The end of one direction is passed on as such, and a reset as a reset. At the first Ctrl-C or
SIGTERM no new connection comes; those that are open end with the second one, or after --grace.`

const udpDescription = `TARGET is where the local app takes datagrams: 53, host:port or udp://host:port. Options may
stand before and after it.

The server gives a port, which is printed as udp://HOST:PORT. It is the same one after the
connection was lost, and, with the same --name and token, at the next start. Without --name
one is kept for the server, this directory and TARGET. The same --remote-port may serve a
second client for tcp. With --private there is no port: clients with the same token reach it
by tunnel-client connect NAME --udp.

The app sees each visitor, an address and port, at a socket of its own. Datagrams that
find no room on the way are dropped, as networks do. They travel on one connection to the
server: a packet of that which is lost on the way delays all that come after it.`

// flagsOf are those of a command that exposes or reaches something, or nil. Each has an
// environment variable of its name.
func flagsOf(command string) []cli.Flag {
	switch command {
	case "http":
		return httpFlags()
	case "file":
		return fileFlags()
	case "tcp":
		return tcpFlags()
	case "connect":
		return connectFlags()
	case "doctor":
		return doctorFlags()
	case "udp":
		return udpFlags()
	case "tls":
		return tlsFlags()
	case "start":
		return startFlags()
	case "login", "logout":
		return loginFlags()
	case "requests":
		return requestsFlags()
	case "replay":
		return replayFlags()
	}
	return nil
}

// httpFlags are those of http.
func httpFlags() []cli.Flag {
	return append(append(append(commonFlags(), siteFlags()...), inspectFlags()...),
		str("host-header", "rewrite", "", "`HOST` that the app sees: rewrite (its own), preserve (the public one), or a host[:port]"),
		proxyProtocolFlag(),
		yes("insecure-upstream", "accept any certificate of an https TARGET"),
		span("app-timeout", 5*time.Minute, "`TIME` that the app may take to begin its answer; 0 is without limit"),
		hidden(spaFlag()), hidden(hiddenFlag()),
	)
}

// siteFlags are those of all that has a site of its own.
func siteFlags() []cli.Flag {
	return append(shareFlags(),
		domainFlag(),
		&cli.Uint64Flag{Name: "generation", DefaultText: "none", Usage: "`N` that orders clients with the same token and --name, such as a CI run's number: the highest takes the name over, and a lower one is refused", EnvVars: env("generation")},
		str("origin", "", "NAME's, which the server tells", "`URL` that a proxy that is not ours is to send here by --transport ptth, such as https://app.example.com"),
	)
}

// execFlags are those of exec.
func execFlags() []cli.Flag {
	return append([]cli.Flag{
		str("target", "", "it is needed", "`TARGET` is where COMMAND listens: 3000, host:port, http://host, https://host, h2c://host or unix:/path"),
		yes("set-port", "set PORT for COMMAND to the port of --target"),
		str("wait", "", "TARGET takes connections", "`URL` that answers with a status below 400 when the app is ready, such as http://localhost:3000/healthz"),
		span("wait-timeout", time.Minute, "`TIME` that the app may take to be ready; 0 is without limit"),
	}, httpFlags()...)
}

// tcpFlags are those of tcp.
func tcpFlags() []cli.Flag { return append(portFlags(), proxyProtocolFlag()) }

// portFlags are those of all that have a port of the server.
func portFlags() []cli.Flag {
	return append(append(commonFlags(), visitFlags()...),
		&cli.IntFlag{Name: "remote-port", DefaultText: "the server's choice", Usage: "public `PORT`, one of those that the server gives", EnvVars: env("remote-port")},
	)
}

// udpFlags are those of udp.
func udpFlags() []cli.Flag {
	refused := proxyProtocolFlag()
	refused.Hidden = true // it is there to say why
	return append(portFlags(), refused,
		&cli.DurationFlag{Name: "idle-timeout", DefaultText: "the server's, 2m", Usage: "`TIME` after which a visitor who sends and gets nothing loses its socket, where that is shorter than the server's", EnvVars: env("idle-timeout")},
	)
}

func proxyProtocolFlag() *cli.StringFlag {
	return &cli.StringFlag{
		Name: "proxy-protocol", DefaultText: "none", EnvVars: env("proxy-protocol"),
		Usage: "begin each connection to TARGET with a header of the PROXY protocol, `VERSION` v2, by which it learns the visitor's address; it has to expect one",
	}
}

// commonFlags are those of all that expose something.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		str("server", tunnel.DefaultServer, "", "`URL` of the tunnel server"),
		str("token-file", "", "the token in $TUNNEL_TOKEN, that of login, or none", "`FILE` with the token in its first line that is not empty or a # comment"),
		str("token-command", "", "none", "`COMMAND` of the shell that prints the token, run anew for each connection: for tokens that do not live long, in place of --token-file"),
		str("name", "", "a random one that is kept", "public `NAME`, one DNS label; when it is taken the exit code is 4"),
		yes("private", "no public name and no port: clients with the same token reach it by tunnel-client connect NAME"),
		str("transport", string(tunnel.Auto), "", "`TRANSPORT` to the server: raw, websocket, or auto: raw, and websocket where that does not get through; or, for http, ptth: reverse HTTP, which other proxies may speak"),
		str("proxy", "", "HTTP_PROXY, HTTPS_PROXY and NO_PROXY", "`URL` of a forward proxy: http://user:password@host:port, or https://"),
		str("ca", "", "the system's roots alone", "`FILE` with more certificates (PEM) to trust for an https server or proxy"),
		span("grace", 30*time.Second, "how long requests under way may take to finish at shutdown: a `TIME` such as 30s"),
		yes("retry", "keep trying where the server cannot be reached at first"),
		yes("json", "print one JSON object a line for each change of the connection, the first when it is ready"),
		str("url-file", "", "none", "`FILE` to write the public URL to when it is ready, removed at the end; a script that waits for it removes an old one first"),
		str("log-format", "text", "", "`FORMAT` of the log: text or json"),
		str("log-level", "info", "", "`LEVEL` of the log: debug (with a line a request), info, warn or error"),
	}
}

func str(name, value, shown, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, DefaultText: shown, Usage: usage, EnvVars: env(name)}
}

func span(name string, value time.Duration, usage string) cli.Flag {
	return &cli.DurationFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func yes(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func env(flag string) []string {
	return []string{"TUNNEL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// flagsFirst moves the flags of a command before its TARGET. Package cli takes all
// that follows an argument for arguments, and "http 3000 --name demo" is how
// people write.
func flagsFirst(args []string) []string {
	at := slices.IndexFunc(args[1:], func(a string) bool { return !strings.HasPrefix(a, "-") }) + 2
	if at < 2 || flagsOf(args[at-1]) == nil {
		return args
	}
	flags := flagsOf(args[at-1])
	ordered := slices.Clone(args[:at])
	var rest []string
	for tail := args[at:]; len(tail) > 0; {
		one := tail[0]
		tail = tail[1:]
		switch {
		case one == "--":
			rest, tail = append(rest, tail...), nil
		case one == "--help", one == "-h":
			return append(args[:at:at], one) // package cli would look for help on TARGET
		case len(one) < 2 || one[0] != '-':
			rest = append(rest, one)
		case !takesValue(flags, one):
			ordered = append(ordered, one)
		case len(tail) == 0:
			return append(ordered, one) // "--" would be its value
		default:
			ordered = append(ordered, one, tail[0])
			tail = tail[1:]
		}
	}
	return append(append(ordered, "--"), rest...)
}

// takesValue reports whether the next argument is flag's value.
func takesValue(flags []cli.Flag, flag string) bool {
	name := strings.TrimLeft(flag, "-") // with "=" it is nobody's name
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, boolean := f.(*cli.BoolFlag)
			return !boolean
		}
	}
	return false
}

// onUsageError makes package cli's errors ours.
func onUsageError(c *cli.Context, err error, subcommand bool) error {
	help := "tunnel-client --help"
	if subcommand {
		help = "tunnel-client " + c.Command.Name + " --help"
	}
	text, hint := slip.Explain(c.Command.Flags, err), "see "+help
	name, meant := slip.Unknown(c.Command.Flags, text)
	if meant != "" {
		hint = "did you mean --" + meant + "? " + hint
	}
	if subcommand && name == "remote-port" {
		hint = "a port of the server is for tunnel-client tcp and udp: " + hint
	}
	if !subcommand && slices.Contains(slip.Names(httpFlags()), name) {
		hint = "options go after the command: tunnel-client http --" + name
	}
	return usageError{fmt.Errorf("%s: %s", text, hint)}
}

// looksLikeTarget reports whether a word where a command should be is what http
// takes.
func looksLikeTarget(word string) bool {
	_, err := forward.ParseTarget(word)
	return err == nil
}
