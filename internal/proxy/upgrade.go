package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// upgradeOf returns the protocol to which r asks to switch, or "". Upgrades to
// HTTP/2 and TLS are not passed on: what followed would go past every check
// (RFC 9110, section 7.8 lets a server ignore the field).
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor == 0 || !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	var kept []string
	for _, v := range r.Header["Upgrade"] {
		for p := range strings.SplitSeq(v, ",") {
			p = strings.TrimSpace(p)
			name, _, _ := strings.Cut(strings.ToLower(p), "/")
			if p != "" && name != "h2c" && name != "h2" && name != "tls" && name != "http" {
				kept = append(kept, p)
			}
		}
	}
	return strings.Join(kept, ", ")
}

// switchProtocols answers 101 and passes bytes in both directions until both
// have ended, or one broke.
func switchProtocols(w http.ResponseWriter, res *http.Response) error {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		res.Body.Close()
		return errors.New("101 (Switching Protocols) on a transport that cannot switch")
	}
	visitor, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		abort(app)
		return fmt.Errorf("switch protocols: %w", err)
	}
	t := &splice{a: side{ReadWriteCloser: visitor}, b: side{ReadWriteCloser: app}}
	setLinger(visitor, 0) // the end of this process is none of what either side reads once the visitor
	setLinger(app, 0)     // knows that it is through
	head := buffered.Writer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	res.Header.Write(head)
	head.WriteString("\r\n")
	if err := head.Flush(); err != nil {
		t.abort()
		return nil // nobody is left to be told
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	t.run(bytes.Clone(early)) // the buffer is net/http's
	return nil
}

// upgraded is the connection after a 101, with what was read too far.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

func (u *upgraded) Read(p []byte) (int, error) {
	if u.r.Buffered() > 0 {
		return u.r.Read(p)
	}
	return u.Conn.Read(p)
}

func (u *upgraded) CloseWrite() error { return closeWrite(u.Conn) }

// NetConn returns the connection below, for its options.
func (u *upgraded) NetConn() net.Conn { return u.Conn }

// OnAbort passes on what the connection has, see [Splice].
func (u *upgraded) OnAbort(f func()) (stop func() bool) { return onAbort(u.Conn, f) }

// Reset ends the connection so that the peer sees an error.
func (u *upgraded) Reset() error {
	abort(u.Conn)
	return nil
}
