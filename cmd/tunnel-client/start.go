package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/slip"
)

const startDescription = `NAME is one of the endpoints in the configuration; without one, all are exposed. Each
is claimed by itself: one that fails is shown and, where that may help, tried again, and the
others go on. When all have failed, the exit code is that of the first.

The files are those of --config; where two say something of the same key, the later one counts.
Without --config it is tunnel.yaml in this directory or, where there is none, in tunnel-client/
below $XDG_CONFIG_HOME, or in the system's directory for settings. tunnel-client config init writes
one to begin with, tunnel-client config check says what is wrong.

When a file changes, and at SIGHUP, what is different is applied: what was added is claimed,
what was removed is drained, what was changed is both, and all others go on undisturbed. A file
with mistakes is not used. SIGHUP tries those again that had failed for good.

One inspector shows the requests of all of kind http and file; inspect at the top of a file says
where it is.

The first Ctrl-C or SIGTERM lets requests under way finish, the second one ends at once.`

// reloadTime is how often the files are looked at.
const reloadTime = 500 * time.Millisecond

// startFlags are those of start.
func startFlags() []cli.Flag {
	return append([]cli.Flag{configFlag(), yes("all", "start all endpoints, which is what happens without a NAME")}, pick(ofProcess()...)...)
}

func configFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name: "config", DefaultText: "tunnel.yaml here, or the user's", EnvVars: env("config"),
		Usage: "`FILE` with the configuration, may be repeated",
	}
}

// pick are those of commonFlags that have the names.
func pick(names ...string) []cli.Flag {
	return slices.DeleteFunc(commonFlags(), func(f cli.Flag) bool { return !slices.Contains(names, f.Names()[0]) })
}

func (p process) startCommand() *cli.Command {
	return &cli.Command{
		Name:            "start",
		Usage:           "expose the endpoints of a configuration file",
		UsageText:       "tunnel-client start [options] [NAME...]",
		Description:     startDescription,
		Flags:           startFlags(),
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			s, err := newStarter(p, c)
			if err != nil {
				return usageError{err}
			}
			if err := s.run(c.Context); err != nil {
				return codeOf(err)
			}
			return nil
		},
	}
}

// starter exposes the endpoints of a configuration.
type starter struct {
	process
	cli     *cli.Context
	log     *slog.Logger
	out     output
	chosen  []string // none: all
	sources *sources
	first   []*spec // to begin with

	// All of run's goroutine:
	members   map[string]*member
	order     []string
	inspector *inspector // nil: no endpoint is recorded
	inspected inspecting // what it was told

	tasks   sync.WaitGroup // members, also those that are being drained
	changed chan struct{}  // a member has failed, or ended
}

func newStarter(p process, c *cli.Context) (*starter, error) {
	s := &starter{
		process: p, cli: c, chosen: c.Args().Slice(),
		members: make(map[string]*member), changed: make(chan struct{}, 1),
	}
	if c.Bool("all") && len(s.chosen) > 0 {
		return nil, fmt.Errorf("--all starts all endpoints: leave %s out, or --all", strings.Join(s.chosen, " "))
	}
	var err error
	if s.log, err = logger(c, p.stderr); err != nil {
		return nil, err
	}
	if s.sources, err = openSources(c.StringSlice("config")); err != nil {
		return nil, err
	}
	if s.first, err = s.plan(s.sources.used.contents); err != nil {
		return nil, err
	}
	for _, name := range s.chosen {
		if !slices.ContainsFunc(s.first, func(one *spec) bool { return one.name == name }) {
			return nil, s.noEndpoint(name)
		}
	}
	return s, nil
}

// noEndpoint says that there is no endpoint name, and which ones there are.
func (s *starter) noEndpoint(name string) error {
	all := parseConfig(s.sources.paths, s.sources.used.contents).order
	hint := "the file has " + strings.Join(all, ", ")
	if near := slip.Nearest(all, name); near != "" {
		hint = "did you mean " + near + "?"
	}
	return fmt.Errorf("%s has no endpoint %q: %s", strings.Join(s.sources.paths, ", "), name, hint)
}

// plan makes of the files' contents what is to be exposed, or says all that is wrong.
func (s *starter) plan(contents [][]byte) ([]*spec, error) {
	return plan(s.cli, s.sources.paths, contents, s.chosen)
}

// plan is what the files say of the endpoints that were chosen, all of them where none was.
func plan(c *cli.Context, paths []string, contents [][]byte, chosen []string) ([]*spec, error) {
	w := parseConfig(paths, contents)
	specs := w.specs()
	if len(w.problems) == 0 && len(specs) == 0 {
		w.problems.add(position{file: paths[0]}, "there are no endpoints: tunnel-client config init shows how they are written")
	}
	if len(chosen) > 0 {
		specs = slices.DeleteFunc(specs, func(one *spec) bool { return !slices.Contains(chosen, one.name) })
	}
	for _, one := range specs {
		for at := range max(1, len(one.servers)) {
			f, err := one.configure(c, at, slog.New(slog.DiscardHandler))
			if err == nil {
				one.inspect = f.inspect
			}
			for _, what := range wrong(err) {
				w.problems.add(what.at, "%w", what.err)
			}
		}
	}
	w.checkNames(specs)
	return specs, w.problems.err()
}

// wrong are the problems in err.
func wrong(err error) problems {
	var several problems
	if err != nil && !errors.As(err, &several) {
		several = problems{{err: err}}
	}
	return several
}

// run exposes the endpoints until a signal comes, ctx ends or all have failed.
func (s *starter) run(ctx context.Context) error {
	reloads := make(chan struct{}, 1)
	defer s.divert(reloads)()
	drain, end, stop := s.watch(ctx)
	defer stop()
	s.out = s.output(s.cli.Bool("json"), s.log)
	defer s.out.close()
	defer func() { s.inspector.close() }()
	defer s.tasks.Wait()
	serving, cancel := context.WithCancel(drain)
	defer cancel()
	s.apply(serving, end, s.first)
	poll := time.NewTicker(reloadTime)
	defer poll.Stop()
	for {
		select {
		case <-drain.Done():
			s.tasks.Wait()
			return context.Cause(end) // nil, but after a second signal
		case <-s.changed:
			if over, err := s.over(); over && drain.Err() == nil {
				return err
			}
		case <-reloads:
			s.reload(serving, end, true)
		case <-poll.C:
			s.reload(serving, end, false)
		}
	}
}

// apply makes specs what is exposed. What is exposed in the same way goes on.
func (s *starter) apply(drain, end context.Context, specs []*spec) (added, changed, removed int) {
	s.inspect(specs)
	old := s.members
	s.members, s.order = make(map[string]*member, len(specs)), nil
	var begun []*member
	for _, one := range specs {
		before := old[one.name]
		delete(old, one.name)
		s.order = append(s.order, one.name)
		if before != nil && before.spec.equal(one) && !before.over() {
			s.members[one.name] = before
			continue
		}
		m := newMember(s, one)
		if before != nil {
			before.replace()
			m.patience = handoverTime
			changed++
		} else {
			added++
		}
		s.members[one.name] = m
		begun = append(begun, m)
	}
	s.arrange(begun)
	for _, m := range begun {
		ctx, leave := context.WithCancelCause(drain)
		m.leave = leave
		s.tasks.Go(func() { m.run(ctx, end) })
	}
	for _, m := range old {
		m.end(errRemoved)
	}
	return added, changed, len(old)
}

// arrange has a screen show the endpoints that there are now.
func (s *starter) arrange(begun []*member) {
	shows, ok := s.out.(*screen)
	if !ok {
		return
	}
	var names []string
	for _, m := range begun {
		names = append(names, m.spec.name)
	}
	shows.arrange(s.order, names, s.inspector.url())
}

// over reports whether no endpoint is left, and why the first of those has failed that have.
func (s *starter) over() (bool, error) {
	var first error
	for _, name := range s.order {
		m := s.members[name]
		err := m.failure()
		if err == nil && !m.over() {
			return false, nil
		}
		if first == nil {
			first = err
		}
	}
	return true, first
}

// divert makes SIGHUP a reload, and no end. But where the terminal has gone away with it,
// it means what it did first. stop ends what divert began.
func (s *starter) divert(reloads chan<- struct{}) (stop func()) {
	notify, terminals := s.notify, s.terminals()
	stopped := make(chan struct{})
	var sorting sync.WaitGroup
	s.notify = func(c chan<- os.Signal) {
		all := make(chan os.Signal, cap(c))
		notify(all)
		sorting.Go(func() {
			for {
				select {
				case <-stopped:
					return
				case got := <-all:
					if got == syscall.SIGHUP && !slices.ContainsFunc(terminals, hungUp) {
						offer(reloads, struct{}{})
					} else {
						offer(c, got)
					}
				}
			}
		})
	}
	return func() {
		close(stopped)
		sorting.Wait()
	}
}

// offer does not wait, as package os/signal doesn't.
func offer[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// terminals are those that the process was started on.
func (s *starter) terminals() []any {
	return slices.DeleteFunc([]any{s.stdin, s.stdout, s.stderr}, hungUp)
}

// hungUp reports whether there is no terminal, or none any more.
func hungUp(one any) bool {
	w, ok := one.(io.Writer)
	return !ok || !isTerminal(w)
}

// What ends an endpoint while the others go on.
var (
	errRemoved = errors.New("it was taken out of the configuration")
	errChanged = errors.New("it was changed in the configuration")
)
