// Command tunnel-server is the public side of the tunnel: visitors and clients
// reach it, and it passes the visitors' requests on to the clients.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/internal/slip"
)

func main() {
	// Two, so that a second signal counts however soon it follows the first.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go endOnSignal(signals, cancel)
	pace.Follow()
	// quic-go would write it past the log; docs/limits.md has it.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	// So would x/net's HTTP/2 what an origin does wrong, as often as that pleases.
	log.SetOutput(io.Discard)
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// endOnSignal drains the server on the first signal and ends the process on the
// second one.
func endOnSignal(signals <-chan os.Signal, drain func()) {
	<-signals
	drain()
	code := exitSignal
	if n, ok := (<-signals).(syscall.Signal); ok {
		code += int(n)
	}
	os.Exit(code)
}

// Exit codes.
const (
	exitRuntime = 1
	exitUsage   = 2
	exitSignal  = 128 // and the signal's number, as shells have it
)

// usageError is one of flags and configuration.
type usageError struct{ error }

// run is the whole command. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:            "tunnel-server",
		Usage:           "the public side of a reverse tunnel",
		Version:         version(),
		Writer:          stdout,
		ErrWriter:       stderr,
		HideHelpCommand: true,
		Commands: []*cli.Command{{
			Name: "serve", Usage: "serve visitors and clients (the default)",
			Flags: flags(), Action: serve(stderr), HideHelpCommand: true,
			OnUsageError: onUsageError,
		}, {
			Name: "version", Usage: "print the version", HideHelpCommand: true, OnUsageError: onUsageError,
			Action: func(c *cli.Context) error {
				fmt.Fprintf(stdout, "tunnel-server version %s\n", c.App.Version)
				return nil
			},
		}},
		Action: func(c *cli.Context) error {
			given, hint := c.Args().First(), "see tunnel-server --help"
			if near := slip.Nearest([]string{"serve", "version"}, given); near != "" {
				hint = "did you mean " + near + "?"
			}
			return usageError{fmt.Errorf("unknown command %q (%s)", given, hint)}
		},
		OnUsageError:   onUsageError,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	err := app.RunContext(ctx, withDefault(args))
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "tunnel-server:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitRuntime
}

// withDefault makes serve the command where none is named, so that its flags
// stand in one place only.
func withDefault(args []string) []string {
	if len(args) > 1 {
		switch first := args[1]; {
		case !strings.HasPrefix(first, "-"), first == "-h", first == "--help", first == "-v", first == "--version":
			return args
		}
	}
	return slices.Insert(slices.Clone(args), 1, "serve")
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	text, hint := slip.Explain(c.Command.Flags, err), "see tunnel-server serve --help"
	if _, meant := slip.Unknown(c.Command.Flags, text); meant != "" {
		hint = "did you mean --" + meant + "? " + hint
	}
	return usageError{fmt.Errorf("%s (%s)", text, hint)}
}

func serve(stderr io.Writer) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			return usageError{fmt.Errorf("unknown argument %q (see tunnel-server serve --help)", c.Args().First())}
		}
		config, err := configure(c, stderr)
		if err != nil {
			return usageError{err}
		}
		end, err := secure(c, &config)
		if _, listening := errors.AsType[*net.OpError](err); err != nil && !listening {
			err = usageError{err}
		}
		if err != nil {
			return err
		}
		defer end()
		s, err := server.New(config)
		if err != nil {
			return inUse(c, err)
		}
		defer config.Memory.Apply()()
		return s.Run(c.Context)
	}
}

// inUse names the way out of an address that is taken.
func inUse(c *cli.Context, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	flag := "--listen"
	if secured(c) {
		flag = "--listen or --tls-listen"
	}
	return fmt.Errorf("%w: another program uses it: stop that, or choose another address with %s, which clients then need as --server", err, flag)
}

// version is the module's, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
