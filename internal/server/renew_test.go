package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// renewApp answers at once, /burn with a stream of its own, and /hang when open
// is closed.
func renewApp(hanging chan<- struct{}, open <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/burn":
			w.Header().Set("Connection", "close")
		case "/hang":
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			hanging <- struct{}{}
			<-open
		}
		io.WriteString(w, "whole")
	})
}

// expose publishes handler as demo until the test ends, and tells of events.
func (n *node) expose(handler http.Handler) <-chan tunnel.Event {
	n.t.Helper()
	events := make(chan tunnel.Event, 100)
	c := &tunnel.Client{
		Server: "http://" + n.addr, Transport: tunnel.Raw, Grace: -1, Events: func(e tunnel.Event) { events <- e },
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := c.Listen(ctx, tunnel.Options{Name: "demo"})
	if err != nil {
		cancel()
		n.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, handler) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	return events
}

// whole asks for path and reports what is wrong with the answer.
func (n *node) whole(path string) error {
	req, err := http.NewRequestWithContext(n.t.Context(), "GET", "http://"+n.addr+path, nil)
	if err != nil {
		return err
	}
	req.Host = "demo.localhost"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != "whole" {
		return fmt.Errorf("%s: %s %q, %v", path, res.Status, body, err)
	}
	return nil
}

// Stream ids run out again and again, and no request fails (R24): not the one that
// is under way all the time, nor those that come while the connection changes,
// though none may wait for it.
func TestSessionIsRenewed(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	var replaced counter
	n := start(t, server.Config{MaxStreams: 64, Park: 0, Log: slog.New(&replaced)})
	hanging, open := make(chan struct{}), make(chan struct{})
	events := n.expose(renewApp(hanging, open))
	hung := make(chan error, 1)
	go func() { hung <- n.whole("/hang") }()
	<-hanging

	var stop atomic.Bool
	var steady sync.WaitGroup
	for range 4 {
		steady.Go(func() {
			for !stop.Load() {
				if err := n.whole("/"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	<-events // ready
	for round := range 5 {
		for burnt := 0; len(events) == 0; burnt++ {
			if burnt > 64 {
				t.Fatalf("round %d: no other connection was asked for", round)
			}
			if err := n.whole("/burn"); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []tunnel.EventType{tunnel.Draining, tunnel.Reconnected} {
			if e := <-events; e.Type != want || want == tunnel.Draining && !strings.Contains(e.Err.Error(), "streams") {
				t.Fatalf("round %d: event %s (%v), want %s", round, e.Type, e.Err, want)
			}
		}
	}
	stop.Store(true)
	steady.Wait()
	close(open)
	if err := <-hung; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if os.Getenv("TUNNEL_TEST_LOG") == "" { // the log is the test's then
		poll.Until(t, "five are replaced", func() bool { return replaced.n.Load() == 5 })
	}
}

// counter is a log that counts the sessions which ended because they were replaced.
type counter struct{ n atomic.Int64 }

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "replaced") {
		c.n.Add(1)
	}
	return nil
}

func (c *counter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *counter) WithGroup(string) slog.Handler { return c }

// A client that does not connect again when it is asked to loses the session at
// the last id, rather than the requests of ever after.
func TestSessionIsUsedUp(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	n := start(t, server.Config{MaxStreams: 8, Hold: time.Minute})
	c := n.connect("", "", "")
	c.must(c.bind("demo"))
	go http.Serve(accepter{c.mux}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "whole")
	}))
	for i := range 8 {
		if err := n.whole("/"); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if err := n.whole("/"); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("beyond the last id: %v", err)
	}
	select {
	case <-c.mux.Done():
	case <-time.After(10 * time.Second):
		t.Error("the session goes on without ids")
	}
}

// While a session moves, its names are nobody else's: not another client's of the
// same token before the next connection is there, nor a stranger's once some have
// moved. Those that have not go on being answered by the old connection.
func TestRenewedNamesStayItsOwn(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	n := two(t, server.Config{MaxStreams: 8, Hold: time.Hour})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "whole")
	})
	old := n.connect("", "token-of-ann", "")
	for _, name := range []string{"demo", "second"} {
		old.must(old.bind(name))
	}
	go http.Serve(accepter{old.mux}, handler)
	for range 7 { // seven eighths
		if err := n.whole("/"); err != nil {
			t.Fatal(err)
		}
	}
	if m := old.read(); m.Drain == nil {
		t.Fatalf("got %+v, want drain", m)
	}
	for _, token := range []string{"token-of-ann", "token-of-bob"} {
		if b := n.connect("", token, "").bind("demo"); b.Error == nil {
			t.Errorf("another client with %s took the name before the next connection came", token)
		}
	}
	next := n.connect(old.id, "token-of-ann", old.welcome.Resume)
	go http.Serve(accepter{next.mux}, handler)
	next.must(next.bind("demo"))
	if b := n.connect("", "token-of-bob", "").bind("second"); b.Error == nil {
		t.Error("a stranger took the name that has not moved yet")
	}
	if res, body := n.get("second.localhost", "/"); body != "whole" {
		t.Errorf("the name that has not moved yet: %s %q", res.Status, body)
	}
	next.must(next.bind("second"))
	select {
	case <-old.mux.Done():
	case <-time.After(20 * time.Second):
		t.Error("the old connection does not end")
	}
	if res, body := n.get("second.localhost", "/"); body != "whole" {
		t.Errorf("the name that has moved: %s %q", res.Status, body)
	}
}
