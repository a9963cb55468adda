package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/protocol"
)

// lines is a flag that may be repeated, with values that may have commas in them. An
// environment variable has one on each line.
type lines []string

// Set adds what is not empty, and "" for a value that has nothing else: it was not filled in.
func (l *lines) Set(value string) error {
	if strings.TrimSpace(value) == "" {
		*l = append(*l, "")
	}
	for line := range strings.SplitSeq(value, "\n") {
		if line = strings.TrimSuffix(line, "\r"); strings.TrimSpace(line) != "" {
			*l = append(*l, line)
		}
	}
	return nil
}

func (l *lines) String() string { return strings.Join(*l, "\n") }

func many(name, shown, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Value: new(lines), DefaultText: shown, Usage: usage, EnvVars: env(name)}
}

func given(c *cli.Context, name string) []string {
	if l, ok := c.Generic(name).(*lines); ok {
		return *l
	}
	return nil
}

// visitFlags are those of all that have visitors.
func visitFlags() []cli.Flag {
	return []cli.Flag{
		many("allow-cidr", "all", "`NETWORK` such as 192.0.2.0/24 or 2001:db8::1 that alone may visit, may be repeated"),
		many("deny-cidr", "none", "`NETWORK` that may not visit, also where --allow-cidr has it, may be repeated"),
		&cli.DurationFlag{Name: "ttl", DefaultText: "no end", Usage: "`TIME` after which the endpoint ends, and this command with exit code 0; visitors then read that it did", EnvVars: env("ttl")},
	}
}

// shareFlags are those of all that have a site of its own.
func shareFlags() []cli.Flag {
	return append(visitFlags(),
		many("basic-auth", "none", "`USER:PASSWORD` that a visitor has to show, may be repeated; others on this machine see it in ps, and not what is in --basic-auth-file or TUNNEL_BASIC_AUTH"),
		str("basic-auth-file", "", "none", "`FILE` with a USER:PASSWORD on each line that is not empty or a # comment"),
		&cli.DurationFlag{Name: "share-link", DefaultText: "none", Usage: "print a link that lets whoever opens it in, for `TIME` such as 24h; it outlives this command, and works again at the next start", EnvVars: env("share-link")},
		yes("revoke-links", "take back the links that --share-link printed for this name before"),
		yes("noindex", "keep search engines away: X-Robots-Tag, and a /robots.txt in the app's place"),
		many("request-header", "none", "`'NAME: VALUE'` that the app gets in each request, in place of the visitor's, may be repeated"),
		many("remove-request-header", "none", "`NAME` of a header field that the app does not get, may be repeated"),
		many("response-header", "none", "`'NAME: VALUE'` that visitors get in each answer, in place of the app's, may be repeated"),
		many("remove-response-header", "none", "`NAME` of a header field that visitors do not get, may be repeated"),
	)
}

// share reads who may visit, and what is changed on the way. Nil: everybody, and nothing.
func share(c *cli.Context) (*protocol.Share, error) {
	for _, name := range []string{"allow-cidr", "deny-cidr", "basic-auth", "basic-auth-file", "share-link", "ttl"} {
		// A variable that was not filled in is no wish to let everybody in.
		value, there := os.LookupEnv(env(name)[0])
		if c.IsSet(name) && (slices.Contains(given(c, name), "") || len(given(c, name)) == 0 && c.String(name) == "") || there && value == "" && !c.IsSet(name) && has(c, name) {
			return nil, fmt.Errorf("--%s, or %s, is empty: fill it in or leave it out", name, env(name)[0])
		}
	}
	s := &protocol.Share{TTL: c.Duration("ttl").Milliseconds(), NoIndex: c.Bool("noindex")}
	if c.IsSet("ttl") && s.TTL <= 0 {
		return nil, fmt.Errorf("--ttl %s is no time to live: use one such as 2h", c.Duration("ttl"))
	}
	var err error
	if s.Allow, err = networks(c, "allow-cidr"); err != nil {
		return nil, err
	}
	if s.Deny, err = networks(c, "deny-cidr"); err != nil {
		return nil, err
	}
	if s.BasicAuth, err = users(c); err != nil {
		return nil, err
	}
	if s.Request, err = edits(c, "request-header", protocol.CheckRequestField); err != nil {
		return nil, err
	}
	if s.Response, err = edits(c, "response-header", protocol.CheckResponseField); err != nil {
		return nil, err
	}
	if len(s.Parts()) == 0 {
		return nil, nil
	}
	return s, s.Check(kindOf(c.Command.Name))
}

// has reports whether c's command has a flag of that name.
func has(c *cli.Context, name string) bool {
	for _, f := range c.Command.Flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

func networks(c *cli.Context, flag string) (all []netip.Prefix, err error) {
	for _, line := range given(c, flag) {
		for member := range strings.SplitSeq(line, ",") {
			ones := strings.Fields(member)
			if len(ones) == 0 {
				// It may be what a variable was to fill in: without it others may visit.
				return nil, fmt.Errorf("--%s, or %s, %q has an empty member: fill it in or leave out its comma", flag, env(flag)[0], line)
			}
			some, err := prefixes(ones, flag)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	return all, nil
}

func prefixes(list []string, flag string) (all []netip.Prefix, err error) {
	for _, one := range list {
		p, err := netip.ParsePrefix(one)
		if a, single := netip.ParseAddr(one); single == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("--%s %q is not a network such as 192.0.2.0/24 or 2001:db8::/32, nor an address", flag, one)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// users reads passwords, and keeps but what tells them. No error shows one.
func users(c *cli.Context) (all []protocol.User, err error) {
	add := func(where, line string) error {
		name, password, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("%s has no colon: use USER:PASSWORD", where)
		}
		u, err := protocol.NewUser(name, password)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		all = append(all, u)
		return nil
	}
	for _, line := range given(c, "basic-auth") {
		if err := add("--basic-auth", line); err != nil {
			return nil, err
		}
	}
	path := c.String("basic-auth-file")
	if path == "" {
		return all, nil
	}
	data, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("--basic-auth-file: %w", err)
	}
	before, n := len(all), 0
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\xef\xbb\xbf")) {
		n++
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		if err := add(fmt.Sprintf("--basic-auth-file %s, line %d", path, n), line); err != nil {
			return nil, err
		}
	}
	if len(all) == before {
		return nil, fmt.Errorf("--basic-auth-file %s holds no user: put USER:PASSWORD into it, on a line of its own", path)
	}
	return all, nil
}

// edits reads the flag of that name, and the one that removes such fields.
func edits(c *cli.Context, flag string, check func(string) error) (*protocol.Edits, error) {
	e := new(protocol.Edits)
	for _, line := range given(c, flag) {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("--%s %q has no colon: use 'NAME: VALUE'", flag, line)
		}
		if err := check(name); err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		e.Set = append(e.Set, protocol.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	for _, name := range given(c, "remove-"+flag) {
		name = strings.TrimSpace(name)
		if err := check(name); err != nil {
			return nil, fmt.Errorf("--remove-%s: %w", flag, err)
		}
		e.Remove = append(e.Remove, name)
	}
	if len(e.Set)+len(e.Remove) == 0 {
		return nil, nil
	}
	return e, nil
}

// sharing is what is told of how an endpoint is shared, when it is ready.
type sharing struct {
	url   string    // a share link; "": none
	until time.Time // that is good
	ends  time.Time // the endpoint; the zero time: never
}

// rows are what the user sees of it, each with its label.
func (s sharing) rows() (rows [][2]string) {
	if s.url != "" {
		rows = append(rows, [2]string{"Share link", printable(s.url)}, [2]string{"", "until " + s.until.Format(time.DateTime)})
	}
	if !s.ends.IsZero() {
		rows = append(rows, [2]string{"Ends", s.ends.Format(time.DateTime)})
	}
	return rows
}

func (c *config) sharing(public string) (s sharing) {
	if c.listen.Share != nil && c.listen.Share.TTL > 0 {
		s.ends = time.Now().Add(time.Duration(c.listen.Share.TTL) * time.Millisecond)
	}
	if c.links != nil {
		s.until = time.Now().Add(c.links.life)
		s.url = c.links.url(public, s.until)
	}
	return s
}

// configureShare reads the flags of who may visit.
func (f *config) configureShare(c *cli.Context) (err error) {
	if f.links, err = newLinks(c); err != nil {
		return err
	}
	f.listen.Share, err = share(c)
	if err == nil && f.listen.Private && (f.listen.Share != nil || f.links != nil) {
		err = errors.New("--private has no visitors: leave out who may visit, how long, and what is changed on the way")
	}
	return err
}
