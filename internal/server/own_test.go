package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// What the server tells of itself is what it can do, and nothing that is not for
// everyone.
func TestDescription(t *testing.T) {
	public, _ := url.Parse("https://inner.example.com:8443")
	for name, c := range map[string]struct {
		config server.Config
		want   protocol.Description
	}{
		"plain": {server.Config{}, protocol.Description{Kinds: []protocol.Kind{protocol.KindHTTP}}},
		"more": {
			server.Config{PathNames: true, TCPPorts: server.Ports{First: 1, Last: 1}, PublicURL: public, Agent: "tunnel-server/9.9.9"},
			protocol.Description{Kinds: []protocol.Kind{protocol.KindHTTP, protocol.KindTCP}, PathNames: true},
		},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		c.config.Domain = "tunnel.test"
		c.config.Auth = tokens(t, path, "token-of-ann domain=secret.example.org\n")
		n := start(t, c.config)
		ann := n.connect("", "token-of-ann", "")
		ann.must(ann.claim("anns", "secret.example.org"))
		ann.serve("app")
		res, body := n.get("tunnel.test", protocol.PathDescription)
		var got protocol.Description
		if err := json.Unmarshal([]byte(body), &got); err != nil || res.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %v: %s", name, err, body)
		}
		if !slices.Equal(got.Versions, []int{protocol.Version}) || !slices.Equal(got.Transports, []string{"tunnel.v1", "websocket", "ptth"}) || got.Domain != "tunnel.test" ||
			!slices.Equal(got.Kinds, c.want.Kinds) || got.PathNames != c.want.PathNames {
			t.Errorf("%s: %s", name, body)
		}
		for _, secret := range []string{"anns", "token", "secret", "9.9.9", path, "inner"} {
			if strings.Contains(strings.ReplaceAll(body, "tunnel.v1", ""), secret) {
				t.Errorf("%s: tells %q: %s", name, secret, body)
			}
		}
		// A tenant's host, by name or domain, answers for itself.
		for _, host := range []string{"anns.tunnel.test", "secret.example.org"} {
			for _, path := range []string{"/", "/healthz", "/readyz", protocol.PathDescription, protocol.PathPrefix + "abcdefghijklmnop"} {
				if _, body := n.get(host, path); body != "app" {
					t.Errorf("%s: %s%s is %.60q", name, host, path, body)
				}
			}
		}
	}
}

func TestStartPage(t *testing.T) {
	for paths, want := range map[bool]string{false: "at its subdomains", true: "below its paths"} {
		n := start(t, server.Config{PathNames: paths})
		res, body := n.get("localhost", "/")
		if !strings.Contains(body, want) || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("path names %v: %v %s", paths, res.Header, body)
		}
	}
}

// A path that is not clean leads nowhere, by no redirect either.
func TestOwnNotFound(t *testing.T) {
	n := start(t, server.Config{})
	ptth := strings.TrimPrefix(n.originPath("demo.localhost"), "/")
	for _, path := range []string{"//" + ptth, "/./" + ptth, "/x/../" + ptth, "/.well-known//" + strings.TrimPrefix(ptth, ".well-known/"), "//healthz", "/healthz/", "/a//b", "/.."} {
		conn, _, res := n.askPTTH(path)
		body, _ := io.ReadAll(res.Body)
		conn.Close()
		if res.StatusCode != http.StatusNotFound || res.Header.Get("Tunnel-Error") != "not_found" || !strings.Contains(string(body), `"not_found"`) {
			t.Errorf("%s: %s %v %s", path, res.Status, res.Header, body)
		}
	}
	if res, body := n.get("localhost", "/healthz"); res.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s %s", res.Status, body)
	}
}
