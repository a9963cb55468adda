package edge_test

import (
	"net"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// S1, S2: no poison makes the server and a strict reader count differently, for two
// tenants that are reached on one connection; whoever comes next, on a connection
// and on streams that were used before, gets the answer to its own request.
func TestSmuggling(t *testing.T) {
	addr := serve(t, server.Config{HeaderTimeout: 10 * time.Second})
	var apps rig.Tenants
	for _, name := range []string{"demo", "other"} {
		publish(t, addr, name, nil, to(t, app(t, apps.App(name)), forward.Options{}))
	}
	canary := visit(t, addr)
	var outcomes []rig.Outcome
	for id, p := range rig.Poisons() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, rig.Send(conn, p, p.Fill(id, "demo.example.com", "other.example.com"), patience))
		for _, name := range []string{"demo", "other"} {
			const target = "/canary"
			canary.send("GET "+target+" HTTP/1.1", "Host: "+name+".example.com")
			if a := canary.receive("GET"); a.Header.Get("Tenant") != name || a.body != "answer to "+target {
				t.Fatalf("after %s: %s got %d %q", p.Name, name, a.StatusCode, a.body)
			}
		}
	}
	refused, log := 0, apps.Log()
	for id, o := range outcomes {
		if err := o.Judge(rig.Of(log, id)); err != nil {
			t.Errorf("%d %s: %v\n%.300q", id, o.Poison.Name, err, o.Raw)
		}
		if n := len(o.Answers); n > 0 && o.Answers[n-1].Tenant == "" {
			refused++
		}
	}
	if len(outcomes) < 200 || refused < 100 || refused == len(outcomes) {
		t.Errorf("%d cases, %d refused: that is no trial", len(outcomes), refused)
	}
	t.Logf("%d cases, %d refused", len(outcomes), refused)
}
