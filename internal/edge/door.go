package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/transport"
)

// Door makes of a TCP listener one for an [HTTP.Server]: with what net/http leaves
// out, and with TLS. A connection of HTTP/2 ends where its header sections take
// longer than Limits.HeaderTimeout, the first one counted from when it was accepted;
// requests of HTTP/1 whose framing is unclear are answered 400 and end theirs. What
// the system holds unsent is bounded, too.
//
// With TLS, net/http is given connections of which it sees no TLS, so that all of
// this goes by what was decrypted; r.TLS is set all the same.
type Door struct {
	Limits Limits
	// Proxies are the addresses whose connections may begin with a header of the PROXY
	// protocol, version 2. It names the visitor. From others none is looked for.
	Proxies []netip.Prefix
	// GetCertificate is crypto/tls's, and switches TLS on, 1.2 and later. It may answer
	// a CA that asks for "acme-tls/1" (RFC 8737): such connections end after the
	// handshake. Nil: no TLS.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Route takes the connection over, from its first byte on and without deadlines,
	// if it returns true: name is its SNI, as it was sent, or "". It is called amid the
	// handshake, and is to return soon. Where it returns false it has not touched conn.
	// Nil: none is taken.
	Route func(name string, conn net.Conn) bool
	// ClientCAs are the authorities whose certificates a client may show that calls a
	// name of which AsksClient says so. It need not show one: what was verified is in
	// the request's TLS. Nil: nobody is asked.
	ClientCAs  *x509.CertPool
	AsksClient func(name string) bool
	// Log gets a line at debug level for each connection that fails. Nil discards.
	Log *slog.Logger
}

// Listener returns l, made the Door's. A [Gate]'s listener goes below it: that one
// counts and sheds connections from their first byte on. A connection is accepted
// when what stands before its first request is done, so that a slow one is nobody's
// hindrance; this takes Limits.HeaderTimeout at most, each for the header of the
// PROXY protocol together with the handshake, and then for the request's. Without
// TLS, connections that are not TCP stay as they are. Closing it ends those that
// were not accepted yet.
func (d *Door) Listener(l net.Listener) net.Listener {
	one := &listener{Listener: l, door: d}
	if d.GetCertificate != nil {
		one.config = d.config()
		if d.ClientCAs != nil {
			one.asking = one.config.Clone()
			one.asking.ClientAuth, one.asking.ClientCAs = tls.VerifyClientCertIfGiven, d.ClientCAs
		}
	}
	if one.config != nil || len(d.Proxies) > 0 {
		one.opened = make(chan incoming)
		one.accepting, one.stop = context.WithCancel(context.Background())
		one.opening = make(map[net.Conn]struct{})
	}
	return one
}

type listener struct {
	net.Listener
	door   *Door
	config *tls.Config // nil: no TLS
	asking *tls.Config // for those who are asked for a certificate; nil: nobody is

	// The rest is nil where nothing stands before the first request.
	opened    chan incoming
	accepting context.Context // ends with the listener
	stop      context.CancelFunc
	begin     sync.Once
	end       sync.Once
	running   sync.WaitGroup

	mu      sync.Mutex            // guards the following fields
	opening map[net.Conn]struct{} // accepted below, and not here yet
	closed  bool
}

type incoming struct {
	conn net.Conn
	err  error
}

// Accept returns the next connection that is ready for its first request.
func (l *listener) Accept() (net.Conn, error) {
	if l.opened == nil {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		return l.door.guard(c), nil
	}
	l.begin.Do(func() { l.start(l.accept) })
	select {
	case a := <-l.opened:
		return a.conn, a.err
	case <-l.accepting.Done():
		return nil, net.ErrClosed
	}
}

// start runs f on a goroutine that Close waits for, unless it was closed.
func (l *listener) start(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Go(f)
	}
	return !l.closed
}

// accept takes connections until the listener is closed.
func (l *listener) accept() {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err != nil:
			if !l.give(incoming{err: err}) {
				return
			}
		case l.config == nil && !l.door.proxied(c):
			l.give(incoming{conn: l.door.guard(c)})
		default:
			if !l.start(func() { l.open(c) }) {
				c.Close()
			}
		}
	}
}

// give reports whether somebody accepted a.
func (l *listener) give(a incoming) bool {
	select {
	case l.opened <- a:
		return true
	case <-l.accepting.Done():
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// errRouted ends a handshake whose connection is somebody else's now.
var errRouted = errors.New("routed by SNI")

// errChallenge ends a connection that was a CA's, which has seen what it wanted.
var errChallenge = errors.New("a challenge of ACME")

// open does what stands before c's first request.
func (l *listener) open(c net.Conn) {
	if !l.follow(c) {
		return
	}
	ready, err := l.prepare(c)
	l.mu.Lock()
	delete(l.opening, c)
	l.mu.Unlock()
	switch {
	case err == nil:
		l.give(incoming{conn: ready})
	case errors.Is(err, errRouted):
	default:
		c.Close()
		l.door.log().Debug("connection failed", "remote", c.RemoteAddr().String(), "err", brief(err))
	}
}

// follow has Close end c, and does itself if that has been.
func (l *listener) follow(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return false
	}
	l.opening[c] = struct{}{}
	return true
}

// prepare returns c as net/http is to have it, or an error where c is to be closed.
func (l *listener) prepare(c net.Conn) (net.Conn, error) {
	tcp, ok := c.(tcpConn)
	if !ok {
		return nil, errors.New("it is not TCP")
	}
	transport.LimitUnsent(tcp)
	var due time.Time
	if t := l.door.Limits.HeaderTimeout; t > 0 {
		due = time.Now().Add(t)
		tcp.SetDeadline(due)
	}
	if l.door.proxied(c) {
		var err error
		if tcp, err = readProxyHeader(tcp); err != nil {
			return nil, err
		}
	}
	entry := entryOf(c)
	ready := &timedConn{wrapper: wrapper{tcp}, timeout: l.door.Limits.HeaderTimeout, entry: entry}
	if l.config != nil {
		s, err := l.handshake(tcp, entry, due)
		if err != nil {
			return nil, err
		}
		state := s.ConnectionState()
		ready.tcpConn, ready.tls = s, &state
	}
	ready.accepted = time.Now()
	return ready, tcp.SetDeadline(time.Time{})
}

// guard is prepare where nothing stands before the first request.
func (d *Door) guard(c net.Conn) net.Conn {
	tcp, ok := c.(tcpConn)
	if !ok {
		return c
	}
	transport.LimitUnsent(tcp)
	return &timedConn{wrapper: wrapper{tcp}, timeout: d.Limits.HeaderTimeout, accepted: time.Now(), entry: entryOf(c)}
}

// proxied reports whether c may begin with a header of the PROXY protocol.
func (d *Door) proxied(c net.Conn) bool { return proxied(d.Proxies, c) }

func (d *Door) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}

// Close closes the listener, and what was not accepted yet.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if l.opened == nil {
		return err
	}
	l.end.Do(func() {
		l.stop()
		l.mu.Lock()
		l.closed = true
		for c := range l.opening {
			c.Close()
		}
		l.mu.Unlock()
		l.running.Wait()
	})
	return err
}

// ahead is a connection of which a part was read already, or whose visitor is
// somewhere else.
type ahead struct {
	wrapper
	first  []byte   // what was read
	remote net.Addr // nil: the connection's
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.first) == 0 {
		return a.tcpConn.Read(p)
	}
	n := copy(p, a.first)
	a.first = a.first[n:]
	return n, nil
}

// WriteTo is Read's, as the connection's own knows nothing of the first part.
func (a *ahead) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{a})
}

// RemoteAddr is the visitor's address.
func (a *ahead) RemoteAddr() net.Addr {
	if a.remote != nil {
		return a.remote
	}
	return a.tcpConn.RemoteAddr()
}
