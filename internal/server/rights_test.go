package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// two is a server with two tenants.
func two(t *testing.T, c server.Config) *node {
	t.Helper()
	c.Auth = tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\ntoken-of-bob\n")
	return start(t, c)
}

// hello says hello with a secret, and returns the answer.
func (c *client) hello(resume string) *protocol.Message {
	c.t.Helper()
	c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Resume: resume}})
	return c.read()
}

// tried is what ann was told of what is bob's.
type tried struct{ seen []any }

// refused has ann claim name, and returns an error unless she is told that another has it.
func (v *tried) refused(ann *client, name string) error {
	b := ann.bind(name)
	v.seen = append(v.seen, b)
	if b.Error == nil || b.Error.Code != protocol.NameTaken || b.URL != "" {
		return fmt.Errorf("bind %s: %+v", name, b)
	}
	return nil
}

// operations are all that ann may try, each to be refused.
func (v *tried) operations() map[string]func(ann *client) error {
	after := func(m *protocol.Message, name string) func(ann *client) error {
		return func(ann *client) error {
			ann.send(m)
			return v.refused(ann, name) // and what m asks for is done
		}
	}
	ends := func(m *protocol.Message) func(ann *client) error {
		return func(ann *client) error {
			ann.send(m)
			ann.read()
			return nil
		}
	}
	return map[string]func(ann *client) error{
		"claim":          func(ann *client) error { return v.refused(ann, "bobs") },
		"claim the held": func(ann *client) error { return v.refused(ann, "bobs-held") },
		"claim it beside her own": func(ann *client) error {
			ann.must(ann.bind("anns"))
			return v.refused(ann, "bobs-other")
		},
		"unbind":           after(&protocol.Message{Unbind: &protocol.Unbind{Name: "bobs-other"}}, "bobs"),
		"unbind the held":  after(&protocol.Message{Unbind: &protocol.Unbind{Name: "bobs-held"}}, "bobs-held"),
		"unbind and claim": after(&protocol.Message{Unbind: &protocol.Unbind{Name: "bobs"}}, "bobs"),
		"drain":            ends(&protocol.Message{Drain: &protocol.Drain{}}),
		"bye":              ends(&protocol.Message{Bye: &protocol.Bye{}}),
		"open a stream to it": func(ann *client) error {
			if s, err := ann.mux.Open(ann.t.Context()); err == nil {
				io.WriteString(s, "CONNECT bobs HTTP/1.1\r\nHost: bobs\r\n\r\n")
			}
			if m := ann.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.ProtocolViolation {
				return fmt.Errorf("told %+v", m)
			}
			return nil
		},
	}
}

// takeSession has ann say that bob's session is hers.
func (v *tried) takeSession(n *node, id, resume string) error {
	ann, err := n.dial(id, "token-of-ann")
	if err != nil {
		return err
	}
	m := ann.hello(resume)
	v.seen = append(v.seen, m)
	if m.Welcome != nil || m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionTaken {
		return fmt.Errorf("told %+v", m)
	}
	return nil
}

// takeDropped has ann use the id of a session of bob's that is gone, which is free, and
// its secret, which gives her nothing.
func (v *tried) takeDropped(n *node, dropped *client) error {
	gone, err := n.dial(dropped.id, "token-of-ann")
	if err != nil {
		return err
	}
	if m := gone.hello(dropped.welcome.Resume); m.Welcome == nil || m.Welcome.Resumed {
		return fmt.Errorf("told %+v", m)
	}
	return v.refused(gone, "bobs-held")
}

// S11, S13, S16: ann has rights of her own, and tries each operation on what is
// bob's: each time it is refused, bob's route leads to bob, and what she is told
// tells nothing of him.
func TestRights(t *testing.T) {
	n := two(t, server.Config{Hold: time.Hour, Registry: &registry.Memory{Probe: 50 * time.Millisecond}})
	bob := n.connect("", "token-of-bob", "")
	bob.must(bob.bind("bobs"))
	bob.must(bob.bind("bobs-other"))
	bob.serve("bob:")
	dropped := n.connect("", "token-of-bob", "")
	dropped.must(dropped.bind("bobs-held"))
	dropped.mux.Close()
	poll.Until(t, "bob's client is away", func() bool {
		res, _ := n.get("bobs-held.localhost", "/")
		return res.Header.Get(protocol.HeaderError) == string(protocol.ClientOffline)
	})
	var v tried
	for operation, try := range v.operations() {
		for round := range 3 {
			ann := n.connect("", "token-of-ann", "")
			if err := try(ann); err != nil {
				t.Errorf("%s: %v", operation, err)
			}
			ann.mux.Close()
			for _, name := range []string{"bobs", "bobs-other"} {
				if _, body := n.get(name+".localhost", "/"); body != "bob:"+name {
					t.Fatalf("%s, round %d: %s leads to %q", operation, round, name, body)
				}
			}
		}
	}
	for what, resume := range map[string]string{"without a secret": "", "with bob's secret": bob.welcome.Resume} {
		if err := v.takeSession(n, bob.id, resume); err != nil {
			t.Errorf("bob's session %s: %v", what, err)
		}
	}
	if err := v.takeDropped(n, dropped); err != nil {
		t.Errorf("bob's old session with ann's token: %v", err)
	}
	back := n.connect("", "token-of-bob", "")
	back.must(back.bind("bobs-held"))
	said, err := json.Marshal(v.seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, his := range []string{bob.id, dropped.id, "token:", "session:", "127.0.0.1:", "bobs-other-"} {
		if strings.Contains(string(said), his) {
			t.Errorf("ann is told %q: %s", his, said)
		}
	}
}

// S13: what routes is what was authorized, to the letter: no other spelling of a
// name claims it, and the host that was promised leads to it and nothing else.
func TestWhatRoutes(t *testing.T) {
	n := two(t, server.Config{})
	bob := n.connect("", "token-of-bob", "")
	bob.must(bob.bind("bobs"))
	bob.serve("bob")
	ann := n.connect("", "token-of-ann", "")
	for _, name := range []string{
		"BOBS", "Bobs", "bobs.", ".bobs", "bobs ", " bobs", "bobs\x00", "bobs\n", "bobs/", "*", "*.localhost", "bobs.localhost",
		"a.bobs", "bobs:80", "bobs@", "b\u043ebs", "bobs\u3002", "BO\u212AS", "%62obs", "@", ".",
	} {
		if b := ann.bind(name); b.Error == nil {
			t.Errorf("%q is claimed: %+v", name, b)
		}
	}
	b := ann.must(ann.bind("anns"))
	ann.serve("ann")
	promised, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		promised.Host: "ann", "anns.localhost": "ann", "ANNS.LOCALHOST.": "ann", "bobs.localhost": "bob", "Bobs.localhost:99": "bob",
	} {
		if _, body := n.get(host, "/"); body != want {
			t.Errorf("%s leads to %q, want %q", host, body, want)
		}
	}
	for _, host := range []string{"anns", "x.anns.localhost", "anns.localhost.evil.example", "annslocalhost", "anns.bobs.localhost"} {
		if _, body := n.get(host, "/"); body == "ann" || body == "bob" {
			t.Errorf("%s leads to %q", host, body)
		}
	}
}

// S15: a reserved name is nobody's, whoever asks and however often.
func TestReservedName(t *testing.T) {
	n := two(t, server.Config{Domain: "example.test", PublicURL: &url.URL{Scheme: "https", Host: "Tunnel.example.test:8443"}})
	for range 3 {
		for _, token := range []string{"token-of-ann", "token-of-bob"} {
			c := n.connect("", token, "")
			if b := c.bind("tunnel"); b.Error == nil || b.Error.Code != protocol.NameTaken {
				t.Errorf("%+v", b)
			}
			c.must(c.bind("")) // the session is none the worse
			c.mux.Close()
		}
	}
	if res, _ := n.get("tunnel.example.test", "/healthz"); res.StatusCode != 200 {
		t.Errorf("the server's own host: %d", res.StatusCode)
	}
}

// R31: two clients claim one name at once, again and again, and visitors come
// meanwhile: one has it, and it is the one that answers.
func TestClaimRace(t *testing.T) {
	const rounds = 200
	n := two(t, server.Config{})
	clients := map[string]*client{"ann": n.connect("", "token-of-ann", ""), "bob": n.connect("", "token-of-bob", "")}
	for who, c := range clients {
		c.serve(who)
	}
	wins := make(map[string]int)
	for round := range rounds {
		granted := make(map[string]*atomic.Bool)
		var claims sync.WaitGroup
		for who, c := range clients {
			mine := new(atomic.Bool)
			granted[who] = mine
			claims.Go(func() { mine.Store(c.bind("demo").Error == nil) })
		}
		claims.Wait()
		if granted["ann"].Load() == granted["bob"].Load() {
			t.Fatalf("round %d: ann has it: %v, and bob too", round, granted["ann"].Load())
		}
		winner := "ann"
		if granted["bob"].Load() {
			winner = "bob"
		}
		wins[winner]++
		if _, body := n.get("demo.localhost", "/"); body != winner {
			t.Fatalf("round %d: %s has it, and %q answers", round, winner, body)
		}
		// The loser's late word changes nothing: he unbinds what he did not get.
		for who, c := range clients {
			if who != winner {
				c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
				if b := c.bind("demo"); b.Error == nil {
					t.Fatalf("round %d: %s got what %s has", round, who, winner)
				}
			}
		}
		clients[winner].send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
		free := clients[winner].bind("not_a_name") // the unbind is done
		if free.Error == nil {
			t.Fatal("a name that is none was claimed")
		}
	}
	t.Logf("of %d rounds ann won %d and bob %d", rounds, wins["ann"], wins["bob"])
}

// S18: nothing that a client or a visitor says makes the server dial: not what
// the client says of its local app, not a redirect, an absolute target or a field.
func TestServerDialsNothing(t *testing.T) {
	canary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := canary.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			c.Close()
		}
	}()
	at := canary.Addr().String()
	n := start(t, server.Config{})
	c := n.connect("", "", "")
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Name: "demo", Upstream: &protocol.Upstream{Scheme: "http", Host: at}}})
	c.must(c.read().Bound)
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+at+"/")
		w.Header().Set("X-Accel-Redirect", "http://"+at+"/")
		w.Header().Set("Link", "<http://"+at+"/>; rel=preload")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: demo.localhost\r\nX-Forwarded-Host: " + at + "\r\nForwarded: host=\"" + at + "\"\r\nTunnel-Route: " + at + "\r\n",
		"GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\n",
		"GET http://" + at + "/ HTTP/1.1\r\nHost: demo.localhost\r\n",
		"CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n",
		"GET //" + at + "/ HTTP/1.1\r\nHost: demo.localhost\r\n",
		"GET / HTTP/1.1\r\nHost: " + at + "\r\n",
	} {
		v, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(v, head+"Connection: close\r\n\r\n")
		v.SetReadDeadline(time.Now().Add(20 * time.Second))
		if got, err := io.ReadAll(v); err != nil || len(got) == 0 {
			t.Errorf("%.30q: %q, %v", head, got, err)
		}
		v.Close()
	}
	// Who dialled before is in the listener's queue before this one.
	last, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(last) // until it is closed: it was counted
	last.Close()
	canary.Close()
	<-done
	if n := dialled.Load() - 1; n != 0 {
		t.Errorf("the server dialled %d times", n)
	}
}
