//go:build unix

package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/revtun/tunnel/internal/rig"
)

// S1, S2 with nginx in front: what it makes of each poison, it and the server count
// alike. Nobody gets the answer to a request that is not his, and no request comes
// that nobody made.
func TestSmugglingBehindNginx(t *testing.T) {
	cert := rig.NewCertificate(t, "localhost", "*.localhost")
	public := behindNginx(t, cert)
	var apps rig.Tenants
	for _, name := range []string{"demo", "other"} {
		startClient(t, app(t, apps.App(name)), "--server", public, "--ca", cert.Cert, "--name", name)
	}
	u, err := url.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	poisons := rig.Poisons()
	outcomes := make([]rig.Outcome, len(poisons))
	next := make(chan int)
	var visitors sync.WaitGroup
	for range 8 { // nginx takes its time to close what it has refused
		visitors.Go(func() {
			for id := range next {
				conn, err := tls.Dial("tcp", "127.0.0.1:"+u.Port(), &tls.Config{RootCAs: cert.Roots, ServerName: "demo.localhost"})
				if err != nil {
					t.Error(err)
					continue
				}
				p := poisons[id]
				outcomes[id] = rig.Send(conn, p, p.Fill(id, "demo.localhost", "other.localhost"), patience)
			}
		})
	}
	c := visitor(t)
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: cert.Roots}
	for id := range poisons {
		next <- id
		if id%10 == 0 {
			canary(t, c, public)
		}
	}
	close(next)
	visitors.Wait()
	canary(t, c, public)
	served, log := 0, apps.Log()
	for id, o := range outcomes {
		arrived := rig.Of(log, id)
		if err := o.JudgePaired(arrived); err != nil {
			t.Errorf("%d %s: %v\n%.300q", id, o.Poison.Name, err, o.Raw)
		}
		if len(arrived) > 0 {
			served++
		}
	}
	if served < 50 || served == len(poisons) {
		t.Errorf("%d cases, something of %d arrived: that is no trial", len(poisons), served)
	}
	t.Logf("%d cases, something of %d arrived", len(poisons), served)
}

// canary asks both tenants for what only they can answer.
func canary(t *testing.T, c *http.Client, public string) {
	t.Helper()
	for _, name := range []string{"demo", "other"} {
		res, err := c.Get(strings.Replace(public, "localhost", name+".localhost", 1) + "/canary")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if got := res.Header.Get("Tenant"); got != name || string(body) != "answer to /canary" || err != nil {
			t.Fatalf("%s got %s, %s's %q, %v", name, res.Status, got, body, err)
		}
	}
}
