package main

import (
	"context"
	"errors"
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

	secureApp string // the same app over TLS and QUIC
	rawApp    string // the app without HTTP, over TCP and UDP
	certs     folder // with the certificate of the app, the hops and the servers
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
	l := &lab{ctx: ctx, self: self, bin: bin, dir: dir, certs: folder(filepath.Join(dir, "certs"))}
	l.home = l.newSite()
	if err := l.startApp(); err != nil {
		l.close()
		return nil, fmt.Errorf("start the app: %w", err)
	}
	return l, nil
}

// startApp starts it and returns when it listens.
func (l *lab) startApp() error {
	if err := l.certs.makeCertificate(); err != nil {
		return err
	}
	at, err := l.home.FreePorts(3)
	if err != nil {
		return err
	}
	l.app, l.secureApp, l.rawApp = at[0], at[1], at[2]
	if _, err := l.home.Start(l.role("app", l.app, l.secureApp, l.rawApp, string(l.certs))); err != nil {
		return err
	}
	return errors.Join(l.home.Listening(l.app), l.home.Listening(l.secureApp), l.home.Listening(l.rawApp))
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
