package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/slip"
)

// failoverTime is how long a server may be away before the next one is tried, where the
// configuration does not say it.
const failoverTime = 30 * time.Second

// Keys that are no flags.
const (
	keyKind     = "kind"
	keyTarget   = "target"
	keyFailover = "failover_after"
)

// kinds are the commands that an endpoint may be of.
func kinds() []string { return []string{"http", "file", "tcp", "tls", "udp"} }

// oneOnly are the flags whose value can be one endpoint's only. The others may stand at
// the top of a file, and their variables count for all endpoints.
func oneOnly() []string { return []string{"name", "domain", "origin", "remote-port", "url-file"} }

// ofAll are the flags whose value all endpoints have together: it stands at the top of a file.
func ofAll() []string { return []string{"inspect", "inspect-body"} }

// ofProcess are the flags that are start's own, not its endpoints'.
func ofProcess() []string { return []string{"json", "log-format", "log-level"} }

// spec is an endpoint as it is to be exposed.
type spec struct {
	name     string
	at       position
	kind     string
	guessed  bool // kind is, as the files say one that there is not, and none that is like it
	target   string
	options  map[string]setting // by flag
	servers  []string           // none: the environment's, or the default
	failover time.Duration
	inspect  inspecting // zero: it is not recorded
}

// equal reports whether both are exposed in the same way, wherever the inspector is.
func (s *spec) equal(o *spec) bool {
	return s.kind == o.kind && s.target == o.target && s.failover == o.failover && slices.Equal(s.servers, o.servers) &&
		maps.EqualFunc(s.own(), o.own(), func(a, b setting) bool { return slices.Equal(a.values, b.values) })
}

// own are the options that are not all endpoints'.
func (s *spec) own() map[string]setting {
	own := maps.Clone(s.options)
	maps.DeleteFunc(own, func(flag string, _ setting) bool { return slices.Contains(ofAll(), flag) })
	return own
}

// key is what the files call a flag.
func key(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// specs makes endpoints of what the files say.
func (w *written) specs() []*spec {
	w.checkTop()
	var all []*spec
	for _, name := range w.order {
		all = append(all, w.spec(name))
	}
	return all
}

// checkTop looks for keys at the top that are of no endpoint.
func (w *written) checkTop() {
	var known []string
	for _, kind := range kinds() {
		for _, f := range optionsOf(kind) {
			if !slices.Contains(oneOnly(), f.Names()[0]) {
				known = append(known, key(f.Names()[0]))
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(w.top.settings)) {
		at := w.top.settings[k].at
		switch {
		case k == keyFailover, slices.Contains(known, k):
		case k == keyKind, k == keyTarget, slices.ContainsFunc(oneOnly(), func(f string) bool { return key(f) == k }):
			w.problems.add(at, "%s is of one endpoint: it belongs below endpoints", k)
		default:
			w.problems.add(at, "%s", unknown(k, append(known, "version", "endpoints", keyFailover)))
		}
	}
}

// optionsOf are the flags of a kind that a file may set.
func optionsOf(kind string) []cli.Flag {
	return slices.DeleteFunc(flagsOf(kind), func(f cli.Flag) bool { return slices.Contains(ofProcess(), f.Names()[0]) })
}

// unknown says that there is no such key, and what may be meant.
func unknown(given string, known []string) string {
	text := fmt.Sprintf("unknown key %q", given)
	plain := key(strings.TrimLeft(given, "-"))
	switch {
	case slices.ContainsFunc(ofProcess(), func(f string) bool { return key(f) == plain }):
		return text + ": it is an option of start itself, --" + strings.ReplaceAll(plain, "_", "-")
	case slices.Contains(known, plain):
		return text + ": did you mean " + plain + "?"
	}
	if near := slip.Nearest(known, plain); near != "" {
		return text + ": did you mean " + near + "?"
	}
	return text
}

// spec returns one endpoint.
func (w *written) spec(name string) *spec {
	given := w.endpoints[name]
	s := &spec{name: name, at: given.at, kind: "http", failover: failoverTime, options: make(map[string]setting)}
	if kind, ok := given.settings[keyKind]; ok {
		w.kind(s, kind)
	}
	flags := make(map[string]cli.Flag)
	known := []string{keyKind, keyTarget, keyFailover}
	for _, kind := range kinds() {
		if kind != s.kind && !s.guessed {
			continue
		}
		for _, f := range optionsOf(kind) {
			flags[key(f.Names()[0])] = f
			known = append(known, key(f.Names()[0]))
		}
	}
	for i, settings := range []map[string]setting{w.top.settings, given.settings} {
		for _, k := range slices.Sorted(maps.Keys(settings)) {
			f, ok := flags[k]
			switch {
			case ok && i == 1 && slices.Contains(ofAll(), f.Names()[0]):
				w.problems.add(settings[k].at, "endpoint %s: %s is of all endpoints, which have one inspector: it belongs at the top of the file; no_inspect: true leaves an endpoint out", name, k)
			case ok:
				w.option(s, f, settings[k])
			case k == keyFailover:
				w.failover(s, settings[k])
			case i == 1 && k != keyKind && k != keyTarget: // checkTop has seen the top's
				w.problems.add(settings[k].at, "endpoint %s: %s", name, w.misplaced(k, s.kind, known))
			}
		}
	}
	w.target(s, given.settings[keyTarget])
	if _, ok := s.options["name"]; !ok && len(s.options["origin"].values) == 0 {
		s.options["name"] = setting{at: s.at, endpoint: name, values: []string{name}}
	}
	return s
}

// kind keeps the kind of an endpoint. Where there is no such kind, what is wrong with the rest
// shows by the one that is most like it.
func (w *written) kind(s *spec, given setting) {
	said := strings.Join(given.values, " ")
	switch {
	case given.broken:
		s.guessed = true
	case given.list || !slices.Contains(kinds(), said):
		w.problems.add(given.at, "endpoint %s: kind %q is unknown: use %s", s.name, said, strings.Join(kinds(), ", "))
		near := slip.Nearest(kinds(), said)
		s.kind, s.guessed = cmp.Or(near, s.kind), near == ""
	default:
		s.kind = said
	}
}

// misplaced says why an endpoint of kind has no key k.
func (w *written) misplaced(k, kind string, known []string) string {
	var others []string
	for _, other := range kinds() {
		if slices.ContainsFunc(optionsOf(other), func(f cli.Flag) bool { return key(f.Names()[0]) == k }) {
			others = append(others, other)
		}
	}
	if len(others) > 0 {
		return fmt.Sprintf("%s is not for kind %s, but for %s", k, kind, strings.Join(others, ", "))
	}
	return unknown(k, known)
}

func (w *written) target(s *spec, given setting) {
	switch {
	case given.broken:
		s.leaveTarget()
	case len(given.values) != 1 || given.list || given.values[0] == "":
		w.problems.add(s.at, "endpoint %s: it takes a target, the local app, such as target: 3000", s.name)
		s.leaveTarget()
	case s.guessed:
		s.leaveTarget()
	case s.kind == "file" && !strings.HasPrefix(strings.ToLower(given.values[0]), "file:"):
		s.target = beside(given.at.file, given.values[0])
	default:
		s.target = given.values[0]
	}
}

func (w *written) failover(s *spec, given setting) {
	d, err := time.ParseDuration(strings.Join(given.values, " "))
	if !given.broken && (err != nil || d <= 0) {
		w.problems.add(given.at, "%s must be %s", given.called(keyFailover), slip.Time)
		return
	}
	s.failover = d
}

// option keeps the value of a flag.
func (w *written) option(s *spec, f cli.Flag, given setting) {
	name := f.Names()[0]
	_, boolean := f.(*cli.BoolFlag)
	switch {
	case given.broken:
		return
	case given.list && name != "server" && !isList(f):
		w.problems.add(given.at, "%s takes one value, and here is a list", given.called(key(name)))
		return
	case given.truth && !boolean:
		w.problems.add(given.at, "%s is no matter of true or false: put quotes around the value if that is intended", given.called(key(name)))
		return
	}
	if isFile(f) {
		given.values = slices.Clone(given.values)
		for i, path := range given.values {
			if path != "" {
				given.values[i] = beside(given.at.file, path)
			}
		}
	}
	if name == "server" {
		s.servers = given.values
	}
	s.options[name] = given
}

// isList reports whether a flag may be repeated. Those of a type of their own may.
func isList(f cli.Flag) bool {
	switch f.(type) {
	case *cli.StringSliceFlag, *cli.GenericFlag:
		return true
	}
	return false
}

// isFile reports whether a flag's value is a file, as its help says.
func isFile(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && strings.Contains(d.GetUsage(), "`FILE`")
}

// beside is a path that stands in file.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// configure makes the configuration of the endpoint at its server number at, as the
// command of its kind would. What is wrong is said with the keys of the files.
func (s *spec) configure(start *cli.Context, at int, log *slog.Logger) (*config, error) {
	f, found := s.attempt(start, at, log)
	if len(found) > 0 {
		return nil, s.mistakes(start, at, found)
	}
	f.json = start.Bool("json")
	return f, nil
}

// attempt is configure with mistakes of values that are not of their type, and the first of others.
func (s *spec) attempt(start *cli.Context, at int, log *slog.Logger) (*config, problems) {
	var wrong problems
	flags := flagsOf(s.kind)
	set := flag.NewFlagSet(s.kind, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range flags {
		if _, ok := s.options[f.Names()[0]]; ok || slices.Contains(oneOnly(), f.Names()[0]) {
			withoutVariable(f)
		}
		if err := f.Apply(set); err != nil {
			wrong = append(wrong, problem{err: errors.New(slip.Explain(flags, err)), about: f.Names()})
		}
	}
	if err := set.Parse([]string{"--", s.target}); err != nil {
		wrong = append(wrong, problem{at: s.at, err: err, about: []string{""}})
	}
	for _, f := range flags {
		name := f.Names()[0]
		given := s.options[name]
		if name == "server" && len(s.servers) > 0 {
			given.values = s.servers[at : at+1]
		}
		for _, value := range given.values {
			if err := set.Set(name, value); err != nil {
				wrong = append(wrong, problem{given.at, fmt.Errorf("%s %w", given.called(key(name)), wrongType(f, value, err)), f.Names()})
			}
		}
	}
	c := cli.NewContext(start.App, set, nil)
	c.Command = &cli.Command{Name: s.kind, Flags: flags}
	f, err := configureLog(c, log)
	if err == nil {
		err = f.client.Validate()
	}
	if err != nil {
		wrong = append(wrong, s.explain(err, flags))
	}
	return f, wrong
}

// withoutVariable takes the variable of a flag away: what the files say counts more, and
// some values one endpoint only can have.
func withoutVariable(f cli.Flag) {
	switch f := f.(type) {
	case *cli.StringFlag:
		f.EnvVars = nil
	case *cli.BoolFlag:
		f.EnvVars = nil
	case *cli.IntFlag:
		f.EnvVars = nil
	case *cli.DurationFlag:
		f.EnvVars = nil
	case *cli.StringSliceFlag:
		f.EnvVars = nil
	case *cli.GenericFlag:
		f.EnvVars = nil
	}
}

func wrongType(f cli.Flag, value string, err error) error {
	if what := slip.Takes(f); what != "" {
		return fmt.Errorf("must be %s, not %q", what, value)
	}
	return err
}

// explain says what is wrong by the keys of the files, with the line that it is about.
func (s *spec) explain(err error, flags []cli.Flag) problem {
	text := err.Error()
	rest := text
	one, blamed := problem{at: s.at, about: []string{""}}, setting{endpoint: s.name}
	var pairs []string
	for _, name := range longestFirst(flags) {
		pairs = append(pairs, "--"+name, key(name))
		if !strings.Contains(rest, "--"+name) && !strings.HasPrefix(text, name+" ") {
			continue
		}
		rest = strings.ReplaceAll(rest, "--"+name, "")
		one.about = append(one.about, name)
		if given, ok := s.options[name]; ok && one.about[0] == "" {
			one.at, one.about[0], blamed = given.at, name, given
		}
	}
	one.err = errors.New(blamed.called(strings.NewReplacer(pairs...).Replace(text)))
	return one
}

// longestFirst are the names of flags, --cert-x before --cert.
func longestFirst(flags []cli.Flag) []string {
	all := slip.Names(flags)
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// inKeys says by the keys of the files what text says by flags, to whom start is the command.
func (s *spec) inKeys(text string) string {
	var pairs []string
	for _, name := range longestFirst(flagsOf(s.kind)) {
		k := "`" + key(name) + ":`"
		pairs = append(pairs, "choose another with --"+name, "change "+k+" of endpoint "+s.name, "--"+name, k)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
