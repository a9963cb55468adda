package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// securing is how long a visitor's handshake may take, with the wait for a
	// certificate that is on order.
	securing = 20 * time.Second
	// protoACME is what a certificate authority asks for that checks a name: the
	// handshake is all that it wants (RFC 8737, section 3).
	protoACME = "acme-tls/1"
)

// terminate ends the visitor's TLS. The app is called when the handshake is over: a
// visitor that does not finish it is nothing to the app, and a certificate can be had
// before the app runs. What fails then has no status to be told by: it is a reset.
func (f *Raw) terminate(w http.ResponseWriter, r *http.Request, e *Exchange) protocol.Code {
	stream, early, err := takeOver(w)
	if err != nil {
		return protocol.SessionLost
	}
	visitor := &terminated{stream: &begun{Conn: stream, first: early}}
	visitor.Conn = tls.Server(visitor.stream, f.o.TLS)
	if err := f.secure(r.Context(), visitor); err != nil {
		f.o.Log.Warn("handshake failed", "visitor", visitorOf(r), "err", err)
		stream.Close() // an alert has said why
		return protocol.BadRequest
	}
	if visitor.ConnectionState().NegotiatedProtocol == protoACME {
		f.o.Log.Debug("a certificate authority has checked the name", "visitor", visitorOf(r))
		visitor.Close()
		return ""
	}
	app, err := f.dial(r)
	if err != nil {
		f.o.Log.Warn("connection failed", "visitor", visitorOf(r), "target", f.target.Addr, "code", string(codeOf(err)), "err", err)
		visitor.Reset()
		return codeOf(err)
	}
	e.Status = http.StatusOK
	counted := &counted{Conn: app}
	proxy.Splice(visitor, counted, nil)
	e.Bytes = counted.read.Load()
	return ""
}

// secure does the handshake. ctx ends where the visitor has gone.
func (f *Raw) secure(ctx context.Context, visitor *terminated) error {
	ctx, cancel := context.WithTimeout(ctx, securing)
	defer cancel()
	err := visitor.HandshakeContext(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("it took too long")
	}
	return err
}

// terminated is a visitor's connection without its TLS.
type terminated struct {
	*tls.Conn
	stream *begun
}

// Read tells an end without close_notify from one with it: anybody on the way could
// have made that (RFC 8446, section 6.1), and so does a visitor that was killed (R2).
// crypto/tls lets it pass.
func (t *terminated) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err == io.EOF && t.stream.ended {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Reset ends the connection so that the visitor sees an error: without close_notify,
// which would be an end (R17).
func (t *terminated) Reset() error {
	if s, ok := t.stream.Conn.(interface{ Reset() error }); ok {
		return s.Reset()
	}
	return t.stream.Close()
}

// OnAbort is the stream's, see [proxy.Splice].
func (t *terminated) OnAbort(f func()) (stop func() bool) {
	if s, ok := t.stream.Conn.(interface{ OnAbort(func()) func() bool }); ok {
		return s.OnAbort(f)
	}
	return func() bool { return true }
}

// begun is a connection of which a part was read.
type begun struct {
	net.Conn
	first []byte
	ended bool // the connection's end was read
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		n, err := b.Conn.Read(p)
		b.ended = err == io.EOF
		return n, err
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}
