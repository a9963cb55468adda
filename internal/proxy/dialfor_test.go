package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
)

// A connection that was dialled for one host carries no request for another, and where
// there are as many as may be kept, the coldest one goes.
func TestDialFor(t *testing.T) {
	app := newApp(t, func(c *appConn) {
		for {
			if _, more := c.request(); !more {
				return
			}
			c.send(ok)
		}
	})
	var mu sync.Mutex
	var dialled []string
	dial := dialer(app.addr())
	tr := &Transport{MaxIdle: 2, DialFor: func(ctx context.Context, host string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dialled = append(dialled, host)
		return dial(ctx)
	}}
	t.Cleanup(tr.CloseIdle)
	for _, step := range []struct{ host, dialled, kept string }{
		{"a", "[a]", "[a]"},
		{"b", "[b]", "[a b]"},
		{"a", "[]", "[b a]"},
		{"b", "[]", "[a b]"},
		{"c", "[c]", "[b c]"},
		{"a", "[a]", "[c a]"},
		{"d", "[d]", "[a d]"},
		{"c", "[c]", "[d c]"},
		{"d", "[]", "[c d]"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+step.host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "app"
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		read(res)
		mu.Lock()
		if got := fmt.Sprint(dialled); got != step.dialled {
			t.Errorf("for %q it dialled for %s, want %s", step.host, got, step.dialled)
		}
		dialled = nil
		mu.Unlock()
		var kept []string
		tr.mu.Lock()
		for _, c := range tr.idle {
			kept = append(kept, c.host)
		}
		tr.mu.Unlock()
		if got := fmt.Sprint(kept); got != step.kept {
			t.Errorf("after %q it keeps %s, want %s", step.host, got, step.kept)
		}
	}
}
