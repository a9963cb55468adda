package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/revtun/tunnel/pkg/protocol"
)

// acceptWebSocket is the server's end of [WebSocket]. Errors are as for
// [Accept].
func acceptWebSocket(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if !hasToken(r.Header, "Sec-Websocket-Protocol", protocol.Upgrade) {
		return nil, &protocol.Error{
			Code:    protocol.VersionUnsupported,
			Message: "this WebSocket offers no protocol that is spoken here",
			Hint:    "send Sec-WebSocket-Protocol: " + protocol.Upgrade,
		}
	}
	h := &hijacker{w: w, header: make(http.Header)}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		Subprotocols:       []string{protocol.Upgrade},
		CompressionMode:    websocket.CompressionDisabled,
		InsecureSkipVerify: true, // whatever has an Origin was refused
	})
	switch {
	case h.err != nil:
		return nil, h.err
	case err != nil:
		return nil, violation(err.Error()) // RFC 6455, section 4.2.1
	}
	return newWebSocketConn(ws, h.conn), nil
}

// hijacker gives package websocket the connection, and nothing of w to write
// to: to refuse is the caller's.
type hijacker struct {
	w      http.ResponseWriter
	header http.Header
	conn   *gatherer
	err    error
}

func (h *hijacker) Header() http.Header         { return h.header }
func (h *hijacker) WriteHeader(int)             {}
func (h *hijacker) Write(p []byte) (int, error) { return len(p), nil }

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, err := takeOver(h.w, h.header)
	if err != nil {
		h.err = err
		return nil, nil, err
	}
	h.conn = &gatherer{Conn: conn}
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// dialWebSocket is the client's end of [WebSocket]. Errors are those of
// [Dialer.Dial].
func dialWebSocket(x *exchange, req *http.Request) (net.Conn, error) {
	ws, _, err := websocket.Dial(req.Context(), req.URL.String(), &websocket.DialOptions{
		HTTPClient:      &http.Client{Transport: x},
		HTTPHeader:      req.Header,
		Subprotocols:    []string{protocol.Upgrade},
		CompressionMode: websocket.CompressionDisabled,
	})
	switch {
	case x.err != nil:
		return nil, x.err
	case err != nil:
		// The error quotes the peer, in part as it came.
		return nil, x.broken(http.StatusSwitchingProtocols, errors.New(printable(err.Error())))
	case ws.Subprotocol() != protocol.Upgrade:
		_ = ws.CloseNow()
		return nil, x.broken(http.StatusSwitchingProtocols,
			fmt.Errorf("it opened a WebSocket, but not for %s: this is not a tunnel server", protocol.Upgrade))
	}
	x.body.open = true
	return newWebSocketConn(ws, &x.body.gatherer), nil
}

// webSocketConn is the byte stream in the binary messages of a WebSocket; each
// Write is one message. It differs from websocket.NetConn in three things:
// addresses and deadlines are those of the socket; Close is immediate and waits
// for no closing handshake with a peer that may be dead; and reading and
// writing arm no timers.
//
// A deadline that passes during a Read or Write leaves half a frame behind: it
// ends that direction for good.
type webSocketConn struct {
	net.Conn // of which Read, Write and Close are not used
	ws       *websocket.Conn
	out      *gatherer // writes to Conn

	writing sync.Mutex // held by Write

	readMu  sync.Mutex // guards the following fields
	message io.Reader  // what is left of a message; nil between two
	readErr error
}

func newWebSocketConn(ws *websocket.Conn, out *gatherer) *webSocketConn {
	// A message is read piece by piece and never held, so its size is free.
	ws.SetReadLimit(-1)
	return &webSocketConn{Conn: out.Conn, ws: ws, out: out}
}

// Read returns io.EOF where the peer has closed, with or without a closing
// handshake.
func (c *webSocketConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for c.readErr == nil {
		n, err := c.read(p)
		if err != nil {
			c.readErr = readError(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.readErr
}

// read returns 0 and no error at the end of a message. The caller holds readMu.
func (c *webSocketConn) read(p []byte) (int, error) {
	if c.message == nil {
		kind, message, err := c.ws.Reader(context.Background())
		if err != nil {
			return 0, err
		}
		if kind != websocket.MessageBinary {
			return 0, errors.New("a message is not binary")
		}
		c.message = message
	}
	n, err := c.message.Read(p)
	switch {
	case err == io.EOF:
		c.message, err = nil, nil
	case err != nil:
		n = 0 // package websocket hands out the start of a frame that was cut off as it came: masked
	}
	return n, err
}

func readError(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway:
		return io.EOF
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("websocket: %w", err)
}

func (c *webSocketConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out.gather()
	err := errors.Join(c.ws.Write(context.Background(), websocket.MessageBinary, p), c.out.flush())
	if err != nil {
		return 0, fmt.Errorf("websocket: %w", err)
	}
	return len(p), nil
}

// Close closes the connection at once.
func (c *webSocketConn) Close() error { return c.ws.CloseNow() }

// NetConn returns the socket, for its options only.
func (c *webSocketConn) NetConn() net.Conn { return c.Conn }
