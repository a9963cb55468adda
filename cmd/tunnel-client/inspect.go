package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/inspect"
)

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
	if c.Bool("no-inspect") {
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
	server *inspect.Server
}

// open begins to serve it. Where that cannot be, the tunnel works all the same.
func (i inspecting) open(log *slog.Logger) *inspector {
	if i.addr == "" {
		return nil
	}
	store := &inspect.Store{MaxBody: i.maxBody}
	server, err := inspect.Listen(store, i.addr, log)
	if err != nil {
		log.Warn("there is no inspector: --inspect ADDRESS chooses where, --no-inspect does without", "err", err)
		return nil
	}
	host, _, _ := net.SplitHostPort(i.addr)
	if a, err := netip.ParseAddr(host); (err != nil || !a.IsLoopback()) && host != "localhost" {
		log.Warn("other machines may reach the inspector, and see all requests", "inspect", server.URL())
	}
	return &inspector{store: store, server: server}
}

// watch is for forward.Options.
func (i *inspector) watch() func(http.Handler) http.Handler {
	if i == nil {
		return nil
	}
	return func(next http.Handler) http.Handler { return i.store.Record("", next) }
}

// url is "" where there is none.
func (i *inspector) url() string {
	if i == nil {
		return ""
	}
	return i.server.URL()
}

func (i *inspector) close() {
	if i != nil {
		i.server.Close()
	}
}
