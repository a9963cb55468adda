package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/revtun/tunnel/internal/rig"
)

const patience = rig.Patience

// A lab is one run's place: its files, and the local app that all variants share.
type lab struct {
	ctx  context.Context
	self string // this executable
	bin  string // folder with tunnel-server and tunnel-client
	dir  string // temporary; logs and peers' configuration
	home *site  // of the app
	app  string // its HOST:PORT
}

// newLab starts the app. Call close in the end.
func newLab(ctx context.Context, bin string) (*lab, error) {
	self, err := selfPath()
	if err != nil {
		return nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench.")
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, self: self, bin: bin, dir: dir}
	l.home = l.newSite()
	if l.app, err = l.home.FreePort(); err == nil {
		_, err = l.home.Start(l.role("app", l.app))
	}
	if err == nil {
		err = l.home.Listening(l.app)
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("start the app: %w", err)
	}
	return l, nil
}

// close ends the app and removes the files.
func (l *lab) close() {
	l.home.Clear()
	os.RemoveAll(l.dir)
}

// role is the command that plays a role of this executable.
func (l *lab) role(args ...string) rig.Command {
	return rig.Command{Path: l.self, Args: append([]string{"role"}, args...)}
}

// newSite is where one measurement starts what it needs.
func (l *lab) newSite() *site { return &site{lab: l, Site: &rig.Site{Context: l.ctx, Dir: l.dir}} }

// A site holds what one measurement starts.
type site struct {
	*lab
	*rig.Site
}
