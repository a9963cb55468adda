// Command release builds the archives of a release: scripts/release.sh calls it
// and says how.
//
// It works on a clone of the commit that is checked out, so that nothing of the
// working tree gets in, and leaves out all that differs from one run to the
// next: paths, times, users, the order of files. The commands take their version
// from what Go records of the commit.
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
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// A platform is a system that releases are for.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// platforms are those of a release, in the order in which they are built.
func platforms() []platform {
	return []platform{
		{"linux", "amd64"}, {"linux", "arm64"},
		{"darwin", "amd64"}, {"darwin", "arm64"},
		{"windows", "amd64"}, {"windows", "arm64"},
	}
}

// A release is one run.
type release struct {
	root string // the repository
	out  string // where the archives go
	only []platform
	log  io.Writer

	tree string // the clone
	temp string // for what is being built
}

// run is the whole command.
func run(ctx context.Context, args []string, log io.Writer) error {
	r := &release{log: log, root: ".", only: platforms()}
	if err := r.flags(args); err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	r.temp, r.tree = temp, filepath.Join(temp, "tree")
	if err := r.clone(ctx); err != nil {
		return err
	}
	var made []archive
	for _, p := range r.only {
		a, err := r.build(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		made = append(made, a)
	}
	return r.publish(made)
}

func (r *release) flags(args []string) error {
	set := flag.NewFlagSet("release", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&r.root, "root", ".", "")
	set.StringVar(&r.out, "out", "", "")
	given := false
	set.Func("only", "", func(s string) error {
		all := platforms()
		i := slices.IndexFunc(all, func(p platform) bool { return p.String() == s })
		if i < 0 {
			return fmt.Errorf("releases are for %s", strings.Trim(fmt.Sprint(all), "[]"))
		}
		if !given {
			r.only, given = nil, true
		}
		r.only = append(r.only, all[i])
		return nil
	})
	err := set.Parse(args)
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("unknown argument %q", set.Arg(0))
	}
	if err != nil {
		return errors.New(strings.NewReplacer("flag -", "flag --", "defined: -", "defined: --").Replace(err.Error()) + " (see scripts/release.sh --help)")
	}
	if r.out == "" {
		r.out = filepath.Join(r.root, "dist")
	}
	return nil
}
