package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		await(t, host, func() bool { res, _ := n.get(host, "/"); return res.StatusCode != http.StatusServiceUnavailable })
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
	await(t, "the origin", served)
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
	await(t, "the second connection serves it", served)
}

// Who comes back with another policy gets the origin, also where the server has not noticed
// yet that the last connection is dead.
func TestPTTHPolicyChanges(t *testing.T) {
	for _, how := range []string{"closed", "silent"} {
		n := start(t, server.Config{Hold: time.Minute, Park: 10 * time.Second, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
		first := n.attachShared("token-of-ann", "h2", &protocol.Share{NoIndex: true}, says("first"), "demo.localhost")
		if how == "closed" {
			first.conn.Close()
			<-first.served
		} else {
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
