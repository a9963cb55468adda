package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/doctor"
	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/pkg/protocol"
)

const doctorDescription = `It looks at each step from here to the server, and says what is wrong and what to do: the name
(dns), the connection (tcp), a forward proxy, TLS and who signed the certificate, the server's
own description, the clocks, each --transport, the token, and whether a session lives on when
it is silent (--idle). TARGET, if there is one, is the local app as http has it, or
tcp://HOST:PORT: whether it answers, and speaks what TARGET says.

To try the transports it has sessions that claim no name, but for ptth, for which it serves a
random one for a moment. A token is shown to the server, and never printed.

Exit codes: 0 nothing failed, 1 something did, 2 usage or configuration.`

// doctorFlags are the common ones that lead to the server, and a few of its own.
func doctorFlags() []cli.Flag {
	flags := []cli.Flag{
		span("idle", 10*time.Second, "`TIME` for which a session is left silent, to see whether something on the way cuts it; 0: not tried"),
		yes("insecure-upstream", "accept any certificate of an https TARGET"),
		yes("json", "print one JSON object"),
	}
	for _, f := range commonFlags() {
		if slices.Contains([]string{"server", "token-file", "token-command", "transport", "proxy", "ca"}, f.Names()[0]) {
			flags = append(flags, f)
		}
	}
	return flags
}

func (p process) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "find out what keeps this client from its server, or the server from the app",
		UsageText:       "tunnel-client doctor [options] [TARGET]",
		Description:     doctorDescription,
		Flags:           doctorFlags(),
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			d, err := configureDoctor(c)
			if err != nil {
				return usageError{err}
			}
			shown := diagnosis{w: p.stdout, server: d.Client.Server, color: isTerminal(p.stdout) && wantsColor()}
			if !c.Bool("json") {
				shown.begin()
				d.Show = shown.step
			}
			steps, err := d.Run(c.Context)
			if err != nil {
				return usageError{err}
			}
			return shown.end(steps, c.Bool("json"))
		},
	}
}

func configureDoctor(c *cli.Context) (*doctor.Doctor, error) {
	way, err := client(c)
	if err != nil {
		return nil, err
	}
	d := &doctor.Doctor{Client: *way, Insecure: c.Bool("insecure-upstream"), Idle: c.Duration("idle")}
	if d.Idle < 0 {
		return nil, fmt.Errorf("--idle %v is negative", d.Idle)
	}
	switch c.NArg() {
	case 0:
		return d, nil
	case 1:
	default:
		return nil, fmt.Errorf("doctor takes one TARGET at most, got %d: %s", c.NArg(), strings.Join(c.Args().Slice(), " "))
	}
	var app forward.Target
	if given := c.Args().First(); strings.HasPrefix(given, "tcp://") {
		app, err = forward.ParseRawTarget(given, "tcp")
	} else {
		app, err = target(protocol.KindHTTP, c.Args().Slice())
	}
	d.App = &app
	return d, err
}

// diagnosis is what the user sees of a doctor.
type diagnosis struct {
	w      io.Writer
	server string
	color  bool
}

func (d diagnosis) begin() { fmt.Fprintf(d.w, "Server  %s\n\n", printable(d.server)) }

// step is a line with its verdict first, and one for the way out.
func (d diagnosis) step(s doctor.Step) {
	took := ""
	if s.Took > 0 {
		took = short(s.Took)
	}
	detail := printable(s.Detail)
	if s.Code != "" {
		detail += " (" + printable(string(s.Code)) + ")"
	}
	fmt.Fprintf(d.w, "%s  %-9s %8s  %s\n", d.verdict(s.Verdict), s.Name, took, detail)
	if s.Hint != "" {
		fmt.Fprintf(d.w, "%26s-> %s\n", "", printable(s.Hint))
	}
}

// verdict is a word, so that it is read out, and without color, too.
func (d diagnosis) verdict(v doctor.Verdict) string {
	word := fmt.Sprintf("%-4s", v)
	status := map[doctor.Verdict]int{doctor.OK: 200, doctor.Warn: 400, doctor.Fail: 500}[v]
	if !d.color || status == 0 {
		return word
	}
	return colored(word, status)
}

// end sums up. The error is the exit code.
func (d diagnosis) end(steps []doctor.Step, asJSON bool) error {
	var failed, warned int64
	for _, s := range steps {
		switch s.Verdict {
		case doctor.Fail:
			failed++
		case doctor.Warn:
			warned++
		}
	}
	var err error
	if asJSON {
		err = d.json(steps, failed == 0)
	} else {
		fmt.Fprintf(d.w, "\n%s\n", summary(failed, warned))
	}
	if failed > 0 {
		return exitRuntime
	}
	return err
}

func summary(failed, warned int64) string {
	switch {
	case failed > 0:
		return plural(failed, "step") + " failed."
	case warned > 0:
		return "Nothing failed; " + plural(warned, "warning") + "."
	}
	return "Everything is fine."
}

func (d diagnosis) json(steps []doctor.Step, ok bool) error {
	type timed struct {
		doctor.Step
		MS float64 `json:"ms"`
	}
	report := struct {
		Server string  `json:"server"`
		OK     bool    `json:"ok"`
		Steps  []timed `json:"steps"`
	}{Server: d.server, OK: ok}
	for _, s := range steps {
		report.Steps = append(report.Steps, timed{s, float64(s.Took.Microseconds()) / 1000})
	}
	e := json.NewEncoder(d.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(report); err != nil {
		return errors.Join(errors.New("standard output cannot be written"), err)
	}
	return nil
}
