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
	t := &splice{a: visitor, b: app}
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

// Splice passes bytes between a and b in both directions until both have ended, or
// one broke, and closes them. early is what was read of a before. The end of one
// direction is passed on as such, where the other side has CloseWrite (R16), and an
// abort as an abort (R17). Where a has a method OnAbort, as a mux.Stream does, it
// tells of one that no Read would.
func Splice(a, b io.ReadWriteCloser, early []byte) {
	(&splice{a: a, b: b}).run(early)
}

// splice is two connections that are one.
type splice struct{ a, b io.ReadWriteCloser }

// run passes on what came early from a and then the rest.
func (t *splice) run(early []byte) {
	// A visitor that has ended its side, and is gone while the app is silent, is
	// noticed by nothing else.
	if v, ok := t.a.(interface{ OnAbort(func()) func() bool }); ok {
		defer v.OnAbort(t.abort)()
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		t.pass(t.b, io.MultiReader(bytes.NewReader(early), t.a))
	}()
	t.pass(t.a, t.b)
	<-up
	t.a.Close()
	t.b.Close()
}

// pass copies src to dst and passes the end on. An abort stays one (R17):
// neither side may take it for an end.
func (t *splice) pass(dst io.WriteCloser, src io.Reader) {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	// Plain Read and Write: ReadFrom of a TCP connection would splice, but hold
	// a pipe for each idle WebSocket.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
	if err == nil {
		err = closeWrite(dst)
	}
	if err != nil {
		t.abort()
	}
}

func (t *splice) abort() {
	abort(t.b)
	abort(t.a)
}

// closeWrite ends the writing side, or all of a connection that has no halves.
func closeWrite(c io.Closer) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return c.Close()
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

// Reset ends the connection so that the peer sees an error.
func (u *upgraded) Reset() error {
	abort(u.Conn)
	return nil
}
