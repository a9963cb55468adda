// Command bench measures tunnel-server and tunnel-client beside yardsticks and peers, on loopback:
//
//	scripts/bench.sh --help
//
// It starts everything by itself on free ports and ends it again. Three words run through the code. A
// variant is a way from a visitor to the local app: direct, hops, ours, a peer (variants.go). A row is
// one kind of load with its metrics (rows.go). A round measures each variant of a row once, so that
// whatever else the machine does meets all of them; what is printed are medians over the rounds.
//
// The app, the hops and the slow path are child processes of the same executable (role.go), so that
// /proc tells the CPU time and memory of each part by itself. The load comes from this process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	quickLimit = 8 * time.Minute  // a quick run takes four on a quiet machine
	fullLimit  = 40 * time.Minute // rows that are not reached by then are left out, and said so
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		if err := playRole(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench: role:", err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(os.Stdout)
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	quick    bool
	rounds   int      // 0: the row's own number
	json     string   // file for every sample, "": none
	bin      string   // folder with tunnel-server and tunnel-client
	commit   string   // what was built, for the header
	rows     []string // by name, none: all
	variants []string // by name, none: all; the yardsticks are added
}

// String is the command that a user gives for o.
func (o *options) String() string {
	words := []string{"scripts/bench.sh"}
	if o.quick {
		words = append(words, "--quick")
	}
	if o.rounds > 0 {
		words = append(words, "--rounds", strconv.Itoa(o.rounds))
	}
	if len(o.variants) > 0 {
		words = append(words, "--variants", strconv.Quote(strings.Join(o.variants, ",")))
	}
	return strings.Join(append(words, o.rows...), " ")
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	var variants string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVar(&o.quick, "quick", false, "")
	f.IntVar(&o.rounds, "rounds", 0, "")
	f.StringVar(&o.json, "json", "", "")
	f.StringVar(&o.bin, "bin", "bin", "")
	f.StringVar(&o.commit, "commit", "unknown", "")
	f.StringVar(&variants, "variants", "", "")
	for { // options may stand before and after the rows
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			break
		}
		o.rows, args = append(o.rows, f.Arg(0)), f.Args()[1:]
	}
	if o.rounds < 0 {
		return nil, fmt.Errorf("--rounds %d: want at least 1", o.rounds)
	}
	if variants != "" {
		o.variants = strings.Split(variants, ",")
	}
	var known []string
	for _, r := range rows() {
		known = append(known, r.name)
	}
	if err := allKnown("row", o.rows, known); err != nil {
		return nil, err
	}
	return o, allKnown("variant", o.variants, variantNames())
}

func allKnown(what string, names, known []string) error {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown %s %q; there are: %s", what, name, strings.Join(known, ", "))
		}
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprint(w, `usage: scripts/bench.sh [--quick] [--rounds N] [--variants NAME,…] [--json FILE] [ROW…]

Measures on loopback and prints medians, the ratio to the yardstick of the same run, and the spread.
See docs/performance.md for what the columns mean.

  --quick      few short rounds, about four minutes in all; without it up to 40 minutes
  --rounds N   rounds of each row, in place of the row's own number
  --variants   only these, and the yardsticks
  --json FILE  writes every sample

Rows:
`)
	for _, r := range rows() {
		fmt.Fprintf(w, "  %-9s %s\n", r.name, r.about)
	}
	fmt.Fprint(w, "\nVariants:\n")
	for _, v := range variants() {
		fmt.Fprintf(w, "  %-17s %s\n", v.name, v.about)
	}
}

// bench measures what o asks for and prints it. It ends everything it started before it returns,
// also after SIGINT and SIGTERM.
func bench(o *options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	limit := fullLimit
	if o.quick {
		limit = quickLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	lab, err := newLab(ctx, o.bin)
	if err != nil {
		return err
	}
	defer lab.close()

	r := &run{lab: lab, options: o, store: newStore()}
	r.variants, r.absent = available(o.variants)
	header(os.Stdout, o, r.variants, r.absent)
	for _, row := range rows() {
		if len(o.rows) > 0 && !slices.Contains(o.rows, row.name) {
			continue
		}
		if ctx.Err() != nil {
			fmt.Printf("\n## %s\n\nNot measured: the run ended before (%v).\n", row.name, context.Cause(ctx))
			continue
		}
		row.measure(r, row)
		r.store.print(os.Stdout, row)
	}
	printTargets(os.Stdout, r.store)
	if o.json != "" {
		err = r.store.writeJSON(o.json)
	}
	return errors.Join(err, interrupted(ctx))
}

// interrupted is an error where the run did not get to its end by itself.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("the run was not finished: %w", context.Cause(ctx))
}

// selfPath is this executable, to start children from.
func selfPath() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}
