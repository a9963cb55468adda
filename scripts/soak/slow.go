package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A peer is a connection that never becomes a request or a session: what it says first, what it goes on
// to say each second, and how soon it must be cut off.
type peer struct {
	name     string
	upgrade  string // "", or the token of Upgrade that comes first
	say      string
	dribble  string
	cutAfter time.Duration
	tls      bool   // to the TLS listener
	alpn     string // "", or what it asks for in a handshake that comes first
}

const (
	preface   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings  = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"     // of HTTP/2, empty
	headers   = "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" // without END_HEADERS
	slowLimit = 10 * time.Second                           // S7
	badLimit  = 5 * time.Second                            // S9
)

// peers are the kinds. The bytes after an upgrade are frames of yamux, or of RFC 6455, section 5.2.
func peers() []peer {
	return []peer{
		{name: "silent", cutAfter: slowLimit},
		{name: "slow headers", say: "GET / HTTP/1.1\r\nHost: good.localhost\r\nX-Slow: ", dribble: "x", cutAfter: slowLimit},
		{name: "slow HTTP/2 preface", say: preface[:7], cutAfter: slowLimit},
		{name: "half an HTTP/2 header", say: preface + settings + headers, cutAfter: slowLimit},
		{name: "no hello", upgrade: protocol.Upgrade, cutAfter: slowLimit},
		{name: "slow hello", upgrade: protocol.Upgrade, say: string(frame(nil, frameData, flagSYN, control, 600)) + "\x00\x00\x02\x54{\"hello\":", dribble: " ", cutAfter: slowLimit},
		{name: "a message of 4 GB", upgrade: protocol.Upgrade, say: string(frame(nil, frameData, flagSYN, control, 1<<20)) + "\xff\xff\xff\xff", dribble: "x", cutAfter: badLimit},
		{name: "frames of no version", upgrade: protocol.Upgrade, say: strings.Repeat("\x7f", 24), cutAfter: badLimit},
		{name: "a WebSocket frame without a mask", upgrade: "websocket", say: "\x82\x05hello", cutAfter: badLimit},
		{name: "a WebSocket frame of 2^62 bytes", upgrade: "websocket", say: "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00mask", cutAfter: slowLimit},
		{name: "WebSocket fragments", upgrade: "websocket", say: "\x02\x81maskx", dribble: "\x00\x81maskx", cutAfter: slowLimit},
	}
}

// slowPeers opens many connections of each kind beside requests that must not suffer: one kind after the
// other, or, in a quick run, all at the same time.
func (t *trial) slowPeers() error {
	if err := t.serve(quiet); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "good"); err != nil {
		return err
	}
	t.crowds(peers(), false)
	return nil
}

// crowds are the connections of slowPeers, for each of the kinds; secure has the good requests come by https.
func (t *trial) crowds(kinds []peer, secure bool) {
	batches := make([][]peer, 0, len(kinds))
	for _, p := range kinds {
		batches = append(batches, []peer{p})
	}
	if t.options.quick {
		batches = [][]peer{kinds}
	}
	before := t.send(paced{name: "good", requests: 1_000, over: 5 * time.Second, secure: secure})
	for _, batch := range batches {
		rss := t.server.RSS()
		var all sync.WaitGroup
		for _, p := range batch {
			all.Go(func() { t.crowd(p, pick(t, 200, 5_000)) })
		}
		during := t.send(paced{name: "good", requests: 1_000, over: 10 * time.Second, secure: secure})
		all.Wait()
		each := (t.server.PeakRSS() - rss) / float64(len(batch)*pick(t, 200, 5_000)) / 1024
		name := batch[0].name
		if len(batch) > 1 {
			name = fmt.Sprintf("%d kinds", len(batch))
		}
		t.check(len(during.errors) == 0 && each <= 64, "beside "+name+": 1,000 good requests; growth of the server's memory for each",
			fmt.Sprintf("%s; p99 %.1f ms, before %.1f; %.1f KiB", during.failed(), ms(during.p99()), ms(before.p99()), each), "0 failed; <= 64 KiB")
	}
}

// crowd opens n connections of a kind, within two seconds, and checks when they are cut off.
func (t *trial) crowd(p peer, n int) {
	var mu sync.Mutex
	var longest time.Duration
	var first error
	kept, failed := 0, 0
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		time.Sleep(time.Until(start.Add(time.Duration(i) * 2 * time.Second / time.Duration(n))))
		all.Go(func() {
			took, err := t.dawdle(p, i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed, first = failed+1, err
			case took == 0:
				kept++
			}
			longest = max(longest, took)
		})
	}
	all.Wait()
	figure := fmt.Sprintf("%d kept, the last after %s", kept, seconds(longest))
	if failed > 0 {
		figure += fmt.Sprintf("; %d did not begin, as: %v", failed, first)
	}
	limit := p.cutAfter + time.Second // this process needs its turn, too
	t.mine.Lock()
	defer t.mine.Unlock()
	t.check(kept == 0 && failed == 0 && longest <= limit, fmt.Sprintf("%d peers, %s: cut off", n, p.name), figure, "all, <= "+seconds(limit))
}

// dawdle is one of them. It gives the time until the server cut it off, 0 if it did not in half as long again.
func (t *trial) dawdle(p peer, i int) (time.Duration, error) {
	addr := t.addr
	if p.tls {
		addr = t.secure
	}
	w, err := dialTo(addr, i)
	if err != nil {
		return 0, err
	}
	defer w.reset()
	out, in := io.Writer(w), io.Reader(w.in)
	switch {
	case p.alpn != "":
		c := tls.Client(w.TCPConn, t.greeting("good", p.alpn))
		err = c.Handshake()
		out, in = c, c
	case p.upgrade == "":
	case p.upgrade == protocol.Upgrade:
		err = w.upgrade(t.addr)
	default:
		err = w.upgradeWebSocket(t.addr)
	}
	if err != nil {
		return 0, err
	}
	start := time.Now()
	limit := start.Add(p.cutAfter + max(p.cutAfter/2, 4*time.Second))
	_ = w.SetDeadline(limit)
	if _, err := io.WriteString(out, p.say); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = io.WriteString(out, p.dribble) // the reader sees where it fails
		case <-ended:
			if !time.Now().Before(limit) {
				return 0, nil
			}
			return max(time.Since(start), 1), nil
		}
	}
}
