package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/revtun/tunnel/internal/pace"
)

const (
	// h3Requests is how many may be under way on a connection, as net/http has it for
	// HTTP/2; h3Streams those that carry no request, of which HTTP/3 needs three.
	h3Requests, h3Streams = 250, 8
	// h3Begin and h3Window are what one visitor may send that nobody has read, in bytes,
	// at first and at most; all of a connection's streams together have the same.
	h3Begin, h3Window = 256 << 10, 1 << 20
	// h3Alive is how often a silent visitor is asked whether it is there, so that a
	// request may take long, and h3Gone when it is not: as for clients (R8).
	h3Alive, h3Gone = 15 * time.Second, 45 * time.Second
	// h3Linger is how long a connection that was told nothing of its end stays after its
	// last answer, so that this one arrives.
	h3Linger = 2 * time.Second
	// h3Strangers is how many handshakes a second may begin from addresses that have
	// not shown that they are theirs. More are told to (RFC 9000, section 8.1.2), which
	// costs them a round trip, and keeps who forges addresses from costing us more: each
	// holds about 40 kB for Limits.HeaderTimeout (S6).
	h3Strangers = 50
)

// HTTP3 serves HTTP/3 (RFC 9114) with an [HTTP]. Make it with [HTTP.HTTP3].
type HTTP3 struct {
	h         *HTTP
	limits    Limits
	server    *http3.Server
	transport *quic.Transport
	listener  *quic.Listener

	accepting context.Context // ends when no connection is taken any more
	stop      context.CancelFunc
	running   sync.WaitGroup // connections

	mu        sync.Mutex // guards the following fields
	conns     map[*quic.Conn]struct{}
	strangers ration
}

// HTTP3 listens on conn, which is the HTTP3's to close from then on, also where it
// fails. The limits are those of [HTTP.Server], and hold for each request: what is
// not whole within Limits.HeaderTimeout is cut, and so is a connection without a
// first request. There is no 0-RTT, as whoever records it could send it again.
func (h *HTTP) HTTP3(conn net.PacketConn, getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), limits Limits) (*HTTP3, error) {
	q := &HTTP3{h: h, limits: limits, conns: make(map[*quic.Conn]struct{})}
	q.strangers.left = h3Strangers
	q.accepting, q.stop = context.WithCancel(context.Background())
	q.server = &http3.Server{Handler: http.HandlerFunc(q.serve), IdleTimeout: limits.IdleTimeout}
	q.server.Logger = slog.New(serious{h.log().Handler()})
	if h.MaxHeader > 0 {
		// It counts 32 bytes more of each field; well above our own limits, as for Server.
		q.server.MaxHeaderBytes = 4*h.MaxHeader + 2*h.MaxURI
	}
	q.transport = &quic.Transport{
		Conn: conn, VerifySourceAddress: q.verify,
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if h.Gate != nil && h.Gate.Memory.Level() >= pace.Tight {
				return nil, errShed
			}
			return ctx, nil
		},
	}
	config := http3.ConfigureTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: getCertificate})
	listener, err := q.transport.Listen(config, &quic.Config{
		HandshakeIdleTimeout: limits.HeaderTimeout / 2, // it ends after twice that
		MaxIdleTimeout:       h3Gone, KeepAlivePeriod: h3Alive,
		InitialStreamReceiveWindow: h3Begin, MaxStreamReceiveWindow: h3Window,
		InitialConnectionReceiveWindow: h3Begin, MaxConnectionReceiveWindow: h3Window,
		MaxIncomingStreams: h3Requests, MaxIncomingUniStreams: h3Streams,
	})
	if err != nil {
		q.stop()
		conn.Close()
		return nil, err
	}
	q.listener = listener
	if h.Gate != nil {
		h.Gate.also(q)
	}
	return q, nil
}

// Serve takes connections until Shutdown or Close, and returns
// [http.ErrServerClosed] then.
func (q *HTTP3) Serve() error {
	for {
		conn, err := q.listener.Accept(q.accepting)
		if err != nil {
			if q.accepting.Err() != nil || errors.Is(err, quic.ErrServerClosed) {
				return http.ErrServerClosed
			}
			return err
		}
		if !q.add(conn) {
			conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
	}
}

// add serves conn, unless it is too late to.
func (q *HTTP3) add(conn *quic.Conn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.accepting.Err() != nil {
		return false
	}
	q.conns[conn] = struct{}{}
	q.running.Go(func() {
		q.serveConn(conn)
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.conns, conn)
	})
	return true
}

// verify is [quic.Transport.VerifySourceAddress].
func (q *HTTP3) verify(net.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.strangers.then.IsZero() {
		q.strangers.then = now
	}
	earned := now.Sub(q.strangers.then).Seconds() * h3Strangers
	q.strangers.then = now
	q.strangers.left = min(q.strangers.left+earned, h3Strangers)
	if q.strangers.left < 1 {
		return true
	}
	q.strangers.left--
	return false
}

// shed is for the Gate: it cuts off one of so many connections, and says how many
// that were.
func (q *HTTP3) shed(part int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := (len(q.conns) + part - 1) / part
	left := n
	for conn := range q.conns {
		if left--; left < 0 {
			break
		}
		delete(q.conns, conn)
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
	}
	return n
}

// Shutdown takes no more connections and requests, and waits until what is under
// way is done, or ctx ends. Then it is like Close. The error is ctx's.
func (q *HTTP3) Shutdown(ctx context.Context) error {
	q.end()
	done := make(chan struct{})
	go func() { q.running.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	q.Close()
	<-done
	return err
}

// Close ends everything, and waits for it.
func (q *HTTP3) Close() error {
	q.end()
	q.mu.Lock()
	for conn := range q.conns {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
	}
	q.mu.Unlock()
	q.running.Wait()
	return errors.Join(q.transport.Close(), q.transport.Conn.Close())
}

// end takes no more connections.
func (q *HTTP3) end() {
	q.mu.Lock()
	q.stop()
	q.mu.Unlock()
	q.listener.Close()
}

// serious leaves out what quic-go says of each request: a query may carry secrets.
type serious struct{ slog.Handler }

func (s serious) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && s.Handler.Enabled(ctx, level)
}
