package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/inspect"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// opened is shown of the inspector of start, once for all endpoints.
const opened tunnel.EventType = "inspector"

const defaultInspect = "127.0.0.1:4040"

// inspectFlags are those of the commands whose requests are recorded.
func inspectFlags() []cli.Flag {
	return []cli.Flag{
		inspectFlag("serve the inspector, a page with all requests, at `ADDRESS`, or the next port that is free"),
		yes("no-inspect", "keep nothing of the requests, and serve no inspector"),
		str("inspect-body", "1MiB", "", "`SIZE` up to which the inspector keeps each body; of all it keeps 50MiB"),
	}
}

func inspectFlag(usage string) cli.Flag { return str("inspect", defaultInspect, "", usage) }

// inspecting is what the inspector was told.
type inspecting struct {
	addr    string // "": there is none
	maxBody int
}

func newInspecting(c *cli.Context) (i inspecting, err error) {
	if c.Bool("no-inspect") || c.Bool("private") {
		return i, nil
	}
	if i.addr, err = inspectAddr(text(c, "inspect")); err != nil {
		return i, err
	}
	i.maxBody, err = parseSize(text(c, "inspect-body"))
	return i, err
}

// inspectAddr reads HOST:PORT, or a PORT of 127.0.0.1.
func inspectAddr(s string) (string, error) {
	if _, err := strconv.Atoi(s); err == nil {
		s = "127.0.0.1:" + s
	}
	_, port, err := net.SplitHostPort(s)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("--inspect %q is not an address: use %s, or a port", s, defaultInspect)
	}
	return s, nil
}

// parseSize reads a number of bytes, or one with KiB or MiB.
func parseSize(s string) (int, error) {
	digits, unit := strings.TrimSuffix(s, "KiB"), 1<<10
	if digits == s {
		digits, unit = strings.TrimSuffix(s, "MiB"), 1<<20
	}
	if digits == s {
		unit = 1
	}
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	if err != nil || n < 1 || n > inspect.DefaultTotal/unit {
		return 0, fmt.Errorf("--inspect-body %q: use a size such as 64KiB or 1MiB, up to 50MiB", s)
	}
	return n * unit, nil
}

// inspector records requests and shows them. Nil is none.
type inspector struct {
	store  *inspect.Store
	server *inspect.Server // nil: they are not shown
}

// open begins to serve an inspector. Where that cannot be, the tunnel works all the same.
func (i inspecting) open(log *slog.Logger) *inspector {
	if i.addr == "" {
		return nil
	}
	n := &inspector{store: &inspect.Store{MaxBody: i.maxBody}}
	if n.serve(i.addr, log); n.server == nil {
		return nil
	}
	return n
}

// serve shows at addr what is recorded, and no more where it was shown before.
func (i *inspector) serve(addr string, log *slog.Logger) {
	i.close()
	server, err := inspect.Listen(i.store, addr, log)
	if err != nil {
		log.Warn("there is no inspector: --inspect ADDRESS chooses where, --no-inspect does without", "err", err)
		return
	}
	i.server = server
	host, _, _ := net.SplitHostPort(addr)
	if a, err := netip.ParseAddr(host); (err != nil || !a.IsLoopback()) && host != "localhost" {
		log.Warn("other machines may reach the inspector, and see all requests", "inspect", server.URL())
	}
}

// watch is for forward.Options. endpoint is that of start, or "".
func (i *inspector) watch(endpoint string) func(http.Handler) http.Handler {
	if i == nil {
		return nil
	}
	return func(next http.Handler) http.Handler { return i.store.Record(endpoint, next) }
}

// leave says that there is no such endpoint any more.
func (i *inspector) leave(endpoint string) {
	if i != nil {
		i.store.Leave(endpoint)
	}
}

// url is "" where there is none.
func (i *inspector) url() string {
	if i == nil || i.server == nil {
		return ""
	}
	return i.server.URL()
}

func (i *inspector) close() {
	if i != nil && i.server != nil {
		i.server.Close()
		i.server = nil
	}
}

// inspect has the inspector of all endpoints be as specs want it. What it has recorded stays
// for as long as one of them is recorded.
func (s *starter) inspect(specs []*spec) {
	was := s.inspected
	s.inspected = inspecting{}
	if i := slices.IndexFunc(specs, func(one *spec) bool { return one.inspect.addr != "" }); i >= 0 {
		s.inspected = specs[i].inspect // that of the others, too
	}
	now := s.inspected
	switch {
	case now.addr == "":
		s.inspector.close()
		s.inspector = nil
		return
	case s.inspector == nil:
		s.inspector = &inspector{store: &inspect.Store{MaxBody: now.maxBody}}
	case now.maxBody != was.maxBody && now.maxBody != s.inspector.store.MaxBody:
		s.log.Warn("inspect_body stays what it was until tunnel-client start is run anew", "bytes", s.inspector.store.MaxBody)
	}
	if now.addr == was.addr && s.inspector.server != nil {
		return
	}
	if s.inspector.serve(now.addr, s.log); s.inspector.server != nil {
		s.out.change(change{event: opened, inspect: s.inspector.url()})
	}
}
