package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
)

const (
	protoHTTP2 = "h2"
	protoHTTP1 = "http/1.1"
	protoACME  = "acme-tls/1" // RFC 8737
)

// config is of all connections, which share the keys of their session tickets.
func (d *Door) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       cipherSuites(),
		NextProtos:         []string{protoHTTP2, protoHTTP1, protoACME},
		GetCertificate:     d.GetCertificate,
		GetConfigForClient: decide,
	}
}

// cipherSuites are those of TLS 1.2 that HTTP/2 allows (RFC 9113, appendix A):
// net/http cannot look at them, as it sees no TLS. Those of 1.3 all are.
func cipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// handshake makes c a connection of TLS. The error is errRouted where c is somebody
// else's now, any other where it is to be closed.
func (l *listener) handshake(c tcpConn, entry *admitted, due time.Time) (*secured, error) {
	h := &hello{wrapper: wrapper{c}, door: l.door, asking: l.asking, entry: entry, due: due}
	s := &secured{Conn: tls.Server(h, l.config), tcp: h}
	// A certificate may be on order: who closes the listener does not wait for it.
	err := s.HandshakeContext(l.accepting)
	switch {
	case h.routed.Load():
		return nil, errRouted
	case err != nil:
		return nil, err
	case s.ConnectionState().NegotiatedProtocol == protoACME:
		s.Close()
		return nil, errChallenge
	}
	return s, nil
}

// maxHello bounds the first message of a handshake, with its records and what came
// along, in bytes. Browsers send 2 KiB.
const maxHello = 16 << 10

var errLongHello = errors.New("the first message of the handshake is too long")

// hello is the connection below TLS. What is read of it is kept until it is known
// who is to have it.
type hello struct {
	wrapper
	door    *Door
	asking  *tls.Config
	entry   *admitted
	due     time.Time // when the handshake is to be over; zero: any time
	seen    []byte
	decided bool
	routed  atomic.Bool
	ended   atomic.Bool // the connection's end was read
}

func (h *hello) Read(p []byte) (int, error) {
	n, err := h.tcpConn.Read(p)
	if err == io.EOF {
		h.ended.Store(true)
	}
	if !h.decided && h.door.Route != nil {
		if len(h.seen)+n > maxHello {
			return 0, errLongHello // crypto/tls has a bound of its own, of the message without its records
		}
		h.seen = append(h.seen, p[:n]...)
	}
	return n, err
}

// Write sends nothing on a connection that is somebody else's: the handshake that
// ends here would send an alert.
func (h *hello) Write(p []byte) (int, error) {
	if h.routed.Load() {
		return len(p), nil
	}
	return h.tcpConn.Write(p)
}

// Close closes nothing that is somebody else's, as the end of the listener would.
func (h *hello) Close() error {
	if h.routed.Load() {
		return nil
	}
	return h.tcpConn.Close()
}

// decide is crypto/tls's GetConfigForClient: it is called when the first message of
// a handshake was read, in however many pieces it came, and nothing was answered.
func decide(info *tls.ClientHelloInfo) (*tls.Config, error) {
	h, ok := info.Conn.(*hello)
	if !ok || h.decided {
		return nil, nil
	}
	h.decided = true
	if h.door.Route != nil && h.route(info.ServerName) {
		return nil, errRouted
	}
	h.seen = nil
	if h.asking != nil && h.door.AsksClient(info.ServerName) {
		return h.asking, nil
	}
	return nil, nil
}

// route offers the connection to Door.Route. Who takes it has it without deadlines,
// and the Gate is not to take what comes for a long header.
func (h *hello) route(name string) bool {
	var state int32
	if h.entry != nil {
		state = h.entry.state.Swap(int32(http.StateHijacked))
	}
	h.tcpConn.SetDeadline(time.Time{})
	routed := h.door.Route(name, &ahead{wrapper: wrapper{h.tcpConn}, first: h.seen})
	h.routed.Store(routed)
	switch {
	case routed && h.entry != nil:
		h.entry.gate.forget(h.entry)
	case !routed:
		h.tcpConn.SetDeadline(h.due)
		if h.entry != nil {
			h.entry.state.Store(state)
		}
	}
	return routed
}

// secured is a connection of TLS that can be aborted as one of TCP can: without
// close_notify, which would be an end (R1).
type secured struct {
	*tls.Conn
	tcp   *hello
	abort atomic.Bool
}

// Read tells an end without close_notify from one with it, where net/http has handed
// the connection over: who was killed ends it so, and what came is not whole (R2).
// crypto/tls lets it pass, and net/http takes it for an answer's or a visitor's end.
func (s *secured) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err == io.EOF && s.tcp.ended.Load() && s.tcp.entry.isHijacked() {
		err = proxy.ErrNoCloseNotify
	}
	return n, err
}

// SetLinger with 0 seconds makes the next Close an abort.
func (s *secured) SetLinger(seconds int) error {
	s.abort.Store(seconds == 0)
	return s.tcp.SetLinger(seconds)
}

// Close closes the connection, with close_notify unless it is an abort.
func (s *secured) Close() error {
	if s.abort.Load() {
		return s.tcp.Close()
	}
	return s.Conn.Close()
}

// ReadFrom and WriteTo are there as a TCP connection has them; nothing is spliced.
func (s *secured) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s.Conn}, r)
}

func (s *secured) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}

// errSecured is of who would write to the socket, past TLS.
var errSecured = errors.New("the socket carries TLS")

// SyscallConn is refused: package mux writes to sockets itself, where it gets them.
func (s *secured) SyscallConn() (syscall.RawConn, error) { return nil, errSecured }
