package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	mb  = 1e6
	mib = 1 << 20
)

// A lab is one run's place.
type lab struct {
	ctx     context.Context
	options *options
	self    string // this executable
	bin     string // folder with tunnel-server and tunnel-client
	dir     string // of logs
}

// newLab makes the folder. Call close in the end.
func newLab(ctx context.Context, o *options) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, options: o, self: self, bin: bin, dir: o.keep}
	if l.dir == "" {
		l.dir, err = os.MkdirTemp("", "soak.")
	} else {
		err = os.MkdirAll(l.dir, 0o755)
	}
	return l, err
}

func (l *lab) close() {
	if l.options.keep == "" {
		os.RemoveAll(l.dir)
	}
}

func (l *lab) newSite() *site { return &site{lab: l, Site: &rig.Site{Context: l.ctx, Dir: l.dir}} }

// A site holds what one trial starts: the local app at once, and one server.
type site struct {
	*lab
	*rig.Site
	app    string // HOST:PORT
	addr   string // of the server
	secure string // its TLS listener, see serveTLS
	cert   *rig.Certificate
	server *rig.Proc
}

// begin starts the app.
func (s *site) begin() error {
	var err error
	if s.app, err = s.FreePort(); err != nil {
		return err
	}
	if _, err = s.role("app", s.app); err != nil {
		return err
	}
	return s.Listening(s.app)
}

// role starts this executable in a role.
func (s *site) role(args ...string) (*rig.Proc, error) {
	return s.Start(rig.Command{Path: s.self, Args: append([]string{"role"}, args...)})
}

// serve starts a server with these flags, where the last one was if there was one, and returns when
// it takes connections.
func (s *site) serve(flags ...string) error {
	if s.addr == "" {
		var err error
		if s.addr, err = s.FreePort(); err != nil {
			return err
		}
	}
	// With a trace of its garbage collector, see liveHeap.
	args := []string{"GODEBUG=gctrace=1", filepath.Join(s.bin, "tunnel-server"), "serve", "--listen", s.addr}
	var err error
	if s.server, err = s.Start(rig.Command{Path: "env", Args: append(args, flags...)}); err != nil {
		return err
	}
	s.server.Name = "tunnel-server" // env has become it
	return s.Listening(s.addr)
}

// quiet keeps a line for each session out of the log.
const quiet = "--log-level=warn"

// client starts a client for the app by way of the server address via, and waits until it is ready.
func (s *site) client(via, name string, flags ...string) (*rig.Proc, error) {
	p, err := s.startClient(via, name, flags...)
	if err != nil {
		return nil, err
	}
	return p, s.Until(rig.Patience, 5*time.Millisecond, func() error { return p.Printed(`"ready"`) })
}

// startClient starts one and does not wait.
func (s *site) startClient(via, name string, flags ...string) (*rig.Proc, error) {
	args := []string{"http", "http://" + s.app, "--server", "http://" + via, "--name", name, "--json"}
	return s.Start(rig.Command{Path: filepath.Join(s.bin, "tunnel-client"), Args: append(args, flags...)})
}

// disconnects is how often a client has lost its session.
func disconnects(client *rig.Proc) int {
	return strings.Count(client.Log(), `{"event":"disconnected"`)
}

// stacks ends the server with a dump of all its goroutines and counts them.
func (s *site) stacks() (int, error) {
	s.server.End()
	if err := s.server.Signal(dumpSignal); err != nil {
		return 0, err
	}
	select {
	case <-s.server.Done():
		return goroutines(s.server.Log()), nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("%s has not ended a minute after %v", s.server.Name, dumpSignal)
	}
}
