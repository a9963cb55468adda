package main

import (
	"fmt"
	"io"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// An attack is what a client that logged in sends without an end.
type attack struct {
	name  string
	fresh func(round uint32) []byte // the frames of one write
}

// many makes n frames of one.
func many(n int, one func(b []byte, i uint32) []byte) []byte {
	var b []byte
	for i := range n {
		b = one(b, uint32(i))
	}
	return b
}

// attacks are the floods; each write has a few thousand frames.
func attacks() []attack {
	const n = 4096
	return []attack{
		{"pings", func(round uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, framePing, flagSYN, 0, round*n+i) })
		}},
		{"answers to no ping", func(round uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, framePing, flagACK, 0, round*n+i) })
		}},
		{"streams", func(round uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, frameWindow, flagSYN, 3+2*(round*n+i), 0) })
		}},
		{"streams that are reset", func(round uint32) []byte {
			return many(n/2, func(b []byte, i uint32) []byte {
				id := 3 + 2*(round*n/2+i)
				return frame(frame(b, frameWindow, flagSYN, id, 0), frameWindow, flagRST, id, 0)
			})
		}},
		{"streams with the server's ids", func(round uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, frameWindow, flagSYN, 2+2*(round*n+i), 0) })
		}},
		{"windows", func(uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, frameWindow, 0, control, 1<<32-1) })
		}},
		{"windows of no stream", func(round uint32) []byte {
			return many(n, func(b []byte, i uint32) []byte { return frame(b, frameWindow, 0, 2*(round*n+i), 1<<20) })
		}},
		{"data of no stream", func(round uint32) []byte {
			return append(frame(nil, frameData, 0, 7+2*round, 64<<10), make([]byte, 64<<10)...)
		}},
		{"a length of 4 GB", func(round uint32) []byte {
			if round > 0 {
				return make([]byte, 64<<10)
			}
			return frame(nil, frameData, 0, control, 1<<32-1)
		}},
		{"messages", func(uint32) []byte { // that nobody knows, and no answer is read
			return many(n, func(b []byte, _ uint32) []byte {
				return append(frame(b, frameData, 0, control, 6), 0, 0, 0, 2, '{', '}')
			})
		}},
		{"claims that are refused", func(uint32) []byte {
			const m = `{"bind":{"id":1,"name":"victim"}}`
			return many(n, func(b []byte, _ uint32) []byte {
				return append(append(frame(b, frameData, 0, control, 4+uint32(len(m))), 0, 0, 0, byte(len(m))), m...)
			})
		}},
		{"a message of 4 GB", func(round uint32) []byte {
			if round > 0 {
				return append(frame(nil, frameData, 0, control, 32<<10), make([]byte, 32<<10)...)
			}
			return append(frame(nil, frameData, 0, control, 4), 255, 255, 255, 255)
		}},
	}
}

// floods makes each attack of a client that logged in. The attacker reads nothing.
func (t *trial) floods() error {
	for _, a := range attacks() {
		if err := t.flooded("a client floods "+a.name, func(end time.Time) delivered { return t.attack(a, end) }); err != nil {
			return err
		}
	}
	return nil
}

// delivered is what was sent of a flood.
type delivered struct {
	bytes float64
	conns int // on which
}

// flooded has a server of its own flooded, beside a neighbour whose requests must not suffer.
func (t *trial) flooded(what string, attack func(end time.Time) delivered) error {
	const growth = 32
	t.addr = ""
	if err := t.serve(quiet); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer t.server.Kill()
	victim, err := t.client(t.addr, "victim")
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer victim.Kill()
	requests := pick(t, 600, 2_000)
	before := t.send(paced{name: "victim", requests: requests, over: pick(t, 600*time.Millisecond, 2*time.Second)}) // warms it up, too
	rss := t.server.PeakRSS()
	long := pick(t, time.Second, 5*time.Second)
	done := make(chan delivered, 1)
	go func() { done <- attack(time.Now().Add(long)) }()
	during := t.send(paced{name: "victim", requests: requests, over: long})
	sent := <-done
	grown := (t.server.PeakRSS() - rss) / mib
	c := visitors()
	defer c.CloseIdleConnections()
	alive := !t.server.Exited() && t.get(c, "victim", "/small", rig.Patience) == nil
	t.check(grown <= growth && disconnects(victim) == 0 && alive && len(during.errors) == 0 && sent.bytes > 0,
		fmt.Sprintf("%s, %.1f MB on %d connections: growth of the server's memory, neighbours", what, sent.bytes/mb, sent.conns),
		fmt.Sprintf("%.1f MiB; %s; p99 %.1f ms, before %.1f", grown, during.failed(), ms(during.p99()), ms(before.p99())),
		fmt.Sprintf("<= %d MiB; 0 failed", growth))
	return nil
}

// attack floods until end, on one session after the other as the server ends them.
func (t *trial) attack(a attack, end time.Time) (sent delivered) {
	for time.Now().Before(end) {
		w, err := t.session(1)
		if err != nil {
			t.Sleep(20 * time.Millisecond)
			continue
		}
		sent.conns++
		_ = w.SetDeadline(end)
		for round := uint32(0); err == nil; round++ {
			var n int
			n, err = w.Write(a.fresh(round))
			sent.bytes += float64(n)
		}
		_, _ = io.CopyN(io.Discard, w, 1) // until the server has ended it
		w.reset()
	}
	return sent
}
