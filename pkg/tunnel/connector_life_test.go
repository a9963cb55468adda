package tunnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// The dialling of a connection ends with its context, while the client of the endpoint
// is away and the server waits for it; the session stays.
func TestConnectorDialCancelled(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Park: time.Hour})
	r := newRelay(t, n.addr)
	app := startRawApp(t).echo()
	told := newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: told.tell}, "db", app.addr)
	told.next(t, tunnel.Ready)
	d := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	r.lead("")
	r.cut()
	told.next(t, tunnel.Disconnected)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(ctx, "db"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the other client is away: %v", err)
	}
	parked := make(chan error, 1)
	go func() {
		c, err := tryDial(d, "db")
		if err == nil {
			comesBack(t, c, "parked")
			c.Close()
		}
		parked <- err
	}()
	poll.Until(t, "it is under way", func() bool { return d.Active() == 1 })
	r.lead(n.addr)
	if err := wait(t, "the parked connection", parked); err != nil {
		t.Errorf("once the other client was back: %v", err)
	}
}

// A connection whose session is lost before there was an answer goes by the next one:
// nothing of it has left but the wish for it.
func TestConnectorDialOutlivesSession(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Park: time.Hour})
	there, here := newRelay(t, n.addr), newRelay(t, n.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: there.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: here.url(), Token: "token-of-ann", Events: connecting.tell})
	exposing.next(t, tunnel.Ready)
	connecting.next(t, tunnel.Ready)
	there.lead("")
	there.cut()
	exposing.next(t, tunnel.Disconnected)
	parked := make(chan error, 1)
	go func() {
		c, err := tryDial(d, "db")
		if err == nil {
			comesBack(t, c, "parked")
			c.Close()
		}
		parked <- err
	}()
	poll.Until(t, "it is under way", func() bool { return d.Active() == 1 })
	here.cut()
	connecting.next(t, tunnel.Disconnected)
	connecting.next(t, tunnel.Reconnected)
	there.lead(n.addr)
	if err := wait(t, "the connection", parked); err != nil {
		t.Error(err)
	}
}

// Who waits for the server is told when the connector drains, or is closed.
func TestConnectorEndsWhileAway(t *testing.T) {
	n := start(t, server.Config{})
	for what, end := range map[string]func(*tunnel.Connector) error{
		"Drain": func(d *tunnel.Connector) error { return d.Drain(context.Background()) }, "Close": (*tunnel.Connector).Close,
	} {
		r := newRelay(t, n.addr)
		told := newEvents()
		d := connect(t, &tunnel.Client{Server: r.url(), Events: told.tell})
		told.next(t, tunnel.Ready)
		r.lead("")
		r.cut()
		told.next(t, tunnel.Disconnected)
		waiting := make(chan error, 1)
		go func() {
			_, err := tryDial(d, "db")
			waiting <- err
		}()
		select {
		case err := <-waiting:
			t.Errorf("%s: it did not wait: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
		finish(t, what, func() { end(d) })
		if err := wait(t, "Dial after "+what, waiting); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Dial says %v", what, err)
		}
	}
}

// R41: the token is taken away, and its connections end.
func TestConnectorRevoked(t *testing.T) {
	g := &guard{changed: make(chan struct{})}
	app, d := private(t, server.Config{Auth: g})
	app.echo()
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")
	g.revoked.Store(true)
	if _, err := tryDial(d, "db"); codeOf(err) != protocol.TokenRevoked {
		t.Errorf("before the session ends: %v", err)
	}
	g.changed <- struct{}{}
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection reads %v", err)
	}
	wait(t, "the connector's end", d.Done())
	if _, err := tryDial(d, "db"); codeOf(err) != protocol.TokenRevoked || codeOf(d.Err()) != protocol.TokenRevoked {
		t.Errorf("then: %v; %v", err, d.Err())
	}
}

// The server restarts: what was open is lost visibly, and a connection that is dialled
// meanwhile waits for the new one.
func TestConnectorReconnects(t *testing.T) {
	r := newRelay(t, "")
	before := start(t, server.Config{})
	r.lead(before.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: connecting.tell})
	exposing.next(t, tunnel.Ready)
	connecting.next(t, tunnel.Ready)
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")

	r.lead("")
	r.cut()
	before.stop()
	exposing.next(t, tunnel.Disconnected)
	connecting.next(t, tunnel.Disconnected)
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection that was lost reads %v", err)
	}
	c.Close()
	after := start(t, server.Config{})
	short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(short, "db"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the server is away: %v", err)
	}
	r.lead(after.addr)
	exposing.next(t, tunnel.Reconnected)
	comesBack(t, mustDial(t, d, "db"), "after")
	connecting.next(t, tunnel.Reconnected)
}

// The server drains: what is open goes on until its grace, and what comes meanwhile
// goes by the next server.
func TestConnectorServerDrains(t *testing.T) {
	r := newRelay(t, "")
	before, after := start(t, server.Config{Grace: time.Hour}), start(t, server.Config{})
	r.lead(before.addr)
	app := startRawApp(t).echo()
	exposing, connecting := newEvents(), newEvents()
	exposePrivate(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: exposing.tell}, "db", app.addr)
	d := connect(t, &tunnel.Client{Server: r.url(), Token: "token-of-ann", Events: connecting.tell})
	c := mustDial(t, d, "db")
	comesBack(t, c, "before")
	r.lead(after.addr)
	stopped := make(chan struct{})
	go func() { defer close(stopped); before.stop() }()
	for _, e := range []events{exposing, connecting} {
		e.next(t, tunnel.Ready)
		e.next(t, tunnel.Draining)
		e.next(t, tunnel.Reconnected)
	}
	comesBack(t, mustDial(t, d, "db"), "by the next")
	comesBack(t, c, "meanwhile")
	select {
	case <-stopped:
		t.Error("the server did not wait for the connection")
	default:
	}
	c.Close()
	wait(t, "the drained server's end", stopped)
}

// R24: the ids of the connector's own streams run out, again and again: other sessions
// take over, no connection fails, and one that is open all the time goes on. A session
// that is not needed any more is ended.
func TestConnectorSessionIsRenewed(t *testing.T) {
	n := start(t, server.Config{})
	app := startRawApp(t).echo()
	exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"}, "db", app.addr)
	told := newEvents()
	client := &tunnel.Client{Server: n.url(), Token: "token-of-ann", Transport: tunnel.Raw, Events: told.tell}
	tunnel.LimitOpened(client, 64)
	d := connect(t, client)
	told.next(t, tunnel.Ready)
	kept := mustDial(t, d, "db")
	for round := range 4 {
		for i := 0; len(told) == 0; i++ {
			if i > 64 {
				t.Fatal("no other session was made")
			}
			c, err := tryDial(d, "db")
			if err != nil {
				t.Fatalf("round %d, connection %d: %v", round, i, err)
			}
			comesBack(t, c, "x")
			c.Close()
		}
		told.next(t, tunnel.Draining)
		told.next(t, tunnel.Reconnected)
		comesBack(t, kept, "still there")
	}
	poll.Until(t, "the sessions that are not needed have ended", func() bool { return tunnel.Sessions(d) == 2 })
	kept.Close()
	poll.Until(t, "the first session has ended, too", func() bool { return tunnel.Sessions(d) == 1 })
	comesBack(t, mustDial(t, d, "db"), "and it goes on")
}

// R24, on the other side: the session of the endpoint's client is renewed, and a
// connection that is open goes on.
func TestPrivateEndpointIsRenewed(t *testing.T) {
	const streams = 128 // enough of them are left while the next session is made
	n := start(t, server.Config{MaxStreams: streams, Park: patience})
	app := startRawApp(t).echo()
	told := newEvents()
	exposePrivate(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann", Transport: tunnel.Raw, Events: told.tell}, "db", app.addr)
	told.next(t, tunnel.Ready)
	d := connect(t, &tunnel.Client{Server: n.url(), Token: "token-of-ann"})
	kept := mustDial(t, d, "db")
	for range 3 {
		for i := 0; len(told) == 0; i++ {
			if i > streams {
				t.Fatal("the session was not renewed")
			}
			c := mustDial(t, d, "db")
			comesBack(t, c, "x")
			c.Close()
		}
		told.next(t, tunnel.Draining)
		told.next(t, tunnel.Reconnected)
		comesBack(t, kept, "still there")
	}
}

// R20: beyond what the server lets a session have, Dial says so, and the rest goes on.
func TestConnectorCap(t *testing.T) {
	app, d := private(t, server.Config{})
	app.echo()
	var open []net.Conn
	var err error
	for err == nil && len(open) < 2000 {
		var c net.Conn
		if c, err = tryDial(d, "db"); err == nil {
			open = append(open, c)
		}
	}
	if codeOf(err) != protocol.Overloaded || len(open) < 100 {
		t.Errorf("after %d connections: %v", len(open), err)
	}
	comesBack(t, open[0], "the first")
	for _, c := range open {
		c.Close()
	}
	poll.Until(t, "there is room again", func() bool {
		c, err := tryDial(d, "db")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// R7: Drain takes nothing new, and waits for what is open.
func TestConnectorDrain(t *testing.T) {
	app, d := private(t, server.Config{})
	app.echo()
	c := mustDial(t, d, "db")
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := d.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a connection open: %v", err)
	}
	if _, err := tryDial(d, "db"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	comesBack(t, c, "meanwhile")
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(context.Background()) }()
	c.Close()
	if err := wait(t, "the end of draining", drained); err != nil {
		t.Error(err)
	}
}
