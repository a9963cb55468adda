package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	roleApp    = "role-app"
	roleOrigin = "role-origin"
	plenty     = 1_000_000_000 // bytes a second: no limit
)

// A tunnel is one client, and what it exposes or reaches.
type tunnel struct {
	name    string
	command string // of tunnel-client; roleOrigin: this program's, in its place
	app     int    // which one
	target  func(*app) string
	flags   []string
	secure  bool   // it reaches the server by https
	token   string // of another tunnel; "" is its own
}

const (
	grpcName    = "calls"
	portName    = "port"
	udpName     = "datagrams"
	sealedName  = "sealed"
	privateName = "inside"
	turnedName  = "turned"
	originName  = "origin"
)

// all are the tunnels: two for HTTP with an app each, one for gRPC, and one each for what is no HTTP; one for
// HTTP by PTTH, and an app that attaches itself by that. The origin comes by TLS, as by HTTP/1.1 the end of an
// answer may be that of its connection, and without TLS a link's end looks the same. The last one is the other
// end of the private one.
func all() []tunnel {
	web := func(a *app) string { return a.web }
	raw := func(a *app) string { return a.raw }
	return []tunnel{
		{name: "a", command: "http", app: 0, target: web},
		{name: "b", command: "http", app: 1, target: web, secure: true},
		{name: grpcName, command: "http", app: 0, target: func(a *app) string { return "h2c://" + a.calls }},
		{name: portName, command: "tcp", app: 0, target: raw},
		{name: udpName, command: "udp", app: 1, target: raw, secure: true},
		{name: sealedName, command: "tls", app: 1, target: func(a *app) string { return a.sealed }},
		{name: privateName, command: "tcp", app: 0, target: raw, flags: []string{"--private"}},
		{name: turnedName, command: "http", app: 1, target: web, flags: []string{"--transport", "ptth"}},
		{name: originName, command: roleOrigin, secure: true},
		{name: "reach", command: "connect", token: privateName, secure: true},
	}
}

// An app is where a local app listens: for HTTP, for gRPC, for what is no HTTP by TCP and UDP, and for that
// by TLS.
type app struct{ web, calls, raw, sealed string }

// A lab is all the processes and links. One goroutine starts and stops them.
type lab struct {
	*options
	site    *rig.Site
	self    string // this executable
	server  *process
	tunnels []tunnel
	clients,
	apps []*process
	links []*rig.Path // client i to the server

	fronts  []*rig.Path    // visitors to the server: plain, TLS, and its port for connections
	packets []*rig.Packets // HTTP/3, and its port for datagrams
	doors   doors
	own     *rig.Certificate // the server's
	theirs  *rig.Certificate // of the app behind TLS that the server does not end
	regular *rig.Visitor     // the one who always sends datagrams from one socket
	stops   []func()

	serving sync.WaitGroup
}

// doors are where visitors go, each HOST:PORT.
type doors struct{ plain, tls, port, quic, udp, private string }

// A process is started again by its command.
type process struct {
	*rig.Proc
	command rig.Command
	listens string // HOST:PORT, "": nowhere
	url     string // the first one that it printed
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
	l.tunnels = all()
	if err := l.secrets(); err != nil {
		return err
	}
	ports, err := l.site.FreePorts(11)
	if err != nil {
		return err
	}
	plain, secure, private := ports[0], ports[1], ports[2]
	given, err := l.site.FreeRange(10)
	if err != nil {
		return err
	}
	l.server = &process{listens: plain, command: rig.Command{Path: filepath.Join(l.bin, "tunnel-server"),
		Args: []string{"serve", "--listen", plain, "--token-file", l.file("tokens"), "--tls-listen", secure, "--cert", l.own.Cert, "--key", l.own.Key,
			"--allow-plain", "*", "--tcp-ports", given, "--udp-ports", given, "--udp-idle", "30s"}}}
	var apps []*app
	for i := range 2 {
		p := ports[3+4*i:]
		apps = append(apps, &app{p[0], p[1], p[2], p[3]})
		l.apps = append(l.apps, &process{listens: p[0], command: rig.Command{Path: l.self,
			Args: []string{roleApp, p[0], p[1], p[2], p[3], l.file("journal"), l.theirs.Cert, l.theirs.Key}}})
	}
	for _, t := range l.tunnels {
		if err := l.addClient(t, plain, secure, private, apps); err != nil {
			return err
		}
	}
	if err := l.start(slices.Concat([]*process{l.server}, l.apps, l.clients)...); err != nil {
		return err
	}
	return l.open(plain, secure, private)
}

// secrets makes the tokens and the certificates.
func (l *lab) secrets() error {
	tokens, hosts := "", []string{"localhost"}
	for _, t := range l.tunnels {
		hosts = append(hosts, t.name+".localhost")
		if t.token != "" {
			continue
		}
		token := fmt.Sprintf("chaos-%s-%032x", t.name, l.seed)
		tokens += token + "\n"
		if err := os.WriteFile(l.file(t.name+".token"), []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	var err error
	if l.own, err = rig.MakeCertificate(l.site.Dir, "server", hosts...); err != nil {
		return err
	}
	if l.theirs, err = rig.MakeCertificate(l.site.Dir, "app", sealedName+".localhost"); err != nil {
		return err
	}
	return os.WriteFile(l.file("tokens"), []byte(tokens), 0o600)
}

// addClient makes the client of t and its link.
func (l *lab) addClient(t tunnel, plain, secure, private string, apps []*app) error {
	to, scheme := plain, "http://"
	if t.secure {
		to, scheme = secure, "https://"
	}
	path, addr, err := l.path(to)
	if err != nil {
		return err
	}
	l.links = append(l.links, path)
	if t.command == roleOrigin {
		l.clients = append(l.clients, &process{command: rig.Command{Path: l.self,
			Args: []string{roleOrigin, scheme + addr, t.name, l.file(t.name + ".token"), l.own.Cert, l.file("journal")}}})
		return nil
	}
	args := []string{t.command, "--server", scheme + addr, "--token-file", l.file(cmp.Or(t.token, t.name) + ".token"), "--retry", "--json"}
	if t.secure {
		args = append(args, "--ca", l.own.Cert)
	}
	p := &process{}
	if t.command == "connect" {
		p.listens = private
		args = append(args, "--listen", private, t.token)
	} else {
		args = append(args, append(t.flags, "--name", t.name, t.target(apps[t.app]))...)
	}
	p.command = rig.Command{Path: filepath.Join(l.bin, "tunnel-client"), Args: args}
	l.clients = append(l.clients, p)
	return nil
}

// open makes the visitors' ways, once the clients have told which ports they got.
func (l *lab) open(plain, secure, private string) error {
	l.doors = doors{plain: plain, tls: secure, quic: secure, private: private}
	for i, door := range map[int]*string{3: &l.doors.port, 4: &l.doors.udp} {
		if err := l.site.Until(rig.Patience, 5*time.Millisecond, func() error { return l.clients[i].learn() }); err != nil {
			return err
		}
		u, err := url.Parse(l.clients[i].url)
		if err != nil {
			return err
		}
		*door = net.JoinHostPort("127.0.0.1", u.Port())
	}
	for _, door := range []*string{&l.doors.plain, &l.doors.tls, &l.doors.port} {
		path, addr, err := l.path(*door)
		if err != nil {
			return err
		}
		l.fronts, *door = append(l.fronts, path), addr
	}
	for _, door := range []*string{&l.doors.quic, &l.doors.udp} {
		packets, err := rig.NewPackets(*door)
		if err != nil {
			return err
		}
		l.stops = append(l.stops, packets.Close)
		l.packets, *door = append(l.packets, packets), packets.Addr()
	}
	if l.plant != "" {
		if err := l.lie(); err != nil {
			return err
		}
	}
	l.regular = l.visitor(udpName, again)
	l.stops = append(l.stops, l.regular.Close)
	return nil
}

// learn reads which URLs p has printed. They are to be the same ones always.
func (p *process) learn() error {
	for line := range strings.Lines(p.Log()) {
		var event struct{ URL string }
		if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &event) != nil || event.URL == "" {
			continue
		}
		if p.url == "" {
			p.url = event.URL
		}
		if event.URL != p.url {
			return fmt.Errorf("%s had %s and has %s now", strings.Join(p.command.Args[:1], " "), p.url, event.URL)
		}
	}
	if p.url == "" {
		return fmt.Errorf("%s has printed no URL: %s", p.Name, p.LastWords())
	}
	return nil
}

// web are the names of the tunnels for HTTP.
func web() []string { return []string{"a", "b", turnedName, originName} }

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

// visitor is one of a tunnel's visitors, with connections of its own.
func (l *lab) visitor(name string, w way) *rig.Visitor {
	v := &rig.Visitor{Addr: l.doors.plain, Host: name + ".localhost", Limit: hungAfter}
	switch w {
	case fresh, freshSecure, freshThird, once:
		v.Fresh = true
	case second, secondSecure:
		v.H2 = true
	case old:
		v.Version10 = true
	}
	switch w {
	case secure, freshSecure, secondSecure:
		v.Addr, v.TLS = l.doors.tls, l.own.Visitors()
	case third, freshThird:
		v.Addr, v.TLS, v.H3 = l.doors.quic, l.own.Visitors(), true
	case through:
		v.Addr, v.TLS = l.doors.tls, l.theirs.Visitors()
	case port:
		v.Addr = l.doors.port
	case private:
		v.Addr = l.doors.private
	case once, again:
		v.Addr = l.doors.udp
	}
	return v
}

// hungAfter is how long a visitor may get nothing: a lost peer is noticed within 45 s, and then a
// request waits 10 s for its client.
const hungAfter = time.Minute
