package mux

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A peer that was given up learns it from a reset, which overtakes what it has not
// acknowledged (R8). It may be under TLS and the like, which tell what is below.
func TestSilentPeerIsReset(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if wrapped {
			conn = outer{Conn: conn, below: conn}
		}
		s, err := Server(conn, Config{DeadAfter: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), ErrSilent) {
			t.Fatal(s.Err())
		}
		peer.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, peer); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("wrapped %v: the peer reads %v, want a reset", wrapped, err)
		}
	}
}

type outer struct {
	net.Conn
	below net.Conn
}

func (o outer) NetConn() net.Conn { return o.below }
