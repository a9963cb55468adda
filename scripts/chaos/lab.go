package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	roleApp = "role-app"
	plenty  = 1_000_000_000 // bytes a second: no limit
)

// The tunnels: two for HTTP with an app each, and one for gRPC to the first app.
const (
	tunnels  = 3
	grpcName = "calls"
)

// A lab is all the processes and links. One goroutine starts and stops them.
type lab struct {
	*options
	site   *rig.Site
	self   string // this executable
	server *process
	clients,
	apps []*process
	links  []*rig.Path // client i to the server
	front  *rig.Path   // visitors to the server
	public string      // HOST:PORT before front
	stops  []func()

	serving sync.WaitGroup
}

// A process is started again by its command.
type process struct {
	*rig.Proc
	command rig.Command
	listens string // HOST:PORT, "": nowhere
}

func newLab(ctx context.Context, o *options, dir string) (*lab, error) {
	l := &lab{options: o, site: &rig.Site{Context: ctx, Dir: dir}}
	if err := l.build(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) build() error {
	var err error
	if l.self, err = os.Executable(); err != nil {
		return err
	}
	if l.bin, err = filepath.Abs(l.bin); err != nil {
		return err
	}
	ports, err := l.site.FreePorts(5)
	if err != nil {
		return err
	}
	tokens := ""
	for _, name := range names() {
		token := fmt.Sprintf("chaos-%s-%032x", name, l.seed)
		tokens += token + "\n"
		if err := os.WriteFile(l.file(name+".token"), []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(l.file("tokens"), []byte(tokens), 0o600); err != nil {
		return err
	}
	server := ports[0]
	l.server = &process{listens: server, command: rig.Command{Path: filepath.Join(l.bin, "tunnel-server"),
		Args: []string{"serve", "--listen", server, "--token-file", l.file("tokens")}}}
	for i := range 2 {
		l.apps = append(l.apps, &process{listens: ports[1+2*i], command: rig.Command{Path: l.self,
			Args: []string{roleApp, ports[1+2*i], ports[2+2*i], l.file("journal")}}})
	}
	targets := []string{ports[1], ports[3], "h2c://" + ports[2]}
	for i, name := range names() {
		path, addr, err := l.path(server)
		if err != nil {
			return err
		}
		l.links = append(l.links, path)
		l.clients = append(l.clients, &process{command: rig.Command{Path: filepath.Join(l.bin, "tunnel-client"),
			Args: []string{"http", "--server", "http://" + addr, "--name", name, "--token-file", l.file(name + ".token"), "--retry", targets[i]}}})
	}
	if l.front, l.public, err = l.path(server); err != nil {
		return err
	}
	if l.plant != "" {
		if l.public, err = l.liar(l.public); err != nil {
			return err
		}
	}
	return l.start(slices.Concat([]*process{l.server}, l.apps, l.clients)...)
}

// names are those of the tunnels.
func names() []string { return []string{"a", "b", grpcName} }

func (l *lab) file(name string) string { return filepath.Join(l.site.Dir, name) }

// path makes a link to target and serves it.
func (l *lab) path(target string) (*rig.Path, string, error) {
	p := rig.NewPath(target, 0, plenty)
	listener, err := p.Listen("127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	l.serving.Go(func() { _ = p.Serve(listener) }) // until it is closed
	l.stops = append(l.stops, func() { listener.Close(); p.Cut(); p.Close() })
	return p, listener.Addr().String(), nil
}

// start starts the processes and returns when they listen.
func (l *lab) start(all ...*process) error {
	for _, p := range all {
		var err error
		if p.Proc, err = l.site.Start(p.command); err != nil {
			return err
		}
		if p.listens != "" {
			if err := l.site.Listening(p.listens); err != nil {
				return err
			}
		}
	}
	return nil
}

// all are the processes that a fault may meet.
func (l *lab) all() []*process { return slices.Concat([]*process{l.server}, l.clients, l.apps) }

// close ends everything, and returns when it has ended.
func (l *lab) close() {
	l.site.Clear()
	for _, stop := range l.stops {
		stop()
	}
	l.serving.Wait()
}

// crashed finds a process that ended by itself, or that a log tells to have panicked.
func (l *lab) crashed() error {
	if p := l.site.Dead(); p != nil {
		return fmt.Errorf("%s ended by itself: %s", p.Name, p.LastWords())
	}
	logs, err := filepath.Glob(l.file("*.log"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, word := range []string{"panic:", "panic serving", "fatal error:", "DATA RACE", "SIGSEGV"} {
			if at := strings.Index(string(text), word); at >= 0 {
				errs = append(errs, fmt.Errorf("%s: %.160q", filepath.Base(path), text[at:]))
			}
		}
	}
	return errors.Join(errs...)
}

// playApp is the child process of an app: at web and calls, with its journal at a path.
func playApp(args []string) error {
	if len(args) != 3 {
		return errors.New("want WEB CALLS JOURNAL")
	}
	journal, err := rig.OpenJournal(args[2])
	if err != nil {
		return err
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", args[i]); err != nil {
			return err
		}
	}
	go rig.ExitWithParent()
	return (&rig.App{Journal: journal}).Run(context.Background(), listeners[0], listeners[1])
}

// visitor is one of the tunnel's visitors, with connections of its own.
func (l *lab) visitor(name string, w way) *rig.Visitor {
	return &rig.Visitor{Addr: l.public, Host: name + ".localhost", Fresh: w == fresh, H2: w == second, Version10: w == old, Limit: hungAfter}
}

// hungAfter is how long a visitor may get nothing: a lost peer is noticed within 45 s, and then a
// request waits 10 s for its client.
const hungAfter = time.Minute
