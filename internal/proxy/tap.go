package proxy

import (
	"errors"
	"net"
	"syscall"
)

// Tap is a connection of which somebody else sees what passes. It is to [Splice] what
// Conn is: ends, aborts and what tells of them are Conn's.
type Tap struct {
	net.Conn
	// Came gets what was read, and Goes what is just about to be written, so that an
	// answer is seen before what the peer says to it. Both are called on the goroutine
	// that reads or writes, and may not keep or change the bytes.
	Came, Goes func([]byte)
}

func (t *Tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.Came(p[:n])
	}
	return n, err
}

func (t *Tap) Write(p []byte) (int, error) {
	t.Goes(p)
	return t.Conn.Write(p)
}

// CloseWrite ends the writing side, or all of a connection that has no halves.
func (t *Tap) CloseWrite() error { return closeWrite(t.Conn) }

// Reset ends the connection so that the peer sees an error.
func (t *Tap) Reset() error {
	abort(t.Conn)
	return nil
}

// OnAbort passes on what the connection has, see [Splice].
func (t *Tap) OnAbort(f func()) (stop func() bool) { return onAbort(t.Conn, f) }

// SetLinger is that of a TCP connection, also of one below TLS; of others it means nothing.
func (t *Tap) SetLinger(seconds int) error {
	setLinger(t.Conn, seconds)
	return nil
}

// SyscallConn is that of the connection, so that a reset is told from an end.
func (t *Tap) SyscallConn() (syscall.RawConn, error) {
	if c, ok := t.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
