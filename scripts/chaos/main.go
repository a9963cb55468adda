// Command chaos runs the real binaries under mixed load and breaks something every few seconds:
//
//	scripts/chaos.sh --help
//
// A server, nine clients, two local apps and one that attaches itself are processes of their own; links with faults (rig.Path,
// rig.Packets) lie between each client and the server and before each of the server's listeners. The clients
// expose HTTP, also by PTTH, gRPC, TCP, UDP, TLS and a private endpoint, which the last one reaches. Visitors (load.go) send
// requests of each kind all the time, and an oracle (rig.Visitor, rig.Reconcile) judges each of them: full, a
// visible error, refused, or one of the endings that must not be. The faults (fault.go) are drawn from
// the seed alone, so the same seed and length give the same ones; the load's timing is the machine's.
// After each fault the tunnels must answer again soon (trial.go). The end is one table (table.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if known, err := playRole(os.Args[1:]); known {
		if err != nil {
			fmt.Fprintf(os.Stderr, "chaos: %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	failed, err := chaos(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

const usage = `usage: scripts/chaos.sh [--minutes N] [--seed S]

Runs a server, nine clients, two local apps and one that attaches itself by PTTH under mixed load with a random fault every few
seconds, and judges each request. The exit code is 1 if anything was lost, duplicated, truncated
unseen, mixed up or hung, if a process crashed or leaked, or if a tunnel did not come back in time.

  --minutes N  how long faults are made, 3 by default; 0.5 is half a minute
  --seed S     a number: the same seed and length make the same faults; the time by default
  --rate R     of the load's usual rate, about 180 requests a second; 1 by default
  --only WORDS of the faults of the seed only those whose kind has these words
  --keep       keep the processes' logs, which else are kept only when something failed
`

// options are the command line.
type options struct {
	length time.Duration
	seed   uint64
	rate   float64
	bin    string // folder with tunnel-server and tunnel-client
	keep   bool
	only   string // words of a fault's kind
	dump   bool   // end the processes with their goroutines in their logs when the tunnels are not back in time
	plant  string // a wrong that the oracle must find, for its test
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	var minutes float64
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Float64Var(&minutes, "minutes", 3, "")
	f.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()%1_000_000), "")
	f.Float64Var(&o.rate, "rate", 1, "")
	f.StringVar(&o.bin, "bin", "bin", "")
	f.BoolVar(&o.keep, "keep", false, "")
	f.StringVar(&o.only, "only", "", "")
	f.BoolVar(&o.dump, "dump", false, "")
	f.StringVar(&o.plant, "plant", "", "")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if minutes <= 0 || o.rate <= 0 {
		return nil, errors.New("--minutes and --rate must be positive")
	}
	o.length = time.Duration(minutes * float64(time.Minute))
	return o, nil
}

// chaos is a whole run. failed reports that a promise was broken, and err that the run was not one.
func chaos(ctx context.Context, o *options, out io.Writer) (failed bool, err error) {
	fmt.Fprintf(out, "seed %d, %v\n\n", o.seed, o.length)
	dir, err := os.MkdirTemp("", "chaos.")
	if err != nil {
		return false, err
	}
	defer func() {
		if failed || err != nil || o.keep {
			fmt.Fprintf(out, "logs: %s\n", dir)
		} else {
			os.RemoveAll(dir)
		}
	}()
	l, err := newLab(ctx, o, dir)
	if err != nil {
		return false, err
	}
	defer l.close()
	t := &trial{lab: l, out: out}
	if err := t.run(); err != nil {
		return true, err
	}
	return t.report(), nil
}
