package rig

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Patience is how long a part may take to come up.
const Patience = 15 * time.Second

// A Site holds what one trial starts: programs that run until Clear. Its methods
// may be called from many goroutines.
type Site struct {
	// Context ends the site's waiting; nothing starts any more once it has ended.
	Context context.Context
	// Dir is where the programs run and their logs are written.
	Dir string

	mu    sync.Mutex
	procs []*Proc // guarded by mu, the youngest last
}

// Clear ends the programs, the youngest first, and returns when they are gone.
func (s *Site) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.procs) - 1; i >= 0; i-- {
		s.procs[i].Kill()
	}
	s.procs = nil
}

// Start starts c. It runs until it ends, is killed, or Clear.
func (s *Site) Start(c Command) (*Proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Context.Err() != nil {
		return nil, context.Cause(s.Context)
	}
	p, err := startProc(s.Dir, c)
	if err != nil {
		return nil, err
	}
	s.procs = append(s.procs, p)
	return p, nil
}

// FreePort gives a loopback HOST:PORT that nobody listens on. It is below the ports that the system
// gives to outgoing connections, so that it stays free when a server is gone for a moment.
func (s *Site) FreePort() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr, nil
	}
	return "", errors.New("no free port found")
}

// FreePorts gives n of them.
func (s *Site) FreePorts(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		var err error
		if addrs[i], err = s.FreePort(); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// FreeRange gives n ports in a row, as FIRST-LAST, of which none is taken on 127.0.0.1 for TCP or UDP, and
// none is one of FreePort's.
func (s *Site) FreeRange(n int) (string, error) {
	for range 100 {
		first, free := 10000+rand.IntN(2000-n), true
		for port := first; free && port < first+n; port++ {
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			tcp, err := net.Listen("tcp", addr)
			udp, err2 := net.ListenPacket("udp", addr)
			if free = err == nil && err2 == nil; err == nil {
				tcp.Close()
			}
			if err2 == nil {
				udp.Close()
			}
		}
		if free {
			return fmt.Sprintf("%d-%d", first, first+n-1), nil
		}
	}
	return "", errors.New("no free ports found")
}

// Listening waits until addr takes connections.
func (s *Site) Listening(addr string) error {
	return s.Until(Patience, time.Millisecond, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// Until calls try, with pauses, until it returns nil; the error is the last one, or that a program
// ended which was not killed.
func (s *Site) Until(limit, pause time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if s.Context.Err() != nil {
			return context.Cause(s.Context)
		}
		if p := s.Dead(); p != nil {
			return fmt.Errorf("%s exited: %s", p.Name, p.LastWords())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", limit, err)
		}
		s.Sleep(pause)
	}
}

// Sleep waits for d, or until the context ends.
func (s *Site) Sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.Context.Done():
	}
}

// Dead finds a program that ended by itself, or nil.
func (s *Site) Dead() *Proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		if p.Exited() && !p.killed.Load() {
			return p
		}
	}
	return nil
}
