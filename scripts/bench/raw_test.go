package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/listener"
)

func freePort(t *testing.T) string {
	t.Helper()
	at, err := (&rig.Site{Context: t.Context()}).FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// serveRawTest is the app without HTTP.
func serveRawTest(t *testing.T) string {
	t.Helper()
	at := freePort(t)
	go func() { _ = serveStreams(at) }() // both until the test's process ends
	go func() { _ = serveDatagramEcho(at) }()
	err := (&rig.Site{Context: t.Context()}).Until(patience, time.Millisecond, func() error {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return err
		}
		c.Close()
		return probeDatagrams(at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRawExchanges(t *testing.T) {
	app := serveRawTest(t)
	dial := func(deadline time.Time) (caller, error) { return dialPinger(app, deadline) }
	for name, l := range map[string]*load{
		"kept": {conns: 3, measure: 10 * time.Millisecond, dial: dial},
		"new": {conns: 2, measure: 10 * time.Millisecond,
			dial: func(deadline time.Time) (caller, error) { return anew{dial, deadline}, nil }},
	} {
		got, err := measured(l)
		if err != nil || got.latency.total == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, move := range map[string]func(mover) error{"down": mover.down, "up": mover.up} {
		c, err := dialUntil(app, time.Now().Add(patience))
		if err != nil {
			t.Fatal(err)
		}
		if err := move(&rawTransfer{conn: c, bytes: 1<<20 + 1}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

func TestRawVisitorsNoticeWhatIsMissing(t *testing.T) {
	addr := listener.TCP(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 9))
		_, _ = c.Write(make([]byte, pingSize)) // never what was sent, and too little
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // or closing it would reset it
	})
	p, err := dialPinger(addr, time.Now().Add(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.small(); err == nil {
		t.Error("other bytes than those that were sent: no error")
	}
	for name, move := range map[string]func(mover) error{"down": mover.down, "up": mover.up} {
		c, err := dialUntil(addr, time.Now().Add(patience))
		if err != nil {
			t.Fatal(err)
		}
		if err := move(&rawTransfer{conn: c, bytes: 1000}); err == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
}

// throwAt throws through a relay of one's own making: pass says what becomes of a datagram.
func throwAt(t *testing.T, pass func(n int, b []byte, answer func([]byte))) string {
	t.Helper()
	c, err := listenDatagrams("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for n := 0; ; n++ {
			m, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			pass(n, buf[:m], func(b []byte) { _, _ = c.WriteToUDPAddrPort(b, from) })
		}
	}()
	return c.LocalAddr().String()
}

func TestThrowerCountsWhatIsLost(t *testing.T) {
	addr := throwAt(t, func(n int, b []byte, answer func([]byte)) {
		if n != 1 {
			answer(b)
		}
	})
	var sent, missed atomic.Int64
	th, err := dialThrower(addr, &sent, &missed)
	if err != nil {
		t.Fatal(err)
	}
	defer th.close()
	for range 3 {
		if err := th.small(); err != nil {
			t.Fatal(err)
		}
	}
	if missed.Load() < 1 || sent.Load() != 3+missed.Load() {
		t.Errorf("%d sent, %d missed", sent.Load(), missed.Load())
	}
}

func TestFlowCountsWhatIsLost(t *testing.T) {
	relay, app := freePort(t), serveRawTest(t)
	go func() { _ = serveDatagramRelay(relay, app) }() // until the test's process ends
	if err := (&rig.Site{Context: t.Context()}).Until(patience, time.Millisecond, func() error { return probeDatagrams(relay) }); err != nil {
		t.Fatal(err)
	}
	half := throwAt(t, func(_ int, b []byte, answer func([]byte)) {
		if binary.BigEndian.Uint64(b)%2 == 0 {
			answer(b)
		}
	})
	for addr, most := range map[string]int{relay: 200, half: 100} {
		c, err := dialDatagrams(addr)
		if err != nil {
			t.Fatal(err)
		}
		f := &flow{conn: c, measure: 20 * time.Millisecond}
		got, err := f.run()
		c.Close()
		if err != nil || f.sent != 200 || got.latency.total == 0 || got.latency.total > most {
			t.Errorf("%d of %d came back, want %d at most; %v", got.latency.total, f.sent, most, err)
		}
	}
}

func TestFlowNoticesWhatIsWrong(t *testing.T) {
	for name, pass := range map[string]func(int, []byte, func([]byte)){
		"twice": func(_ int, b []byte, answer func([]byte)) { answer(b); answer(b) },
		"cut":   func(_ int, b []byte, answer func([]byte)) { answer(b[:len(b)-1]) },
		"invented": func(_ int, b []byte, answer func([]byte)) {
			b[0] = 1
			answer(b)
		},
	} {
		c, err := dialDatagrams(throwAt(t, pass))
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&flow{conn: c, measure: 20 * time.Millisecond}).run()
		c.Close()
		if err == nil || !strings.Contains(err.Error(), "not sent") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Visitors that take long to connect, as with TLS on a busy machine, would find nothing left of a
// short measurement.
func TestLoadBeginsWhenAllAreConnected(t *testing.T) {
	app := serveRawTest(t)
	late := make(chan struct{})
	marked := make(chan bool, 2)
	l := &load{conns: 2, measure: 10 * time.Millisecond}
	l.mark = func() {
		select {
		case <-late:
			marked <- true
		default:
			marked <- false
		}
	}
	var dialled atomic.Int32
	l.dial = func(deadline time.Time) (caller, error) {
		if dialled.Add(1) == 2 {
			time.AfterFunc(50*time.Millisecond, func() { close(late) })
			<-late
		}
		return dialPinger(app, deadline)
	}
	if _, err := l.run(); err != nil && !errors.Is(err, errNoAnswer) { // here it is no matter
		t.Fatal(err)
	}
	if !<-marked {
		t.Error("measuring began before all were connected")
	}
}
