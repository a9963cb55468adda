package server

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// sleepy is the connection of a client that can be stopped: it takes nothing and
// sends nothing, and the connection stays.
type sleepy struct {
	net.Conn
	stopped atomic.Pointer[chan struct{}]
}

func (c *sleepy) sleep() (wake func()) {
	until := make(chan struct{})
	c.stopped.Store(&until)
	return func() { close(until) }
}

func (c *sleepy) wait() {
	if until := c.stopped.Load(); until != nil {
		<-*until
	}
}

func (c *sleepy) Read(p []byte) (int, error) {
	c.wait()
	n, err := c.Conn.Read(p)
	c.wait()
	return n, err
}

func (c *sleepy) Write(p []byte) (int, error) {
	c.wait()
	return c.Conn.Write(p)
}

// attach is a client of s on a connection in memory, with a name.
func attach(t *testing.T, s *Server, token string) (*sleepy, mux.Stream, mux.Session) {
	t.Helper()
	here, there := net.Pipe()
	id, err := s.c.Auth.Authenticate(token, "session-of-"+token)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.begin("session-of-" + token); e != nil {
		t.Fatal(e)
	}
	one := &session{claimant: claimant{server: s, identity: id, log: s.log}, id: "session-of-" + token}
	go func() {
		defer s.over()
		one.run(there)
	}()
	c := &sleepy{Conn: here}
	m, err := mux.Client(c, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	control, err := m.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tell(t, control, &protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}}})
	return c, control, m
}

// tell sends m and returns the answer.
func tell(t *testing.T, control mux.Stream, m *protocol.Message) *protocol.Message {
	t.Helper()
	if err := protocol.Write(control, m); err != nil {
		t.Fatal(err)
	}
	got, err := protocol.Read(control)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// R9: of a client that is stopped for five minutes visitors hear within 45 s, its
// name is its own until the hold has passed, and a stranger's from then on, also
// when it wakes up. R35: time is the process's own.
func TestSleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hold = time.Minute
		s, err := New(Config{Listen: "127.0.0.1:0", Auth: auth.Anonymous{}, Hold: hold})
		if err != nil {
			t.Fatal(err)
		}
		defer s.listener.Close()
		conn, control, m := attach(t, s, "sleeper-token")
		_, strangers, n := attach(t, s, "stranger-token")
		claim := func(control mux.Stream) *protocol.Error {
			return tell(t, control, &protocol.Message{Bind: &protocol.Bind{Name: "demo"}}).Bound.Error
		}
		if e := claim(control); e != nil {
			t.Fatal(e)
		}
		time.Sleep(time.Minute)
		wake, stopped := conn.sleep(), time.Now()
		online := func() bool {
			_, err := s.c.Registry.Lookup(t.Context(), "demo")
			var offline *registry.OfflineError
			if err != nil && !errors.As(err, &offline) {
				t.Fatalf("after %v: %v", time.Since(stopped), err)
			}
			return err == nil
		}
		for online() {
			if time.Since(stopped) > 45*time.Second {
				t.Fatal("45 s after the client stopped its route is there")
			}
			time.Sleep(time.Second / 10)
		}
		gone := time.Now()
		for claim(strangers) != nil {
			if time.Since(gone) > hold {
				t.Fatal("the hold has passed, and a stranger may not have the name")
			}
			time.Sleep(time.Second / 10)
		}
		if held := time.Since(gone); held < hold-time.Second {
			t.Errorf("a stranger has the name after %v, the hold is %v", held, hold)
		}
		time.Sleep(5*time.Minute - time.Since(stopped))
		wake()
		<-m.Done() // it finds its connection dead
		_, again, o := attach(t, s, "sleeper-token")
		if e := claim(again); e == nil || e.Code != protocol.NameTaken {
			t.Errorf("the sleeper claims what is a stranger's by now: %v", e)
		}
		for _, m := range []mux.Session{n, o} {
			m.Close()
		}
		s.running.Wait()
	})
}
