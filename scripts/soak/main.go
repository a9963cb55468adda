// Command soak holds tunnel-server and tunnel-client, as the processes that a user runs, against the
// promises that only show in numbers and over time: ten thousand tunnels, a hundred thousand broken
// connections, minutes of silence, floods:
//
//	scripts/soak.sh --help
//
// A row (rows.go) is one trial on a server of its own. It states what it did as checks: a figure and the
// limit that the promise sets. The rows that mostly wait run together; the others one after the other,
// so that each has the machine for itself. The server is one process, its clients another, the local app a third
// (role.go); visitors and attackers are this process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	quickLimit = 6 * time.Minute // a quick run takes four on a quiet machine
	fullLimit  = 40 * time.Minute
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		if err := playRole(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "soak: role:", err)
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
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
	failed, err := soak(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	quick    bool
	markdown bool
	only     []string // rows by name, none: all
	bin      string   // folder with tunnel-server and tunnel-client
	keep     string   // folder for logs, "": a temporary one
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	var only string
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVar(&o.quick, "quick", false, "")
	f.BoolVar(&o.markdown, "markdown", false, "")
	f.StringVar(&o.bin, "bin", "bin", "")
	f.StringVar(&o.keep, "keep", "", "")
	f.StringVar(&only, "only", "", "")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected %q; rows are named with --only", f.Arg(0))
	}
	if only == "" {
		return o, nil
	}
	var known []string
	for _, r := range rows() {
		known = append(known, r.name)
	}
	o.only = strings.Split(only, ",")
	for _, name := range o.only {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown row %q; there are: %s", name, strings.Join(known, ", "))
		}
	}
	return o, nil
}

func (o *options) wants(r row) bool { return len(o.only) == 0 || slices.Contains(o.only, r.name) }

func usage(w io.Writer) {
	fmt.Fprint(w, `usage: scripts/soak.sh [--quick] [--only ROW,ROW] [--markdown] [--keep DIR]

Tries the promises that show in numbers and over time, on loopback, and prints one table. The exit code is
1 where a promise does not hold.

  --quick      about a tenth of the numbers and times: four minutes; without it up to 35
  --only       these rows alone
  --markdown   prints the rows of docs/reliability.md
  --keep DIR   writes the processes' logs there and leaves them

Rows, and the promise of each:
`)
	for _, r := range rows() {
		fmt.Fprintf(w, "  %-12s %-7s %s\n", r.name, r.promise, r.about)
	}
}

// soak runs the rows that o asks for and prints what they found. It ends everything it started before
// it returns, also after SIGINT and SIGTERM. The error says that the run was not finished.
func soak(o *options) (failed int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	limit := fullLimit
	if o.quick {
		limit = quickLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := newLab(ctx, o)
	if err != nil {
		return 0, err
	}
	defer l.close()
	results := l.runAll()
	if o.markdown {
		printMarkdown(os.Stdout, results)
	} else {
		printTable(os.Stdout, results)
	}
	passed, failed := count(results)
	fmt.Printf("\n%d passed, %d failed\n", passed, failed)
	if ctx.Err() != nil {
		return failed, fmt.Errorf("the run was not finished: %w", context.Cause(ctx))
	}
	return failed, nil
}
