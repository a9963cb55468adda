package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const patience = 15 * time.Second // for each part to come up

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
	l.home = &site{lab: l}
	if l.app, err = l.home.freePort(); err == nil {
		_, err = l.home.start(l.role("app", l.app))
	}
	if err == nil {
		err = l.home.listening(l.app)
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("start the app: %w", err)
	}
	return l, nil
}

// close ends the app and removes the files.
func (l *lab) close() {
	l.home.clear()
	os.RemoveAll(l.dir)
}

// role is the command that plays a role of this executable.
func (l *lab) role(args ...string) command {
	return command{path: l.self, args: append([]string{"role"}, args...)}
}

// sleep waits for d, or until the run ends.
func (l *lab) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// A site holds what one measurement starts.
type site struct {
	*lab
	mu    sync.Mutex
	procs []*proc // guarded by mu, the youngest last
}

// clear ends the processes, the youngest first, and returns when they are gone.
func (s *site) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.procs) - 1; i >= 0; i-- {
		s.procs[i].kill()
	}
	s.procs = nil
}

// start starts c. It runs until clear. Nothing starts any more when the run has ended.
func (s *site) start(c command) (*proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, context.Cause(s.ctx)
	}
	p, err := startProc(s.dir, c)
	if err != nil {
		return nil, err
	}
	s.procs = append(s.procs, p)
	return p, nil
}

// freePort gives a loopback HOST:PORT that nobody listens on. It is below the ports that the system
// gives to outgoing connections, so that it stays free when a server is gone for a moment.
func (s *site) freePort() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr, nil
	}
	return "", fmt.Errorf("no free port found")
}

// freePorts gives n of them.
func (s *site) freePorts(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		var err error
		if addrs[i], err = s.freePort(); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// listening waits until addr takes connections.
func (s *site) listening(addr string) error {
	return s.until(patience, time.Millisecond, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// until calls try, with pauses, until it returns nil; the error is the last one.
func (s *site) until(limit, pause time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if p := s.dead(); p != nil {
			return fmt.Errorf("%s exited: %s", p.name, p.lastWords())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", limit, err)
		}
		s.sleep(pause)
	}
}

// dead finds a process that ended by itself.
func (s *site) dead() *proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		if p.exited() && !p.killed.Load() {
			return p
		}
	}
	return nil
}
