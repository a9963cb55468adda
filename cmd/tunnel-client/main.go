// Command tunnel-client exposes a local app through a tunnel server.
//
//	tunnel-client http 3000
//
// claims a public name, prints its URL, and passes what visitors ask for there
// on to the app on port 3000. It is package tunnel and package forward with a
// command line: begin reading at expose in http.go. config.go reads flags and
// environment, output.go is what the user sees, exit.go the exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/pace"
	"github.com/revtun/tunnel/internal/slip"
)

func main() {
	pace.Follow()
	os.Exit(run(context.Background(), process{
		args: os.Args, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, notify: notify,
	}))
}

// process is what a command has of the process that it runs in.
type process struct {
	args           []string
	stdin          io.Reader // nil: nothing to read
	stdout, stderr io.Writer
	notify         func(chan<- os.Signal) // passes on the signals that ask for an end
}

// notify leaves alone what who started the process chose to ignore: nohup does
// that with SIGHUP.
func notify(c chan<- os.Signal) {
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(c, syscall.SIGHUP)
	}
}

// run is the whole command. It returns the exit code.
func run(ctx context.Context, p process) int {
	p.stderr = &outlet{w: p.stderr}
	app := &cli.App{
		Name:      "tunnel-client",
		Usage:     "expose a local app through a tunnel server",
		UsageText: "tunnel-client http [options] TARGET\n\ntunnel-client COMMAND --help shows the options",
		Version:   version(),
		Writer:    p.stdout,
		ErrWriter: p.stderr,
		Commands: []*cli.Command{
			p.exposing("http", "expose a local HTTP app", httpDescription),
			p.exposing("file", "expose a folder as a static site", fileDescription),
			p.exposing("tcp", "expose a local TCP service on a port of the server", tcpDescription),
			p.exposing("tls", "expose a local app with end-to-end TLS: the server never sees the plaintext", tlsDescription),
			p.exposing("udp", "expose a local UDP service on a port of the server", udpDescription),
			p.execCommand(),
			p.connectCommand(),
			p.doctorCommand(),
			p.startCommand(),
			p.configCommand(),
			p.loginCommand(),
			p.logoutCommand(),
			p.completionCommand(),
			p.suggestCommand(),
			p.requestsCommand(),
			p.replayCommand(),
			p.versionCommand(),
		},
		Action:         noCommand,
		OnUsageError:   onUsageError,
		ExitErrHandler: func(*cli.Context, error) {}, // it would end the process
	}
	err := app.RunContext(ctx, flagsFirst(p.args))
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	for _, one := range wrong(err) {
		fmt.Fprintln(p.stderr, "tunnel-client:", printable(one.Error()))
	}
	return int(exitUsage)
}

// exposing is a command that exposes a local app.
func (p process) exposing(name, usage, description string) *cli.Command {
	what := "TARGET"
	if name == "file" {
		what = "DIR"
	}
	return &cli.Command{
		Name:            name,
		Usage:           usage,
		UsageText:       "tunnel-client " + name + " [options] " + what,
		Description:     description,
		Flags:           flagsOf(name),
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			config, err := configure(c, p.stderr)
			if err != nil {
				return usageError{err}
			}
			if err := p.expose(c.Context, config); err != nil {
				config.report(p.stderr, err)
				return codeOf(err)
			}
			return nil
		},
	}
}

func (p process) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", HideHelpCommand: true, OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			fmt.Fprintf(p.stdout, "tunnel-client version %s\n", c.App.Version)
			return nil
		},
	}
}

// noCommand is for a command line without a command, or with one that there is
// not.
func noCommand(c *cli.Context) error {
	if !c.Args().Present() {
		return cli.ShowAppHelp(c)
	}
	given := c.Args().First()
	var names []string
	for _, one := range c.App.VisibleCommands() {
		names = append(names, one.Name)
	}
	hint := "see tunnel-client --help"
	if name := slip.Nearest(names, given); name != "" {
		hint = fmt.Sprintf("did you mean %s?", name)
	} else if isFolder(given) {
		hint = fmt.Sprintf("did you mean tunnel-client file %s?", given)
	} else if looksLikeTarget(given) {
		hint = fmt.Sprintf("did you mean tunnel-client http %s?", given)
	}
	return usageError{fmt.Errorf("unknown command %q: %s", given, hint)}
}

// version is the module's, as the build recorded it, and what it runs on.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("%s %s/%s", v, runtime.GOOS, runtime.GOARCH)
}
