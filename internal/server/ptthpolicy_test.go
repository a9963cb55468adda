package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// attachShared is attach for visitors that s admits.
func (n *node) attachShared(token, alpn string, s *protocol.Share, app http.Handler, names ...string) *origin {
	n.t.Helper()
	return n.attachBy(app, names, "ALPN: "+alpn, "Authorization: Bearer "+token, policyLine(s))
}

func policyLine(s *protocol.Share) string {
	h := make(http.Header)
	s.SetPolicy(h)
	return protocol.HeaderPolicy + ": " + h.Get(protocol.HeaderPolicy)
}

// Who may visit an origin is carried out at the edge, for each of its origins and
// connections, and confirmed in the 101.
func TestPTTHPolicy(t *testing.T) {
	n := start(t, server.Config{})
	deny := &protocol.Share{Deny: here(), NoIndex: true}
	first := n.attachShared("token", "h2", deny, says("app"), "demo.localhost", "web.localhost")
	if first.enforced != "deny_cidr, noindex" {
		t.Errorf("confirmed: %q", first.enforced)
	}
	if o := n.attach("token", "h2", says("app"), "open.localhost"); o.enforced != "" {
		t.Errorf("confirmed where nothing was asked for: %q", o.enforced)
	}
	n.attachShared("token", "http%2F1.1", deny, says("app"), "demo.localhost")
	for host, want := range map[string]int{"demo.localhost": 403, "web.localhost": 403, "open.localhost": 200} {
		poll.Until(t, host, func() bool { res, _ := n.get(host, "/"); return res.StatusCode != http.StatusServiceUnavailable })
		if res, _ := n.get(host, "/"); res.StatusCode != want {
			t.Errorf("%s: status %d, want %d", host, res.StatusCode, want)
		}
	}
}

// What cannot be carried out is refused, and nothing is served.
func TestPTTHPolicyIsRefused(t *testing.T) {
	n := start(t, server.Config{})
	line := policyLine(&protocol.Share{NoIndex: true})
	for name, c := range map[string]struct {
		lines  []string
		status int
		code   protocol.Code
	}{
		"no base64":  {[]string{protocol.HeaderPolicy + ": {}"}, 400, protocol.BadRequest},
		"no JSON":    {[]string{protocol.HeaderPolicy + ": bnVsbA"}, 400, protocol.BadRequest}, // null
		"empty":      {[]string{protocol.HeaderPolicy + ": "}, 400, protocol.BadRequest},
		"twice":      {[]string{line, line}, 400, protocol.BadRequest},
		"of later":   {[]string{protocol.HeaderPolicy + ": eyJ2aXNpYmxlX3RvIjpbImFubiJdfQ"}, 400, protocol.ShareUnsupported}, // {"visible_to":["ann"]}
		"not for it": {[]string{policyLine(&protocol.Share{TTL: -1})}, 400, protocol.ShareUnsupported},
	} {
		_, _, res := n.askPTTH(n.originPath("demo.localhost"), append(c.lines, "ALPN: h2", "Authorization: Bearer token")...)
		var said struct{ Error protocol.Error }
		body, _ := io.ReadAll(res.Body)
		json.Unmarshal(body, &said)
		if res.StatusCode != c.status || said.Error.Code != c.code {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
	if res, _ := n.get("demo.localhost", "/"); res.StatusCode != 404 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// Connections of one identity serve an origin by one policy. Another one takes its place
// when they have gone, and none before: nobody is to be let in that the first ones keep out.
func TestPTTHPolicyOfThePool(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	hidden := &protocol.Share{NoIndex: true}
	first := n.attachShared("token-of-ann", "h2", hidden, says("app"), "demo.localhost")
	served := func() bool {
		res, _ := n.get("demo.localhost", "/")
		return res.StatusCode == http.StatusOK && res.Header.Get("X-Robots-Tag") != ""
	}
	poll.Until(t, "the origin", served)
	for _, other := range []*protocol.Share{nil, {NoIndex: true, Deny: here()}} {
		lines := []string{"ALPN: h2", "Authorization: Bearer token-of-ann"}
		if other != nil {
			lines = append(lines, policyLine(other))
		}
		_, _, res := n.askPTTH(n.originPath("demo.localhost"), lines...)
		if body, _ := io.ReadAll(res.Body); res.StatusCode != 409 || !strings.Contains(string(body), "by another Tunnel-Policy") {
			t.Errorf("%s %s", res.Status, body)
		}
	}
	n.attachShared("token-of-ann", "h2", hidden, says("app"), "demo.localhost") // one like the first
	first.conn.Close()
	<-first.served
	poll.Until(t, "the second connection serves it", served)
}

// Who comes back with another policy gets the origin, also where the server has not noticed
// yet that the last connection is dead.
func TestPTTHPolicyChanges(t *testing.T) {
	for _, how := range []string{"closed", "silent"} {
		n := start(t, server.Config{Hold: time.Minute, Park: 10 * time.Second, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
		first := n.attachShared("token-of-ann", "h2", &protocol.Share{NoIndex: true}, says("first"), "demo.localhost")
		n.answered("demo.localhost", "/", "first GET demo.localhost / ")
		if how == "closed" {
			first.conn.Close()
			<-first.served
		} else {
			// As of a machine that is gone, its connection of HTTP/1.1 stays open.
			n.attachShared("token-of-ann", "http%2F1.1", &protocol.Share{NoIndex: true}, says("first"), "demo.localhost")
			n.answered("demo.localhost", "/", "first GET demo.localhost / ")
			first.conn.(*readAhead).deaf.Store(true)
		}
		n.attach("token-of-ann", "h2", says("second"), "demo.localhost")
		if res, body := n.get("demo.localhost", "/"); res.StatusCode != 200 || !strings.HasPrefix(body, "second") || res.Header.Get("X-Robots-Tag") != "" {
			t.Errorf("%s: %d %s", how, res.StatusCode, body)
		}
	}
}

// When its time is over visitors read that, and the connections end.
func TestPTTHTimeToLive(t *testing.T) {
	n := start(t, server.Config{})
	o := n.attachShared("token", "h2", &protocol.Share{TTL: 300}, says("app"), "demo.localhost")
	<-o.served
	if res, body := n.get("demo.localhost", "/"); res.StatusCode != http.StatusGone {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// A connection that joins others ends with its own time, where that is over first.
func TestPTTHTimeToLiveOfOne(t *testing.T) {
	n := start(t, server.Config{Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	first := n.attachShared("token-of-ann", "h2", &protocol.Share{TTL: time.Hour.Milliseconds()}, says("first"), "demo.localhost")
	n.answered("demo.localhost", "/", "first GET demo.localhost / ")
	<-n.attachShared("token-of-ann", "h2", &protocol.Share{TTL: 300}, says("second"), "demo.localhost").served
	n.answered("demo.localhost", "/", "first GET demo.localhost / ")
	select {
	case <-first.served:
		t.Error("the first one ended, too")
	default:
	}
}

// A name that is held stays held when its owner's next connection breaks off, or is refused.
func TestPTTHHoldOutlivesAttempts(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\ntoken-of-bob\n")})
	for how, next := range map[string]func(name string){
		"breaks": func(name string) {
			conn, _, res := n.askPTTH(n.originPath(name), "ALPN: h2", "Authorization: Bearer token-of-ann")
			if res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(res.Status)
			}
			conn.Close()
		},
		"refused": func(name string) {
			n.attach("token-of-bob", "h2", says("bob"), "bobs.localhost")
			if _, _, res := n.askPTTH(n.originPath(name, "bobs.localhost"), "ALPN: h2", "Authorization: Bearer token-of-ann"); res.StatusCode != http.StatusConflict {
				t.Fatal(res.Status)
			}
		},
	} {
		name := how + ".localhost"
		first := n.attach("token-of-ann", "h2", says("ann"), name)
		n.answered(name, "/", "ann GET "+name+" / ")
		first.conn.Close()
		<-first.served
		next(name)
		poll.Until(t, "the server has noticed", func() bool { res, _ := n.get(name, "/"); return res.Header.Get("Tunnel-Error") != "session_lost" })
		for range 20 {
			if _, _, res := n.askPTTH(n.originPath(name), "ALPN: h2", "Authorization: Bearer token-of-bob"); res.StatusCode != http.StatusConflict {
				t.Errorf("%s: bob gets %s", how, res.Status)
			}
		}
		if res, _ := n.get(name, "/"); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: a visitor gets %s", how, res.Status)
		}
	}
}
