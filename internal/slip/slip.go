// Package slip says of what was written wrong, on a command line or in a file, what may be meant:
// of a name the one that it is like, and of a flag's value what the flag takes. It makes the errors
// of package cli, which speak of flags as package flag does and of values as its parsers do, ours.
package slip

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// Nearest returns the one of words that given may be a slip of, or "": of all of it or, with
// less of a slip, of its first part, which ends with a dash.
func Nearest(words []string, given string) string {
	best, least := "", 3 // letters to change
	for _, w := range words {
		first, _, _ := strings.Cut(w, "-")
		d := min(smetrics.WagnerFischer(w, given, 1, 1, 1), 1+smetrics.WagnerFischer(first, given, 1, 1, 1))
		if d < least && d < len(w) {
			best, least = w, d
		}
	}
	return best
}

// Names are all by which flags go, without dashes.
func Names(flags []cli.Flag) []string {
	var all []string
	for _, f := range flags {
		all = append(all, f.Names()...)
	}
	return all
}

// Time is what a value that is a time has to be.
const Time = "a time such as 30s, 5m or 48h"

// Takes is what the value of a flag has to be, or "": such a flag says it itself.
func Takes(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true or false"
	case *cli.IntFlag, *cli.Uint64Flag:
		return "a whole number"
	case *cli.DurationFlag:
		return Time
	}
	return ""
}

// Explain is the text of an error of package cli about a command line with flags, or their
// variables: flags have two dashes, and what is wrong with a value is what the flag [Takes].
func Explain(flags []cli.Flag, err error) string {
	text := strings.NewReplacer("defined: -", "defined: --", "argument: -", "argument: --", "for flag -", "for flag --").Replace(err.Error())
	const before = " for flag "
	at := strings.LastIndex(text, before) + len(before)
	if at < len(before) {
		return text
	}
	name, _, _ := strings.Cut(text[at:], ":")
	for _, f := range flags {
		if what := Takes(f); what != "" && slices.Contains(f.Names(), strings.TrimLeft(name, "-")) {
			return text[:at] + name + ": give " + what
		}
	}
	return text
}

// others are flags of other tunnels, and ours that do the same.
var others = map[string]string{"subdomain": "name"}

// Unknown is the flag, without dashes, that a text of [Explain] says there is not, and the one of
// flags that may be meant; either is "" where there is none.
func Unknown(flags []cli.Flag, text string) (given, meant string) {
	_, given, _ = strings.Cut(text, "not defined: --")
	if given == "" {
		return "", ""
	}
	names := Names(flags)
	if ours := others[given]; slices.Contains(names, ours) {
		return given, ours
	}
	return given, Nearest(names, given)
}
