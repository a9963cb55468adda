package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// attemptTime bounds one attempt: connecting, the upgrade, and the claim.
const attemptTime = 20 * time.Second

// errHandshake says that the upgrade worked and what followed did not.
var errHandshake = errors.New("the connection does not carry the tunnel")

// ErrNotTunnelServer says that something answers at the server's address, and
// that it is no tunnel server: trying again is of no use. It is wrapped beside
// [ErrUnreachable]. A gateway that does not reach its server (502, 503, 504) is
// none of it.
var ErrNotTunnelServer = errors.New("no tunnel server answers there")

// notTunnelServer is an [ErrNotTunnelServer] that says itself what did answer.
type notTunnelServer struct{ error }

func (notTunnelServer) Is(target error) bool { return target == ErrNotTunnelServer }

func (e notTunnelServer) Unwrap() error { return e.error }

// link makes a line's sessions. It remembers which transport worked, and
// what makes the sessions one for the server. One goroutine uses it at a time.
type link struct {
	dialer *transport.Dialer
	source tokenSource // nil: the dialer has the token, or needs none
	budget *mux.Budget // of what the local app has not read
	log    *slog.Logger
	only   transport.Kind // "": whatever works
	prefer transport.Kind // is tried first; "": nothing has worked yet
	last   transport.Kind // what worked last
	id     string         // SESSION
	resume string         // the secret to take over from the session before; "": none

	maxOpened int // streams that are opened on this side of a session; 0: as many as there are ids
}

// connect makes one attempt to get a session with b's name, or, without b, one to reach
// private endpoints by. It is two where the first transport was not let through.
func (l *link) connect(ctx context.Context, b *protocol.Bind) (*session, error) {
	dialer, err := l.source.fresh(ctx, l.dialer)
	if err != nil {
		return nil, err
	}
	l.dialer = dialer
	kinds := l.kinds()
	s, err := l.attempt(ctx, kinds[0], len(kinds), b)
	if err == nil || len(kinds) == 1 || !worthAnother(err) || ctx.Err() != nil {
		if foreign(err) {
			err = notTunnelServer{err}
		}
		return s, err
	}
	l.log.Debug("transport did not pass", "transport", string(kinds[0]), "err", err)
	s, second := l.attempt(ctx, kinds[1], 1, b)
	if second == nil {
		s.rawShut = kinds[0] == transport.Raw && lasts(err)
	}
	if second == nil || !worthAnother(second) {
		return s, second
	}
	both := second
	if err.Error() != second.Error() {
		both = fmt.Errorf("%s: %w; %s: %w", kinds[0], err, kinds[1], second)
	}
	if foreign(err) && foreign(second) {
		both = notTunnelServer{both}
	}
	return s, both
}

// lasts reports whether err, of a transport that did not pass, is likely to come
// again. A server that restarts behind a gateway, or a connection that broke, says
// nothing of the way.
func lasts(err error) bool {
	return foreign(err) || errors.Is(err, errHandshake) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, &protocol.Error{Code: protocol.UpgradeRequired})
}

// foreign reports whether err is the answer of something that is no tunnel
// server, and does not stand before one that is away.
func foreign(err error) bool {
	var upgrade *transport.UpgradeError
	if !errors.As(err, &upgrade) {
		return false
	}
	switch upgrade.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	case 0: // closed, reset or silent; what is left is an answer that is not HTTP
		var network net.Error
		return !errors.Is(err, io.EOF) && !errors.As(err, &network)
	}
	return true
}

// kinds are the transports to try.
func (l *link) kinds() []transport.Kind {
	switch {
	case l.only != "":
		return []transport.Kind{l.only}
	case l.prefer == transport.WebSocket:
		return []transport.Kind{transport.WebSocket, transport.Raw}
	}
	return []transport.Kind{transport.Raw, transport.WebSocket}
}

// remember notes that kind worked. What was preferred loses its place when the
// other one worked twice: a server that restarts behind a proxy may fail
// whichever is tried first.
func (l *link) remember(kind transport.Kind) {
	if l.prefer == "" || l.last == kind {
		l.prefer = kind
	}
	l.last = kind
}

// worthAnother reports whether another transport may get through: something was
// reached that did not upgrade, or the bytes behind the upgrade did not pass.
func worthAnother(err error) bool {
	var upgrade *transport.UpgradeError
	var said *protocol.Error
	if errors.As(err, &said) {
		return said.Code == protocol.UpgradeRequired || said.Code == protocol.ProtocolViolation
	}
	return errors.As(err, &upgrade) || errors.Is(err, errHandshake)
}

// share is how long an attempt may take where that many transports are left to
// try: one on which nothing comes back leaves time for the next.
func share(ctx context.Context, left int) time.Duration {
	limit := attemptTime
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	return limit / time.Duration(left)
}

func (l *link) attempt(ctx context.Context, kind transport.Kind, left int, b *protocol.Bind) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, share(ctx, left))
	defer cancel()
	if l.resume == "" {
		l.id = rand.Text() // an attempt that got lost may have taken the one before
	}
	conn, err := l.dialer.Dial(ctx, kind, l.id)
	if err != nil {
		return nil, err
	}
	s := newSession()
	m, err := mux.Client(conn, mux.Config{Budget: l.budget, MaxOpened: l.maxOpened, Spent: func() { s.drains(errSpent) }})
	if err != nil {
		return nil, err
	}
	s.conduit, s.mux = m, m
	stop := context.AfterFunc(ctx, func() { m.Close() })
	secret, err := s.handshake(ctx, &protocol.Hello{Versions: []int{protocol.Version}, Agent: l.dialer.Agent, Resume: l.resume, Connect: b == nil}, b)
	if !stop() {
		err = fmt.Errorf("no answer so far: %w", ctx.Err())
	}
	if secret != "" {
		l.resume = secret
	}
	if err != nil {
		m.Close()
		if s.control != nil {
			s.control.Close()
		}
		return nil, l.failed(err)
	}
	l.remember(kind)
	s.kind = kind
	go s.readControl()
	return s, nil
}

// failed makes err, of a handshake, one that worthAnother and fatal understand.
func (l *link) failed(err error) error {
	var said *protocol.Error
	switch {
	case errors.Is(err, &protocol.Error{Code: protocol.SessionTaken}):
		// The answer that had the secret got lost. Names are not lost with it: they
		// are claimed after it has come.
		l.resume = ""
		return err
	case errors.As(err, &said), errors.Is(err, context.Canceled):
		return err
	}
	return fmt.Errorf("%w: %w", errHandshake, err)
}

// fatal reports whether trying again makes no sense: the server said no, for a
// reason that does not pass by itself.
func fatal(err error) bool {
	var config *ConfigError
	var refused *transport.Refused
	var said *protocol.Error
	switch {
	case errors.As(err, &config):
		return true
	case errors.As(err, &refused) && (refused.Status == http.StatusTooManyRequests || refused.Status >= 500):
		return false
	case !errors.As(err, &said):
		return false
	}
	switch said.Code {
	case protocol.Draining, protocol.TooManySessions, protocol.Overloaded, protocol.DomainUnverified,
		protocol.SessionTaken, protocol.SessionFenced, protocol.SessionLost,
		protocol.UpgradeRequired: // a matter of the network that the client is in
		return false
	}
	return true
}
