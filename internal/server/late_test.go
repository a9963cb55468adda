package server_test

import (
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// fickle lets everyone in, until it lets nobody stay.
type fickle struct {
	auth.Anonymous
	revoked atomic.Bool
}

func (f *fickle) Valid(auth.Identity) bool { return !f.revoked.Load() }

// R41: a token that is revoked between a client's upgrade and its hello leaves no
// session behind, though there was none to end.
func TestRevokedBeforeHello(t *testing.T) {
	a := &fickle{}
	n := start(t, server.Config{Auth: a})
	c, err := n.dial("", "a-token")
	if err != nil {
		t.Fatal(err)
	}
	a.revoked.Store(true)
	c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}}})
	if m := c.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.TokenRevoked {
		t.Errorf("got %+v, want bye with token_revoked", m)
	}
}

// S10: a client that asks to drain again and again costs what one does.
func TestDrainFlood(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "", "")
	c.must(c.bind("demo"))
	arrived, rest := make(chan struct{}), make(chan struct{})
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-rest
		io.WriteString(w, "done")
	}))
	answered := make(chan string, 1)
	go func() {
		_, body := n.get("demo.localhost", "/")
		answered <- body
	}()
	<-arrived
	before := runtime.NumGoroutine()
	for range 1000 {
		c.send(&protocol.Message{Drain: &protocol.Drain{}})
	}
	// Its answer says that the messages before it were read.
	if b := c.bind("other"); b.Error == nil {
		t.Error("a draining session got a name")
	}
	if more := runtime.NumGoroutine() - before; more > 100 {
		t.Errorf("%d goroutines more", more)
	}
	close(rest)
	if got := <-answered; got != "done" {
		t.Errorf("got %q", got)
	}
	if m := c.read(); m.Drained == nil {
		t.Errorf("got %+v, want drained", m)
	}
}

// A client hears that the server goes before the session ends, also where nothing
// is under way that would hold the end up.
func TestDrainComesBeforeBye(t *testing.T) {
	for range 20 {
		n := start(t, server.Config{})
		c := n.connect("", "", "")
		n.stop()
		if m := c.read(); m.Drain == nil {
			t.Fatalf("got %+v, want drain", m)
		}
		if m := c.read(); m.Bye == nil {
			t.Fatalf("got %+v, want bye", m)
		}
		c.mux.Close()
	}
}
