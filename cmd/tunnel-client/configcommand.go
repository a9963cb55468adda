package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// example is what config init writes.
//
//go:embed tunnel.yaml
var example []byte

func (p process) configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "check a configuration file, or write one to begin with",
		UsageText:       "tunnel-client config check [--config FILE]\n\ntunnel-client config init [FILE]",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "say what is wrong with the configuration of start",
				UsageText:       "tunnel-client config check [--config FILE]",
				Description:     "It prints ok, or all mistakes, each with its line, and ends with 2. The server is not asked.",
				Flags:           []cli.Flag{configFlag()},
				HideHelpCommand: true, OnUsageError: configUsageError, Action: p.checkConfig,
			},
			{
				Name: "init", Usage: "write an example with comments",
				UsageText:       "tunnel-client config init [FILE]",
				Description:     "FILE is " + configName + " where none is named. A file that is there is left alone.",
				HideHelpCommand: true, OnUsageError: configUsageError, Action: p.initConfig,
			},
		},
		Action: func(c *cli.Context) error {
			if given := c.Args().First(); given != "" {
				return usageError{fmt.Errorf("config has no %q: use check or init", given)}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// configUsageError is onUsageError of a command of config.
func configUsageError(c *cli.Context, err error, subcommand bool) error {
	c.Command.Name = "config " + c.Command.Name
	return onUsageError(c, err, subcommand)
}

func (p process) checkConfig(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageError{fmt.Errorf("config check takes no argument: name files with --config %s", c.Args().First())}
	}
	from, err := openSources(c.StringSlice("config"))
	if err != nil {
		return usageError{err}
	}
	specs, err := plan(c, from.paths, from.used.contents, nil)
	if err != nil {
		return usageError{err}
	}
	names := make([]string, len(specs))
	for i, one := range specs {
		names[i] = one.name
	}
	fmt.Fprintf(p.stdout, "ok: %s in %s: %s\n", plural(int64(len(specs)), "endpoint"),
		printable(strings.Join(from.paths, ", ")), printable(strings.Join(names, ", ")))
	return nil
}

func (p process) initConfig(c *cli.Context) error {
	path := configName
	switch c.NArg() {
	case 0:
	case 1:
		path = c.Args().First()
	default:
		return usageError{fmt.Errorf("config init takes one FILE, got %d: %s", c.NArg(), strings.Join(c.Args().Slice(), " "))}
	}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = createFile(path, example, 0o600)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return usageError{fmt.Errorf("%s is there already, and left alone: remove it first, or name another FILE", path)}
	case err != nil:
		return usageError{fmt.Errorf("%s cannot be written: %w", path, err)}
	}
	fmt.Fprintf(p.stdout, "%s is written: change it, then tunnel-client start\n", printable(path))
	return nil
}
