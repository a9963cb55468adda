package main

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/tunnel"
)

//go:embed completion
var completions embed.FS

const completionDescription = `Put the line for your shell where it reads its settings:

   bash   source <(tunnel-client completion bash)
   zsh    source <(tunnel-client completion zsh)     # after compinit
   fish   tunnel-client completion fish | source

Commands, options, their values and files are completed, and the endpoints of the configuration
for tunnel-client start.`

// filesToo stands for all files in the answer to a shell.
const filesToo = ":files"

func shells() []string { return []string{"bash", "zsh", "fish"} }

func (p process) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a shell completion script for bash, zsh or fish", UsageText: "tunnel-client completion bash|zsh|fish",
		Description: completionDescription, HideHelpCommand: true, OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			shell := c.Args().First()
			if c.NArg() != 1 || !slices.Contains(shells(), shell) {
				return usageError{fmt.Errorf("completion takes one of %s: see tunnel-client completion --help", strings.Join(shells(), ", "))}
			}
			script, err := completions.ReadFile("completion/" + shell)
			if err != nil {
				return err
			}
			_, err = p.stdout.Write(script)
			return err
		},
	}
}

// suggestCommand is what the shells call: with the words of a command line behind
// tunnel-client, up to the one that is being written.
func (p process) suggestCommand() *cli.Command {
	return &cli.Command{
		Name: "__suggest", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			suggest(c.App, c.Args().Tail(), func(word, about string) {
				if about != "" {
					word += "\t" + about
				}
				fmt.Fprintln(p.stdout, word)
			})
			return nil
		},
	}
}

// suggest calls say for each word that the last of words may become.
func suggest(app *cli.App, words []string, say func(word, about string)) {
	words = unsplit(words)
	if len(words) == 0 {
		return
	}
	given, now := words[:len(words)-1], words[len(words)-1]
	offer := func(word, about string) {
		if strings.HasPrefix(word, now) || word == filesToo {
			say(word, about)
		}
	}
	commands := app.VisibleCommands()
	var command *cli.Command
	for len(given) > 0 && len(commands) > 0 {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == given[0] })
		if at < 0 {
			return
		}
		command, given = commands[at], given[1:]
		commands = slices.DeleteFunc(slices.Clone(command.Subcommands), func(c *cli.Command) bool { return c.Name == "help" })
	}
	switch {
	case len(commands) > 0:
		for _, c := range commands {
			offer(c.Name, c.Usage)
		}
	case len(given) > 0 && takesValue(command.Flags, given[len(given)-1]):
		suggestValues(command, strings.TrimLeft(given[len(given)-1], "-"), offer)
	case strings.HasPrefix(now, "-"):
		for _, f := range command.VisibleFlags() {
			offer("--"+f.Names()[0], brief(f))
		}
	default:
		suggestArguments(command, given, offer)
	}
}

// unsplit joins what bash takes apart: --config=FILE comes as three words.
func unsplit(words []string) []string {
	var all []string
	for _, word := range words {
		if word == "=" {
			word = ""
		}
		if n := len(all); n > 1 && word != "" && all[n-1] == "" && strings.HasPrefix(all[n-2], "-") {
			all[n-1] = word
			continue
		}
		all = append(all, word)
	}
	return all
}

// brief is the first part of what a flag's help says.
func brief(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	text := strings.ReplaceAll(d.GetUsage(), "`", "")
	for _, end := range []string{", ", ": ", "; "} {
		text, _, _ = strings.Cut(text, end)
	}
	return text
}

// suggestValues suggests what a flag may be set to.
func suggestValues(command *cli.Command, flag string, offer func(word, about string)) {
	var words []string
	switch flag {
	case "transport":
		for _, t := range []tunnel.Transport{tunnel.Auto, tunnel.Raw, tunnel.WebSocket, tunnel.PTTH} {
			words = append(words, string(t))
		}
	case "log-level":
		words = []string{"debug", "info", "warn", "error"}
	case "log-format":
		words = []string{"text", "json"}
	case "host-header":
		words = []string{"rewrite", "preserve"}
	case "proxy-protocol":
		words = []string{"v2"}
	}
	for _, word := range words {
		offer(word, "")
	}
	for _, f := range command.Flags {
		if slices.Contains(f.Names(), flag) && isFile(f) {
			offer(filesToo, "")
		}
	}
}

// suggestArguments suggests what stands behind a command beside options.
func suggestArguments(command *cli.Command, given []string, offer func(word, about string)) {
	switch command.Name {
	case "start":
		for _, name := range endpointsOf(given) {
			if !slices.Contains(given, name) {
				offer(name, "")
			}
		}
	case "completion":
		for _, shell := range shells() {
			offer(shell, "")
		}
	case "file", "init":
		offer(filesToo, "")
	}
}

// endpointsOf are the endpoints of the configuration that a command line of start has.
func endpointsOf(given []string) []string {
	command := &cli.App{Commands: []*cli.Command{{Name: "start", Flags: startFlags()}}, Writer: io.Discard, ErrWriter: io.Discard}
	var names []string
	command.Commands[0].Action = func(c *cli.Context) error {
		if from, err := openSources(c.StringSlice("config")); err == nil {
			names = parseConfig(from.paths, from.used.contents).order
		}
		return nil
	}
	_ = command.Run(flagsFirst(append([]string{"tunnel-client", "start"}, given...))) // half a command line has mistakes
	return names
}
