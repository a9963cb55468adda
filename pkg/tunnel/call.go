package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// errNotCarried says that a session takes no more connections, and another one may.
var errNotCarried = errors.New("the session takes no more connections")

// calls are a session's requests for private endpoints.
type calls struct {
	once      sync.Once
	transport proxy.Transport
}

// call asks for a connection to the private endpoint name, or, of kind UDP, for a stream
// of capsules.
func (c *calls) call(ctx context.Context, m mux.Session, kind protocol.Kind, name string) (rawConn, error) {
	c.once.Do(func() {
		c.transport.Connect = true
		c.transport.Dial = func(ctx context.Context) (net.Conn, error) { return m.Open(ctx) }
	})
	req, want := request(kind, name)
	res, err := c.transport.RoundTrip(req.WithContext(ctx))
	switch {
	case errors.Is(err, mux.ErrReset):
		return nil, &protocol.Error{Code: protocol.Overloaded} // beyond what the server counts
	case errors.Is(err, mux.ErrClosed), errors.Is(err, mux.ErrExhausted):
		return nil, fmt.Errorf("%w: %w", errNotCarried, err)
	case err != nil:
		return nil, err
	}
	if stream, ok := res.Body.(rawConn); ok && res.StatusCode == want {
		return stream, nil
	}
	res.Body.Close()
	switch code := protocol.Code(res.Header.Get(protocol.HeaderError)); {
	case code == protocol.Draining:
		return nil, errNotCarried
	case code == protocol.BadRequest && kind == protocol.KindUDP:
		return nil, &protocol.Error{Code: protocol.KindUnsupported} // it knows CONNECT alone
	case code != "":
		return nil, &protocol.Error{Code: code}
	}
	return nil, fmt.Errorf("the server answered %s with status %d", req.Method, res.StatusCode)
}

// request is what asks for an endpoint, and the status that says yes.
func request(kind protocol.Kind, name string) (req *http.Request, want int) {
	if kind == protocol.KindUDP {
		return &http.Request{Method: http.MethodGet, RequestURI: protocol.PathUDP + name + "/0/", Host: name, Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {protocol.UpgradeUDP}, "Capsule-Protocol": {"?1"},
		}}, http.StatusSwitchingProtocols
	}
	return &http.Request{Method: http.MethodConnect, RequestURI: name, Host: name, Header: http.Header{}}, http.StatusOK
}

// reasonOf is what a refused connection says of a code.
func reasonOf(kind protocol.Kind, code protocol.Code) (cause, hint string) {
	udp := kind == protocol.KindUDP
	switch code {
	case protocol.NameUnknown:
		return "no client of this token has claimed it", "start one: tunnel-client " + string(kind) + " TARGET --private --name NAME, with the same token"
	case protocol.WrongKind:
		if udp {
			return "it is not of kind udp", "connect to it without --udp"
		}
		return "it is of kind udp", "use tunnel-client connect NAME --udp"
	case protocol.KindUnsupported:
		return "this server has no private endpoints of kind " + string(kind), "its operator may want a newer tunnel-server"
	case protocol.AppRefused:
		if udp {
			return "its client cannot send to its target", "correct the target of its client"
		}
		return "nothing accepts connections at its target", "start the app there, or correct the target of its client"
	case protocol.ClientOffline:
		return "its client lost its connection and is not back yet", "look whether it runs and reaches the server"
	case protocol.SessionLost:
		return "its client's connection broke", "try again"
	case protocol.AppTimeout:
		return "its app does not answer", "look what the app waits for"
	case protocol.AppBadResponse:
		return "its client gave no valid answer", "look into that client's log"
	case protocol.Overloaded:
		return "the server, or one of the clients, has as much under way as it may", "try again in a moment"
	case protocol.Forbidden:
		return "the token may not reach it", "ask the server's operator for the right"
	case protocol.TokenRevoked:
		return "the token of this session was taken away", "ask the server's operator for a new one"
	}
	return "it was refused", ""
}

// callError is what Dial returns.
func callError(ctx context.Context, kind protocol.Kind, name string, err error) error {
	var said *protocol.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &said):
		cause, hint := reasonOf(kind, said.Code)
		return &protocol.Error{Code: said.Code, Message: "private:" + name + ": " + cause, Hint: hint}
	}
	return fmt.Errorf("private:%s: %w", name, err)
}

// rawConn is what a stream can do once it is handed over.
type rawConn interface {
	net.Conn
	CloseWrite() error
	Reset() error
}

// conn is a connection to a private endpoint.
type conn struct {
	rawConn
	remote  net.Addr
	release func() // once
}

// RemoteAddr is "private:" and the endpoint's name.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Close() error {
	defer c.release()
	return c.rawConn.Close()
}

// OnAbort has f called when the connection is aborted, by the other side or with the
// session, until stop is called; stop reports whether it came before that.
func (c *conn) OnAbort(f func()) (stop func() bool) {
	if s, ok := c.rawConn.(interface{ OnAbort(func()) func() bool }); ok {
		return s.OnAbort(f)
	}
	return func() bool { return false }
}

// Reset ends the connection so that the other side sees an error.
func (c *conn) Reset() error {
	defer c.release()
	return c.rawConn.Reset()
}
