package main

import (
	"fmt"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A tunnel is a variant that runs: visitors reach the app through it.
type tunnel struct {
	*plan
	site           *site
	server, client *rig.Proc // nil where the variant has none
	// probe makes one small exchange with the app; nil: over plain HTTP/1.1.
	probe func(deadline time.Time) error
}

// open starts v and waits until a visitor gets the app's answer through it. via, if not nil, starts a
// path to the address it is given and returns the path's own: the client connects through it to the
// server, and where there is no tunnel the visitor to the app.
func (s *site) open(v variant, via func(to string) (string, error)) (*tunnel, error) {
	p, err := v.plan(s, s.app)
	if err != nil {
		return nil, err
	}
	t := &tunnel{plan: p, site: s}
	return t, t.open(via)
}

// open starts what is planned.
func (t *tunnel) open(via func(to string) (string, error)) error {
	err := t.startServer()
	switch {
	case err != nil || via == nil:
	case t.plan.client == nil:
		t.visit, err = via(t.visit)
	default:
		t.control, err = via(t.control)
	}
	if err != nil {
		return err
	}
	if err := t.startClient(); err != nil {
		return err
	}
	if err := t.answers(5*time.Millisecond, patience); err != nil {
		return err
	}
	return t.isMeant()
}

// isMeant fails unless the client has said that it is what is to be measured.
func (t *tunnel) isMeant() error {
	if t.says == "" {
		return nil
	}
	return t.site.Until(patience, 5*time.Millisecond, func() error { return t.client.Printed(t.says) })
}

// startServer starts the server and returns when it takes connections.
func (t *tunnel) startServer() error {
	if t.plan.server.Path == "" {
		return nil
	}
	var err error
	if t.server, err = t.site.Start(t.plan.server); err != nil {
		return err
	}
	switch {
	case t.control != "":
		return t.site.Listening(t.control)
	case t.datagrams:
		return nil // nothing tells but an answer
	}
	return t.site.Listening(t.visit)
}

// startClient starts the client and does not wait for it.
func (t *tunnel) startClient() error {
	if t.plan.client == nil {
		return nil
	}
	var err error
	t.client, err = t.site.Start(t.plan.client(t.control))
	return err
}

// answers waits until a visitor gets the app's answer, and asks again after each pause. A question
// that a server keeps waiting is given up after a while.
func (t *tunnel) answers(pause, limit time.Duration) error {
	const question = time.Second
	return t.site.Until(limit, pause, func() error {
		if t.probe != nil {
			return t.probe(time.Now().Add(question))
		}
		v, err := dialVisitor(t.visit, t.host, time.Now().Add(question))
		if err != nil {
			return err
		}
		defer v.close()
		return v.small()
	})
}

// cpu is the CPU time of the tunnel's processes so far.
func (t *tunnel) cpu() time.Duration {
	var sum time.Duration
	for _, p := range []*rig.Proc{t.server, t.client} {
		if p != nil {
			sum += p.CPU()
		}
	}
	return sum
}

// memory is the resident memory of server and client in megabytes of a million bytes.
func (t *tunnel) memory() (server, client float64) {
	const mb = 1e6
	return t.server.RSS() / mb, t.client.RSS() / mb
}

// check fails where a process of the tunnel has ended.
func (t *tunnel) check() error {
	if p := t.site.Dead(); p != nil {
		return fmt.Errorf("%s exited: %s", p.Name, p.LastWords())
	}
	return nil
}
