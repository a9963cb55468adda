package slip

import (
	"flag"
	"io"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

func TestNearest(t *testing.T) {
	words := []string{"name", "json", "url-file", "log-format"}
	for given, want := range map[string]string{
		"nmae": "name", "jsn": "json", "urlfile": "url-file", "logformat": "log-format", "ulr": "", "lgo": "", "ur": "url-file", "x": "", "zzzz": "", "": "",
	} {
		if got := Nearest(words, given); got != want {
			t.Errorf("%q is near %q, want %q", given, got, want)
		}
	}
}

func testFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Aliases: []string{"n"}},
		&cli.BoolFlag{Name: "json"},
		&cli.IntFlag{Name: "limit", EnvVars: []string{"SLIP_LIMIT"}},
		&cli.Uint64Flag{Name: "generation"},
		&cli.DurationFlag{Name: "grace", Value: time.Second},
		&cli.Float64Flag{Name: "share"},
	}
}

// apply parses a command line as package cli does, and returns what it objects to.
func apply(flags []cli.Flag, args []string) error {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range flags {
		if err := f.Apply(set); err != nil {
			return err
		}
	}
	return set.Parse(args)
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		args        []string
		limit       string // the variable of one
		text        string
		given, near string
	}{
		{args: []string{"--grace", "soon"}, text: `invalid value "soon" for flag --grace: give a time such as 30s, 5m or 48h`},
		{args: []string{"--limit", "many"}, text: `invalid value "many" for flag --limit: give a whole number`},
		{args: []string{"--generation", "-1"}, text: `invalid value "-1" for flag --generation: give a whole number`},
		{args: []string{"--json=x"}, text: `invalid boolean value "x" for -json: parse error`}, // package flag's own words
		{args: []string{"--share", "x"}, text: `invalid value "x" for flag --share: parse error`},
		{args: []string{"--grace"}, text: "flag needs an argument: --grace"},
		{limit: "many", text: `could not parse "many" as int value from environment variable "SLIP_LIMIT" for flag limit: give a whole number`},
		{args: []string{"-grcae", "1s"}, text: "flag provided but not defined: --grcae", given: "grcae", near: "grace"},
		{args: []string{"--subdomain", "x"}, text: "flag provided but not defined: --subdomain", given: "subdomain", near: "name"},
		{args: []string{"--zzzz"}, text: "flag provided but not defined: --zzzz", given: "zzzz"},
	} {
		t.Setenv("SLIP_LIMIT", test.limit)
		err := apply(testFlags(), test.args)
		if err == nil {
			t.Errorf("%q is taken", test.args)
			continue
		}
		text := Explain(testFlags(), err)
		if text != test.text {
			t.Errorf("%q: %s, want %s", test.args, text, test.text)
		}
		if given, near := Unknown(testFlags(), text); given != test.given || near != test.near {
			t.Errorf("%q: %q is unknown and %q near, want %q and %q", test.args, given, near, test.given, test.near)
		}
	}
}
