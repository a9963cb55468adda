package server

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Ports is a range of ports that clients may have. The zero value is none.
type Ports struct{ First, Last int }

// ParsePorts reads "FIRST-LAST" or one port; "" is none.
func ParsePorts(s string) (Ports, error) {
	if s == "" {
		return Ports{}, nil
	}
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	var p Ports
	var err, err2 error
	p.First, err = strconv.Atoi(first)
	p.Last, err2 = strconv.Atoi(last)
	if err != nil || err2 != nil || p.First < 1 || p.Last > 65535 || p.First > p.Last {
		return Ports{}, fmt.Errorf("%q is not a range of ports such as 20000-20999", s)
	}
	return p, nil
}

func (p Ports) size() int {
	if p == (Ports{}) {
		return 0
	}
	return p.Last - p.First + 1
}

func (p Ports) has(port int) bool { return p != (Ports{}) && p.First <= port && port <= p.Last }

// portsHost is where clients' ports listen: where visitors come. With TLS the plain
// listener may be for this machine alone.
func (s *Server) portsHost() string {
	at := s.c.Listen
	if s.c.TLS != nil {
		at = s.c.TLS.Listen
	}
	host, _, _ := net.SplitHostPort(at)
	return host
}

// preferred is where a name's search for a port begins: the same place for the same
// owner and name, so that a client that starts again has its port again, also from a
// server that has started again.
func (p Ports) preferred(owner, name string) int {
	sum := sha256.Sum256([]byte(owner + "\x00" + name))
	return int(binary.BigEndian.Uint32(sum[:]) % uint32(p.size()))
}

// maxTries is how many ports are tried before a range counts as full.
const maxTries = 64

// claim binds a port, the wanted one if there is one, else last if it is not 0, else
// the first that is free from the preferred one on, by calling bind for each. One that
// another name had comes when there is no other.
func (p Ports) claim(owner, name string, wanted, last int, another func(port int) bool, bind func(port int) error) (int, error) {
	if p.size() == 0 {
		return 0, &protocol.Error{Code: protocol.KindUnsupported, Message: "this server offers no such ports", Hint: "its operator opens some with --tcp-ports and --udp-ports"}
	}
	if wanted != 0 {
		if !p.has(wanted) {
			return 0, &protocol.Error{Code: protocol.PortUnavailable, Message: fmt.Sprintf("port %d is not one of %d to %d, which this server gives", wanted, p.First, p.Last), Hint: "choose one of those, or leave --remote-port out"}
		}
		return wanted, whyNot(wanted, bind(wanted))
	}
	if p.has(last) {
		if err := bind(last); !unavailable(err) {
			return last, whyNot(last, err)
		}
	}
	start := p.preferred(owner, name)
	for _, anothers := range []bool{false, true} {
		tries := 0
		for i := 0; i < p.size() && tries < maxTries; i++ {
			port := p.First + (start+i)%p.size()
			if another(port) != anothers {
				continue
			}
			tries++
			if err := bind(port); !unavailable(err) {
				return port, whyNot(port, err)
			}
		}
	}
	return 0, &protocol.Error{Code: protocol.PortUnavailable, Message: "no port is free", Hint: "try again later, or ask the server's operator for more ports"}
}

// unavailable reports whether another port may do: this one is a client's, or another
// program's.
func unavailable(err error) bool {
	for _, busy := range []error{&protocol.Error{Code: protocol.NameTaken}, syscall.EADDRINUSE, syscall.EACCES} {
		if errors.Is(err, busy) {
			return true
		}
	}
	return false
}

// whyNot tells a client why port can't be bound.
func whyNot(port int, err error) error {
	var listening *net.OpError
	switch {
	case errors.Is(err, syscall.EACCES):
		return &protocol.Error{Code: protocol.PortUnavailable, Message: fmt.Sprintf("the system does not let the server listen at port %d", port), Hint: "choose another, or leave --remote-port out"}
	case unavailable(err):
		return &protocol.Error{Code: protocol.PortUnavailable, Message: fmt.Sprintf("port %d is taken", port), Hint: "choose another with --remote-port, leave that out, or stop the client that has the port"}
	case errors.As(err, &listening), errors.Is(err, net.ErrClosed):
		return &protocol.Error{Code: protocol.Overloaded, Message: fmt.Sprintf("the server cannot listen at port %d now", port), Hint: "try again in a moment"}
	}
	return err
}

// maxRemembered bounds what is remembered of who had which port, of about 400 bytes
// each. Above, all is forgotten.
const maxRemembered = 20_000

// lastPorts remembers which port an owner's name had.
type lastPorts struct {
	mu    sync.Mutex
	turn  int // of the claim that was kept last, counted from 1
	ports map[portKey]lastPort
	had   map[kindPort]portKey // who had a port last
}

// lastPort is a port and when it was kept, in turns: a name that has its old port again
// is not as it was.
type lastPort struct{ port, turn int }

type kindPort struct {
	kind protocol.Kind
	port int
}

type portKey struct {
	kind        protocol.Kind
	owner, name string
}

// routeOwner is who may take the port over: not the owner's other names, which would
// otherwise take a port that is held for this one.
func (k portKey) routeOwner() string { return k.owner + " " + k.name }

func (l *lastPorts) of(k portKey) lastPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ports[k]
}

// another reports whether another name than k's had port last, and may want it again.
func (l *lastPorts) another(k portKey, port int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had, ok := l.had[kindPort{k.kind, port}]
	return ok && had != k && l.ports[had].port == port
}

// keepAfter remembers port for k, unless another was kept since last was read. It
// returns what is remembered then.
func (l *lastPorts) keepAfter(k portKey, last lastPort, port int) lastPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.ports[k]; now != last && now.port != 0 {
		return now
	}
	if l.ports == nil || len(l.ports) >= maxRemembered {
		l.ports, l.had = make(map[portKey]lastPort), make(map[kindPort]portKey)
	}
	l.turn++
	now := lastPort{port, l.turn}
	l.ports[k], l.had[kindPort{k.kind, port}] = now, k
	return now
}
