package rig

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// testPath is a path to a listener, and a connection through it with both its ends.
func testPath(t *testing.T) (p *Path, visitor, app *net.TCPConn) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	p = NewPath(target.Addr().String(), time.Millisecond, 100_000_000)
	t.Cleanup(p.Close)
	l, err := p.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go p.Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{c, d} {
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
			t.Fatal(err)
		}
	}
	return p, c.(*net.TCPConn), d.(*net.TCPConn)
}

func TestPathCarriesBothWays(t *testing.T) {
	_, visitor, app := testPath(t)
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i * i >> 8)
	}
	go func() {
		visitor.Write(sent)
		visitor.CloseWrite()
	}()
	got, err := io.ReadAll(app)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("there: %d bytes of %d, the same %v, error %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
	go func() {
		app.Write(sent)
		app.CloseWrite()
	}()
	got, err = io.ReadAll(visitor)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("back, after the half-close: %d bytes of %d, error %v", len(got), len(sent), err)
	}
}

func TestPathPassesAResetOn(t *testing.T) {
	_, visitor, app := testPath(t)
	if err := visitor.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	visitor.Close()
	if n, err := app.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after a reset the other end reads %d bytes, %v", n, err)
	}
}
