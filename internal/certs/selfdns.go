package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Limits towards strangers.
const (
	maxQuery      = 1500            // bytes; a question for our name has about 80
	maxUDPAnswer  = 512             // bytes, whatever the asker could take: the rest is for TCP
	maxTCPConns   = 64              // one more is closed
	maxTCPQueries = 16              // on one connection
	tcpTimeout    = 5 * time.Second // for each question and its answer
)

// SelfDNS is a DNS server for one name, _acme-challenge.Domain, and the provider
// that sets its TXT records. Nobody's interface or key is needed, only one record
// in the zone of the domain, by hand and for good:
//
//	_acme-challenge.tunnel.example.com.  NS  tunnel.example.com.
//
// It answers for that name alone (TXT, SOA, NS, and that there is nothing else)
// and refuses all other questions; it asks nobody. UDP is read by one goroutine,
// which keeps nothing between two questions, and an answer over UDP has at most
// 512 bytes: the server is of no use to who wants to send others much.
type SelfDNS struct {
	// Domain, needed.
	Domain string
	// Host is the name of this server in NS and SOA; Domain if empty.
	Host string
	// Log gets what keeps it from serving. Nil discards.
	Log *slog.Logger

	udp *net.UDPConn
	tcp net.Listener

	mu     sync.Mutex
	txt    []string
	serial uint32
	set    bool // a record, since unasked was called
	asked  bool // since a record was set
}

func (d *SelfDNS) host() string {
	if d.Host != "" {
		return strings.ToLower(strings.TrimSuffix(d.Host, "."))
	}
	return strings.ToLower(strings.TrimSuffix(d.Domain, "."))
}

// Listen takes the port, for UDP and TCP; with port 0 the same free one for both.
// The error says what may help. [SelfDNS.Run] serves it, and is to be called.
func (d *SelfDNS) Listen(addr string) error {
	var err error
	for range 10 { // a free port of TCP may be taken for UDP
		if err = d.listen(addr); err == nil || !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("DNS on %s: %w: a port below 1024 needs root, or CAP_NET_BIND_SERVICE", addr, err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("DNS on %s: %w: another DNS server is there, often systemd-resolved at 127.0.0.53 alone: name the one address of this machine that the world reaches, as in --acme-dns-listen 203.0.113.10:53", addr, err)
	case err != nil:
		return fmt.Errorf("DNS on %s: %w", addr, err)
	}
	return nil
}

func (d *SelfDNS) listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	at := l.Addr().(*net.TCPAddr)
	network := "udp"
	if at.IP.To4() != nil {
		network = "udp4"
	}
	u, err := net.ListenUDP(network, &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
	if err != nil {
		l.Close()
		return err
	}
	// On a machine with many addresses an answer comes from the one that was asked.
	err4 := ipv4.NewPacketConn(u).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	err6 := ipv6.NewPacketConn(u).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	if err4 != nil && err6 != nil && at.IP.IsUnspecified() {
		orDiscard(d.Log).Warn("DNS answers may come from another address than the one that was asked", "err", err4)
	}
	d.tcp, d.udp = l, u
	return nil
}

// Addr is where it listens, host:port; empty before [SelfDNS.Listen].
func (d *SelfDNS) Addr() string {
	if d.tcp == nil {
		return ""
	}
	return d.tcp.Addr().String()
}

// Run answers until ctx ends, and returns its error when all has ended, or what
// kept it from listening.
func (d *SelfDNS) Run(ctx context.Context) error {
	if d.udp == nil {
		return errors.New("DNS: Run before Listen")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { d.udp.Close(); d.tcp.Close() })()
	var parts sync.WaitGroup
	parts.Go(func() { cancel(d.serveUDP(ctx)) })
	parts.Go(func() { cancel(d.serveTCP(ctx)) })
	parts.Wait()
	d.udp.Close()
	d.tcp.Close()
	return context.Cause(ctx)
}

// pause waits after an error of the network, so that one that stays costs little.
func pause(ctx context.Context) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
}

// serveUDP answers one question after the other.
func (d *SelfDNS) serveUDP(ctx context.Context) error {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := dns.ReadFromSessionUDP(d.udp, buf)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			pause(ctx)
			continue
		}
		if b := d.answer(buf[:n], true); b != nil {
			_, _ = dns.WriteToSessionUDP(d.udp, b, from) // lost, as it may be on the way
		}
	}
}

// serveTCP answers on a number of connections at once.
func (d *SelfDNS) serveTCP(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	free := make(chan struct{}, maxTCPConns)
	for {
		c, err := d.tcp.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				c.Close()
			}
			return err
		case err != nil:
			pause(ctx)
			continue
		}
		select {
		case free <- struct{}{}:
			conns.Go(func() {
				defer func() { <-free }()
				d.serveConn(ctx, c)
			})
		default:
			c.Close()
		}
	}
}

func (d *SelfDNS) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := &dns.Conn{Conn: c}
	for range maxTCPQueries {
		if c.SetDeadline(time.Now().Add(tcpTimeout)) != nil {
			return
		}
		b, err := conn.ReadMsgHeader(nil)
		if err != nil || len(b) > maxQuery {
			return
		}
		b = d.answer(b, false)
		if b == nil {
			return
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}
