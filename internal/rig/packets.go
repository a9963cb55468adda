package rig

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// keptFor is how long a visitor of Packets is remembered who is silent.
const keptFor = 90 * time.Second

// Packets is a way for datagrams to target: a relay with a socket for each visitor, that
// loses some where it is told to. Call Close in the end.
type Packets struct {
	target string
	conn   *net.UDPConn

	mu       sync.Mutex // guards the following
	visitors map[netip.AddrPort]net.Conn
	silent   [2]bool // by Direction
	loss     float64
	closed   bool
	running  sync.WaitGroup
}

// NewPackets listens on a port of 127.0.0.1 and relays what comes to target.
func NewPackets(target string) (*Packets, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &Packets{target: target, conn: conn, visitors: make(map[netip.AddrPort]net.Conn)}
	p.running.Go(p.there)
	return p, nil
}

// Addr is where visitors send to.
func (p *Packets) Addr() string { return p.conn.LocalAddr().String() }

// Close ends it, and returns when it has ended.
func (p *Packets) Close() {
	p.mu.Lock()
	p.closed = true
	p.conn.Close()
	for _, c := range p.visitors {
		c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// Silence makes one direction drop all, or none again but what Lose says.
func (p *Packets) Silence(d Direction, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[d] = on
}

// Lose drops a share of the datagrams, from 0 to 1, in both directions.
func (p *Packets) Lose(share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = share
}

func (p *Packets) loses(d Direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent[d] || p.loss > 0 && rand.Float64() < p.loss
}

// there relays to the target, until the Packets is closed.
func (p *Packets) there() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || p.loses(There) {
			continue
		}
		if c := p.visitor(from); c != nil {
			_, _ = c.Write(buf[:n]) // or it is lost
		}
	}
}

// visitor is the socket of one; nil where there is none to be had.
func (p *Packets) visitor(from netip.AddrPort) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.visitors[from]
	if c == nil && !p.closed {
		var err error
		if c, err = net.Dial("udp4", p.target); err != nil {
			return nil
		}
		p.visitors[from] = c
		p.running.Go(func() { p.back(from, c) })
	}
	if c != nil {
		_ = c.SetReadDeadline(time.Now().Add(keptFor))
	}
	return c
}

// back relays to a visitor until it has been silent for long.
func (p *Packets) back(to netip.AddrPort, c net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.visitors, to)
		p.mu.Unlock()
		c.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		var passed net.Error
		switch {
		case err == nil && !p.loses(Back):
			_, _ = p.conn.WriteToUDPAddrPort(buf[:n], to)
		case errors.Is(err, net.ErrClosed), errors.As(err, &passed) && passed.Timeout():
			return
		case err != nil:
			time.Sleep(time.Millisecond) // nobody is at the target now
		}
	}
}
