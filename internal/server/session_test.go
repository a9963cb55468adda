package server_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

func TestSeveralNames(t *testing.T) {
	n := start(t, server.Config{MaxNames: 2})
	c := n.connect("", "", "")
	c.serve("route:")
	c.must(c.bind("one"))
	if _, body := n.get("one.localhost", "/"); body != "route:" {
		t.Errorf("with one name: %q, want no Tunnel-Route", body)
	}
	c.must(c.bind("two"))
	for _, name := range []string{"one", "two"} {
		if _, body := n.get(name+".localhost", "/"); body != "route:"+name {
			t.Errorf("%s: %q", name, body)
		}
	}
	if b := c.bind("three"); b.Error == nil || b.Error.Code != protocol.TooManyNames {
		t.Errorf("a third name: %+v", b)
	}
	if b := c.bind("two"); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Errorf("a name twice: %+v", b)
	}
	c.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "two"}})
	c.must(c.bind("three")) // after the unbind, on the same stream
	if res, _ := n.get("two.localhost", "/"); res.StatusCode != 404 {
		t.Errorf("two is still there: %d", res.StatusCode)
	}
}

func TestRandomName(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "", "")
	b := c.must(c.bind(""))
	if protocol.CheckName(b.Name) != nil || b.URL != "http://"+b.Name+".localhost:"+n.addr[len("127.0.0.1:"):] {
		t.Errorf("%+v", b)
	}
}

func TestBindRefusals(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "", "")
	for _, test := range []struct {
		bind protocol.Bind
		want protocol.Code
	}{
		{protocol.Bind{Name: "Upper"}, protocol.NameInvalid},
		{protocol.Bind{Name: "a.b"}, protocol.NameInvalid},
		{protocol.Bind{Name: "ok", Kind: "carrier-pigeon"}, protocol.KindUnsupported},
		{protocol.Bind{Name: "ok", Upstream: &protocol.Upstream{Scheme: "ftp", Host: "x"}}, protocol.ProtocolViolation},
		{protocol.Bind{Name: "ok", Upstream: &protocol.Upstream{Scheme: "http", Host: "x\r\nInjected: 1"}}, protocol.ProtocolViolation},
		{protocol.Bind{Name: "ok", Upstream: &protocol.Upstream{Scheme: "http", Host: "x/path"}}, protocol.ProtocolViolation},
	} {
		c.send(&protocol.Message{Bind: &test.bind})
		if b := c.read().Bound; b == nil || b.Error == nil || b.Error.Code != test.want {
			t.Errorf("%+v: got %+v, want %s", test.bind, b, test.want)
		}
	}
}

// TestOwnName: nobody claims the name that leads to the server itself.
func TestOwnName(t *testing.T) {
	n := start(t, server.Config{Domain: "example.test", PublicURL: &url.URL{Scheme: "https", Host: "Tunnel.example.test"}})
	c := n.connect("", "", "")
	if b := c.bind("tunnel"); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Errorf("%+v", b)
	}
	if b := c.must(c.bind("demo")); b.URL != "https://demo.example.test" {
		t.Errorf("URL %s", b.URL)
	}
}

// TestHeldName: what a dropped client's name does (S15).
func TestHeldName(t *testing.T) {
	n := start(t, server.Config{Hold: time.Hour})
	owner := n.connect("", "owner-token", "")
	owner.must(owner.bind("demo"))
	owner.mux.Close() // without bye: dropped
	stranger := n.connect("", "stranger-token", "")
	poll.Until(t, "the client is away", func() bool {
		res, _ := n.get("demo.localhost", "/")
		return res.Header.Get(protocol.HeaderError) == string(protocol.ClientOffline)
	})
	if b := stranger.bind("demo"); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Fatalf("a stranger has the held name: %+v", b)
	}
	again := n.connect("", "owner-token", "") // another session of the same token
	again.must(again.bind("demo"))
	again.send(&protocol.Message{Bye: &protocol.Bye{}})
	<-again.mux.Done()
	stranger.must(stranger.bind("demo")) // given back, it is free
}

// TestHeldWithoutToken: where no token was shown, the resume secret is the proof.
func TestHeldWithoutToken(t *testing.T) {
	n := start(t, server.Config{Hold: time.Hour})
	owner := n.connect("", "", "")
	owner.must(owner.bind("demo"))
	owner.mux.Close()
	// Who knows the session's id alone, as from a log, is a stranger.
	var thief *client
	poll.Until(t, "the thief has the session", func() bool {
		var err error
		if thief, err = n.dial(owner.id, ""); err != nil {
			return false
		}
		thief.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}}})
		return thief.read().Welcome != nil // and not taken by the old connection any more
	})
	if b := thief.bind("demo"); b.Error == nil || b.Error.Code != protocol.NameTaken {
		t.Fatalf("the thief has the name: %+v", b)
	}
	thief.mux.Close()
	poll.Until(t, "the owner is back", func() bool {
		c, err := n.dial(owner.id, "")
		if err != nil {
			return false
		}
		c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Resume: owner.welcome.Resume}})
		m := c.read()
		return m.Welcome != nil && m.Welcome.Resumed && c.bind("demo").Error == nil
	})
}

// TestResumeFences: a reconnect takes its names from a connection that is not
// known to be dead, and that one's late end changes nothing (R32).
func TestResumeFences(t *testing.T) {
	n := start(t, server.Config{Hold: time.Hour})
	old := n.connect("", "", "")
	old.must(old.bind("demo"))
	next := n.connect(old.id, "", old.welcome.Resume)
	next.serve("next")
	next.must(next.bind("demo"))
	if m := old.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionFenced {
		t.Errorf("the old connection was told %+v", m)
	}
	old.mux.Close()
	if _, body := n.get("demo.localhost", "/"); body != "next" {
		t.Errorf("after the old one's end: %q", body)
	}
}

func TestSessionTaken(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "token-of-one", "")
	other := "A"
	if c.welcome.Resume[20] == 'A' {
		other = "B"
	}
	for _, resume := range []string{"", "AAAA", c.welcome.Resume[:20] + other + c.welcome.Resume[21:]} {
		thief, err := n.dial(c.id, "token-of-one")
		if err != nil {
			t.Fatal(err)
		}
		thief.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Resume: resume}})
		if m := thief.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionTaken {
			t.Errorf("resume %q: %+v", resume, m)
		}
	}
	// The right secret with another token is not the same client.
	thief, err := n.dial(c.id, "token-of-two")
	if err != nil {
		t.Fatal(err)
	}
	thief.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}, Resume: c.welcome.Resume}})
	if m := thief.read(); m.Welcome != nil {
		t.Error("another identity resumed the session")
	}
	c.must(c.bind("alive"))
}

func TestViolationsEndTheSession(t *testing.T) {
	n := start(t, server.Config{})
	neighbour := n.connect("", "", "")
	for name, act := range map[string]func(*client){
		"no hello":    func(c *client) { c.send(&protocol.Message{Bind: &protocol.Bind{}}) },
		"garbage":     func(c *client) { c.control.Write([]byte("\x00\x00\x00\x04oops")) },
		"huge length": func(c *client) { c.control.Write([]byte{0xff, 0xff, 0xff, 0xff}) },
		"version": func(c *client) {
			c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{99}}})
			if m := c.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.VersionUnsupported {
				t.Errorf("version: %+v", m)
			}
		},
		"second stream": func(c *client) {
			c.send(&protocol.Message{Hello: &protocol.Hello{Versions: []int{protocol.Version}}})
			c.read()
			s, err := c.mux.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte("CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n"))
		},
	} {
		c, err := n.dial("", "")
		if err != nil {
			t.Fatal(err)
		}
		act(c)
		select {
		case <-c.mux.Done():
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the session lives", name)
		}
	}
	// Unknown messages are a newer client's, and neighbours are unharmed.
	neighbour.control.Write([]byte("\x00\x00\x00\x0f{\"dance\":[1,2]}"))
	neighbour.must(neighbour.bind("neighbour"))
}

func TestRevokedToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	n := start(t, server.Config{Hold: time.Hour, Auth: tokens(t, path, "first-token\nother-token\n")})
	revoked, kept := n.connect("", "first-token", ""), n.connect("", "other-token", "")
	revoked.must(revoked.bind("demo"))
	if err := os.WriteFile(path, []byte("other-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m := revoked.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.TokenRevoked {
		t.Errorf("told %+v", m)
	}
	kept.must(kept.bind("demo")) // a revoked token holds nothing
}

// TestClientDrain: drained comes when the visitors have their answers, and no
// request after it.
func TestClientDrain(t *testing.T) {
	n := start(t, server.Config{})
	c := n.connect("", "", "")
	c.must(c.bind("demo"))
	entered, leave := make(chan bool), make(chan bool)
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- true
			<-leave
		}
		io.WriteString(w, "done")
	}))
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, body := n.get("demo.localhost", "/wait"); body != "done" {
			t.Errorf("the request under way got %q", body)
		}
	})
	<-entered
	c.send(&protocol.Message{Drain: &protocol.Drain{}})
	poll.Until(t, "the name is free", func() bool { res, _ := n.get("demo.localhost", "/"); return res.StatusCode == 404 })
	c.control.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if m, err := protocol.Read(c.control); err == nil {
		t.Errorf("drained too early: %+v", m)
	}
	close(leave)
	if m := c.read(); m.Drained == nil {
		t.Errorf("got %+v, want drained", m)
	}
	wait.Wait()
}

// TestServerDrain: what is under way finishes, no session is taken, and the
// clients are told (R6).
func TestServerDrain(t *testing.T) {
	n := start(t, server.Config{Grace: time.Minute})
	c := n.connect("", "", "")
	c.must(c.bind("demo"))
	entered, leave := make(chan bool), make(chan bool)
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		<-leave
		io.WriteString(w, "done")
	}))
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, body := n.get("demo.localhost", "/"); body != "done" {
			t.Errorf("the request under way got %q", body)
		}
	})
	<-entered
	n.stop()
	if m := c.read(); m.Drain == nil {
		t.Errorf("the client was told %+v", m)
	}
	if _, err := n.dial("", ""); err == nil {
		t.Error("a draining server took a session")
	}
	close(leave)
	wait.Wait()
	if m := c.read(); m.Bye == nil {
		t.Errorf("at the end the client was told %+v", m)
	}
}

// TestGraceOver: a stream that does not end is cut where its reader sees it.
func TestGraceOver(t *testing.T) {
	n := start(t, server.Config{Grace: 20 * time.Millisecond})
	c := n.connect("", "", "")
	c.must(c.bind("demo"))
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	req, _ := http.NewRequest("GET", "http://"+n.addr, nil)
	req.Host = "demo.localhost"
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n.stop()
	if b, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ended with %v after %q", err, b)
	}
}

// TestLostName: a client that was silent and lost its name to another of the
// same token is told, so that it does not serve nothing for ever.
func TestLostName(t *testing.T) {
	n := start(t, server.Config{Registry: &registry.Memory{Probe: 50 * time.Millisecond}})
	frozen := n.connect("", "some-token", "")
	frozen.must(frozen.bind("demo"))
	frozen.gate.open.Lock()
	next := n.connect("", "some-token", "")
	next.must(next.bind("demo"))
	frozen.gate.open.Unlock()
	if m := frozen.read(); m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionFenced {
		t.Errorf("told %+v", m)
	}
}
