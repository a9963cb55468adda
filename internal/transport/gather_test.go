package transport

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// writes is a connection that remembers what each Write was given.
type writes struct {
	net.Conn
	all []string
	err error
}

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, string(p))
	return len(p), w.err
}

func TestGatherer(t *testing.T) {
	conn := &writes{}
	g := &gatherer{Conn: conn}
	check := func(want ...int) {
		t.Helper()
		if len(conn.all) != len(want) {
			t.Fatalf("%d writes, want %d", len(conn.all), len(want))
		}
		for i, n := range want {
			if len(conn.all[i]) != n {
				t.Errorf("write %d is of %d bytes, want %d", i, len(conn.all[i]), n)
			}
		}
		conn.all = nil
	}
	put := func(n int) {
		t.Helper()
		if k, err := g.Write([]byte(strings.Repeat("x", n))); k != n || err != nil {
			t.Fatalf("wrote %d of %d: %v", k, n, err)
		}
	}
	put(2) // a pong between messages
	check(2)
	g.gather()
	for range 16 {
		put(4 << 10)
	}
	put(14)
	check()
	if err := g.flush(); err != nil {
		t.Fatal(err)
	}
	check(64<<10 + 14)
	if g.buf != nil {
		t.Error("memory is held between messages")
	}
	g.gather()
	put(10)
	put(gathered)
	put(2 * gathered)
	put(20)
	check(10, gathered, 2*gathered)
	g.flush()
	check(20)
	if err := g.flush(); err != nil {
		t.Fatal(err)
	}
	check()

	conn.err = errors.New("gone")
	g.gather()
	put(10)
	if err := g.flush(); err != conn.err {
		t.Errorf("flush: %v, want %v", err, conn.err)
	}
}
