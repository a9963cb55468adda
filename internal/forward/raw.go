package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/protocol"
)

// errNotRaw is of a request to an endpoint of raw connections.
var errNotRaw = errors.New("request is not CONNECT")

// Raw passes visitors' connections on to the local app, byte for byte. Make it
// with [NewRaw].
type Raw struct {
	target   Target
	o        RawOptions
	server   proxy.Server
	inFlight atomic.Int64
}

// RawOptions tune a Raw.
type RawOptions struct {
	// Prepare is called with each connection to the app before anything else is sent
	// on it, with the visitor's address, which is "" where it is not known. Its error
	// fails the connection. Nil: nothing is prepared.
	Prepare func(app net.Conn, visitor string) error
	// TLS ends the visitors' TLS: what is inside goes to the app. Nil: the bytes pass
	// as they are.
	TLS *tls.Config
	// Done is called after each connection. May be nil.
	Done func(Exchange)
	// Log gets why connections failed. Nil discards.
	Log *slog.Logger
}

// NewRaw returns the handler for target.
func NewRaw(target Target, o RawOptions) *Raw {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Raw{target: target, o: o}
	f.server = proxy.Server{Handler: f.ServeHTTP, MaxHeader: maxHeader, Log: o.Log}
	return f
}

// Close does nothing: connections end with their streams.
func (f *Raw) Close() {}

// InFlight is how many connections are open.
func (f *Raw) InFlight() int64 { return f.inFlight.Load() }

// ServeConn serves one stream of the tunnel until it ends, and closes it.
func (f *Raw) ServeConn(stream net.Conn) { f.server.ServeConn(stream) }

// ServeHTTP answers CONNECT (RFC 9110, section 9.3.6), whatever its target: what is
// dialled is the user's to say (S18).
func (f *Raw) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	e := Exchange{Method: r.Method, Path: visitorOf(r)}
	start := time.Now()
	e.Code = f.serve(w, r, &e)
	e.Duration = time.Since(start)
	if f.o.Done != nil {
		f.o.Done(e)
	}
}

func (f *Raw) serve(w http.ResponseWriter, r *http.Request, e *Exchange) protocol.Code {
	if r.Method != http.MethodConnect {
		return f.refuse(w, r, protocol.BadRequest, errNotRaw)
	}
	if f.o.TLS != nil {
		return f.terminate(w, r, e)
	}
	app, err := f.dial(r)
	if err != nil {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the visitor has gone
		}
		return f.refuse(w, r, codeOf(err), err)
	}
	stream, early, err := takeOver(w)
	if err != nil {
		(&counted{Conn: app}).Reset() // nobody is there to end it (R2)
		return protocol.SessionLost
	}
	e.Status = http.StatusOK
	counted := &counted{Conn: app}
	proxy.Splice(stream, counted, early)
	e.Bytes = counted.read.Load()
	return ""
}

// takeOver answers 200, and returns the stream, on which the visitor's bytes follow,
// with those that came early.
func takeOver(w http.ResponseWriter) (stream net.Conn, early []byte, err error) {
	stream, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	buffered.WriteString("HTTP/1.1 200 OK\r\n\r\n")
	if err := buffered.Flush(); err != nil {
		stream.Close()
		return nil, nil, err
	}
	early, _ = buffered.Reader.Peek(buffered.Reader.Buffered())
	return stream, bytes.Clone(early), nil
}

func (f *Raw) dial(r *http.Request) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	defer cancel()
	app, err := (&net.Dialer{}).DialContext(ctx, f.target.Network, f.target.Addr)
	if err != nil || f.o.Prepare == nil {
		return app, err
	}
	if err := f.o.Prepare(app, visitorOf(r)); err != nil {
		app.Close()
		return nil, err
	}
	return app, nil
}

func (f *Raw) refuse(w http.ResponseWriter, r *http.Request, code protocol.Code, err error) protocol.Code {
	f.o.Log.Warn("connection failed", "visitor", visitorOf(r), "target", f.target.Addr, "code", string(code), "err", err)
	w.Header().Set(protocol.HeaderError, string(code))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code.Status())
	return code
}

// counted counts what the app sends.
type counted struct {
	net.Conn
	read atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// Reset ends the connection so that the app sees an error.
func (c *counted) Reset() error {
	c.SetLinger(0)
	return c.Conn.Close()
}

// SetLinger says what the end of the connection is to the app, where it is TCP.
func (c *counted) SetLinger(seconds int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return nil
}

// SyscallConn is the app's, so that a reset is told from an end.
func (c *counted) SyscallConn() (syscall.RawConn, error) {
	if conn, ok := c.Conn.(syscall.Conn); ok {
		return conn.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// visitorOf is the address in the request's Forwarded field (RFC 7239, section 5.2),
// ADDRESS:PORT, or "".
func visitorOf(r *http.Request) string {
	quoted, ok := strings.CutPrefix(r.Header.Get("Forwarded"), "for=")
	if !ok {
		return ""
	}
	return address(strings.Trim(quoted, `"`))
}

// address returns s if it is ADDRESS:PORT, otherwise "".
func address(s string) string {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ""
	}
	return ap.String()
}
