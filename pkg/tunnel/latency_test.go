package tunnel_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// TestLatency: a round trip is measured while there is a connection.
func TestLatency(t *testing.T) {
	n := start(t, server.Config{})
	told := newEvents()
	c := &tunnel.Client{Server: n.url(), Events: told.tell}
	l := listen(t, c, tunnel.Options{Name: "demo"}, http.NotFoundHandler())
	told.next(t, tunnel.Ready)
	d := connect(t, &tunnel.Client{Server: n.url()})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, one := range []interface {
		Latency(context.Context) (time.Duration, error)
	}{l, d} {
		if trip, err := one.Latency(ctx); err != nil || trip <= 0 {
			t.Errorf("%T: %v, %v", one, trip, err)
		}
	}
	n.stop()
	told.next(t, tunnel.Draining)
	told.next(t, tunnel.Disconnected)
	if trip, err := l.Latency(ctx); err == nil || trip != 0 {
		t.Errorf("without a server: %v, %v", trip, err)
	}
}
