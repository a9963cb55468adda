package main

import (
	"os/exec"
	"slices"

	"github.com/revtun/tunnel/internal/rig"
)

// The names of variants that rows and targets speak of.
const (
	direct        = "direct"
	oneRelay      = "one relay hop"
	twoRelays     = "two relay hops"
	oneProxy      = "one proxy hop"
	twoProxies    = "two proxy hops"
	plainProxy    = "proxy hop, no pool"
	ours          = "tunnel"
	oursWebSocket = "tunnel websocket"
	oursPTTH      = "tunnel ptth"
	originPTTH    = "tunnel ptth h1"
	oursTCP       = "tunnel tcp"
	oursTLS       = "tunnel tls"
	oursTerminate = "tunnel tls end"
	oursUDP       = "tunnel udp"
	oursPlain     = "tunnel plain"
)

// A variant is a way from a visitor to the app. To measure one more, add it to variants.
type variant struct {
	name  string
	about string   // with the defaults that it is measured with
	needs []string // programs on PATH
	hop   bool     // a yardstick: no tunnel, so neither idle, hanging nor recovering

	// Each plan is nil where there is none, and the rows that need it leave the variant out.
	plan      func(s *site, app string) (*plan, error) // for visitors over TCP, HTTP in most rows
	raw       bool                                     // plan carries any TCP
	secure    func(s *site) (*plan, error)             // for visitors over TLS and QUIC
	speaks    []string                                 // versions of HTTP that secure is for
	datagrams func(s *site, app string) (*plan, error) // for visitors over UDP
}

// A plan says how a variant is started and where visitors find the app behind it.
type plan struct {
	visit, host string // HOST:PORT that visitors connect to, and the host that they ask for
	control     string // HOST:PORT that the client connects to; "" where nothing waits for a client
	server      rig.Command
	client      func(control string) rig.Command // nil: there is none
	datagrams   bool                             // visit is a port of UDP
	says        string                           // by the client when it is what is to be measured; "": anything
}

// variants are all that can be measured, the yardsticks first.
func variants() []variant {
	return slices.Concat(yardsticks(), tunnelVariants(), peers())
}

func yardsticks() []variant {
	every, overTCP := []string{http1TLS, http2TLS, http3UDP}, []string{http1TLS, http2TLS}
	vs := []variant{
		{name: direct, about: "the visitor calls the app", plan: planDirect, raw: true,
			secure: planSecureDirect, speaks: every, datagrams: planDirect},
		{name: oneRelay, about: "a process that copies bytes with io.Copy, which is splice(2); of UDP with a socket for each visitor",
			plan: hops("relay", 1), raw: true, datagrams: hops("udp-relay", 1)},
		{name: twoRelays, about: "two of them in a row; before an app that ends TLS itself",
			plan: hops("relay", 2), raw: true, secure: planSecureRelays(2), speaks: overTCP, datagrams: hops("udp-relay", 2)},
		{name: plainProxy, about: "httputil.ReverseProxy with kept connections", plan: hops("plain-proxy", 1)},
		{name: oneProxy, about: "the same with a pool of copy buffers; for TLS, HTTP/2 and HTTP/3 it ends TLS and calls the app without it",
			plan: hops("proxy", 1), secure: planSecureProxies(1), speaks: every},
		{name: twoProxies, about: "two of them in a row, where visitors come by TLS with TLS between the two",
			plan: hops("proxy", 2), secure: planSecureProxies(2), speaks: every},
	}
	for i := range vs {
		vs[i].hop = true
	}
	return vs
}

func tunnelVariants() []variant {
	return []variant{
		{name: ours, about: "tunnel-client http PORT with its defaults: raw upgrade, the app sees its own host name, the inspector records; " +
			"where visitors come by TLS, the client does too",
			plan: planOurs(), secure: planOursSecure(oursSecureHTTP), speaks: []string{http1TLS, http2TLS, http3UDP}},
		{name: oursPlain, about: "tunnel-client http PORT --no-inspect", plan: planOurs("--no-inspect")},
		{name: oursWebSocket, about: "tunnel with --transport websocket", plan: planOurs("--transport", "websocket")},
		{name: oursPTTH, about: "tunnel with --transport ptth: HTTP/2 with the roles turned around", plan: planPTTH()},
		{name: originPTTH, about: "tunnel-server and, in the client's place, an httputil.ReverseProxy that attaches itself by PTTH: " +
			"256 connections of HTTP/1.1, a request at a time on each", plan: planOrigin},
		{name: oursTCP, about: "tunnel-client tcp PORT, no HTTP", plan: planOursPort("tcp"), raw: true},
		{name: oursTLS, about: "tunnel-client tls PORT, the app ends TLS; the client comes by TLS, too",
			secure: planOursSecure(oursSecureTLS), speaks: []string{http1TLS, http2TLS}},
		{name: oursTerminate, about: "the same with --terminate: the client ends TLS",
			secure: planOursSecure(oursSecureTerminate), speaks: []string{http1TLS}},
		{name: oursUDP, about: "tunnel-client udp PORT", datagrams: planOursPort("udp")},
	}
}

func variantNames() []string {
	var names []string
	for _, v := range variants() {
		names = append(names, v.name)
	}
	return names
}

// available are the variants to measure, chosen by name (none: all) beside the yardsticks, and those
// among them whose programs are not on PATH.
func available(chosen []string) (there, absent []variant) {
	for _, v := range variants() {
		switch {
		case !v.hop && len(chosen) > 0 && !slices.Contains(chosen, v.name):
		case slices.ContainsFunc(v.needs, missing):
			absent = append(absent, v)
		default:
			there = append(there, v)
		}
	}
	return there, absent
}

func missing(program string) bool {
	_, err := exec.LookPath(program)
	return err != nil
}

// program is a command found on PATH.
func program(name string, args ...string) rig.Command {
	path, err := exec.LookPath(name)
	if err != nil {
		path = name // starting it says what is wrong
	}
	return rig.Command{Path: path, Args: args}
}

func planDirect(_ *site, app string) (*plan, error) {
	return &plan{visit: app, host: app}, nil
}

// hops plans n processes of a role in a row. Two stand where a tunnel's server and client stand.
func hops(role string, n int) func(*site, string) (*plan, error) {
	return func(s *site, app string) (*plan, error) {
		at, err := s.FreePorts(n)
		if err != nil {
			return nil, err
		}
		p := &plan{visit: at[0], host: at[0]}
		if n == 1 {
			p.server = s.role(role, at[0], app)
			return p, nil
		}
		p.server = s.role(role, at[0], at[1])
		p.client = func(string) rig.Command { return s.role(role, at[1], app) }
		return p, nil
	}
}

// planOurs plans tunnel-server, and tunnel-client with more flags.
func planOurs(flags ...string) func(*site, string) (*plan, error) {
	return func(s *site, app string) (*plan, error) {
		at, err := s.FreePort()
		if err != nil {
			return nil, err
		}
		return &plan{
			visit: at, host: benchHost, control: at,
			server: s.ours("tunnel-server", "serve", "--listen", at),
			client: func(control string) rig.Command {
				args := append([]string{"http", app, "--name", "bench", "--server", "http://" + control}, flags...)
				return s.ours("tunnel-client", args...)
			},
		}, nil
	}
}

// planPTTH is planOurs by PTTH, of HTTP/2.
func planPTTH() func(*site, string) (*plan, error) {
	ours := planOurs("--transport", "ptth")
	return func(s *site, app string) (*plan, error) {
		p, err := ours(s, app)
		if err == nil {
			p.says = "transport=ptth protocol=h2"
		}
		return p, err
	}
}

// planOrigin plans tunnel-server, and an origin that attaches itself.
func planOrigin(s *site, app string) (*plan, error) {
	p, err := planOurs()(s, app)
	if err == nil {
		p.client = func(control string) rig.Command { return s.role("origin", "http://"+control, "bench", app) }
		p.says = originAttached
	}
	return p, err
}

// planOursPort plans tunnel-server with one port for connections or datagrams.
func planOursPort(kind string) func(*site, string) (*plan, error) {
	return func(s *site, app string) (*plan, error) {
		at, err := s.FreePorts(2)
		if err != nil {
			return nil, err
		}
		public := port(at[1])
		return &plan{
			visit: at[1], host: at[1], control: at[0],
			server: s.ours("tunnel-server", "serve", "--listen", at[0], "--"+kind+"-ports", public+"-"+public),
			client: func(control string) rig.Command {
				return s.ours("tunnel-client", kind, app, "--name", "bench", "--remote-port", public, "--server", "http://"+control)
			},
		}, nil
	}
}

// ours is one of the two commands that are measured.
func (l *lab) ours(name string, args ...string) rig.Command {
	return rig.Command{Path: l.bin + "/" + name, Args: args}
}
