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

// calls are a session's CONNECT requests.
type calls struct {
	once      sync.Once
	transport proxy.Transport
}

// call asks for a connection to the private endpoint name.
func (c *calls) call(ctx context.Context, m mux.Session, name string) (rawConn, error) {
	c.once.Do(func() {
		c.transport.Connect = true
		c.transport.Dial = func(ctx context.Context) (net.Conn, error) { return m.Open(ctx) }
	})
	req := &http.Request{Method: http.MethodConnect, RequestURI: name, Host: name, Header: http.Header{}}
	res, err := c.transport.RoundTrip(req.WithContext(ctx))
	switch {
	case errors.Is(err, mux.ErrReset):
		return nil, &protocol.Error{Code: protocol.Overloaded} // beyond what the server counts
	case errors.Is(err, mux.ErrClosed), errors.Is(err, mux.ErrExhausted):
		return nil, fmt.Errorf("%w: %w", errNotCarried, err)
	case err != nil:
		return nil, err
	}
	if stream, ok := res.Body.(rawConn); ok && res.StatusCode == http.StatusOK {
		return stream, nil
	}
	res.Body.Close()
	switch code := protocol.Code(res.Header.Get(protocol.HeaderError)); code {
	case "":
	case protocol.Draining:
		return nil, errNotCarried
	default:
		return nil, &protocol.Error{Code: code}
	}
	return nil, fmt.Errorf("the server answered CONNECT with status %d", res.StatusCode)
}

// reasonOf is what a refused connection says of a code.
func reasonOf(code protocol.Code) (cause, hint string) {
	switch code {
	case protocol.NameUnknown:
		return "no client of this token has claimed it", "start one: tunnel-client tcp TARGET --private --name NAME, with the same token"
	case protocol.ClientOffline:
		return "its client lost its connection and is not back yet", "look whether it runs and reaches the server"
	case protocol.SessionLost:
		return "its client's connection broke", "try again"
	case protocol.AppRefused:
		return "nothing accepts connections at its target", "start the app there, or correct the target of its client"
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
func callError(ctx context.Context, name string, err error) error {
	var said *protocol.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &said):
		cause, hint := reasonOf(said.Code)
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
