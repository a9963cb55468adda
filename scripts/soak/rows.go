package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

// A row is one trial.
type row struct {
	name, promise, about string
	waits                bool // it needs time rather than the machine
	measure              func(t *trial) error
}

// rows are all rows, in the order in which they are printed.
func rows() []row {
	return []row{
		{"idle", "R18", "10,000 idle tunnels", true, (*trial).idle},
		{"concurrency", "R19", "10,000 requests of 2 s at the same time", false, (*trial).concurrency},
		{"herd", "R21", "the server is killed and started again under 10,000 clients", false, (*trial).herd},
		{"churn", "R22", "100,000 sessions that break off at every stage", false, (*trial).churn},
		{"slow-link", "R11", "256 kbit/s, 32 writers each way, 10 minutes", true, (*trial).slowLink},
		{"half-open", "R8", "packets lost one way, the other, both", true, (*trial).halfOpen},
		{"dropped", "R8", "packets dropped by the kernel between two network namespaces, one way and the other", true, (*trial).dropped},
		{"sleep", "R9", "clients stopped for 5 minutes", true, (*trial).sleep},
		{"long-path", "R12", "20, 100 and 200 ms round trip, one stream", false, (*trial).longPath},
		{"stalled", "R14", "1,000 visitors that read 100 MB at 1 kB/s", false, (*trial).stalled},
		{"overload", "R37", "512 MiB under stalled downloads, idle connections and a flood", false, (*trial).overload},
		{"slow-peers", "S7 S9", "5,000 slow or broken connections of each kind", false, (*trial).slowPeers},
		{"tls-peers", "S7", "the same on TLS and behind the PROXY protocol: handshakes and headers that do not end", false, (*trial).tlsPeers},
		{"http2-floods", "S6", "visitors that flood: resets, CONTINUATION, PING, SETTINGS and more", false, (*trial).http2Floods},
		{"tls-floods", "S6", "the same over TLS", false, (*trial).tlsFloods},
		{"quic-floods", "S6 S7", "first packets without end, and HTTP/3 connections and streams that say nothing", false, (*trial).quicFloods},
		{"tcp-ports", "R14", "1,000 visitors of a port for connections that never read", false, (*trial).tcpPorts},
		{"udp-spray", "S6", "datagrams from 20,000 addresses", false, (*trial).udpSpray},
		{"dns-garbage", "S9", "garbage for --acme-dns self, by UDP and TCP", false, (*trial).dnsGarbage},
		{"floods", "S10", "hostile clients: pings, streams, windows, ids, lengths", false, (*trial).floods},
		{"ptth-floods", "S10", "hostile origins: SETTINGS, PING, resets, CONTINUATION, windows and more", false, (*trial).ptthFloods},
	}
}

// A verdict is what became of a check.
type verdict string

const (
	pass    verdict = "pass"
	fail    verdict = "FAIL"
	skipped verdict = "skipped"
)

// A check is one thing that a promise says, and what was seen.
type check struct {
	row, promise        string
	done, figure, limit string
	verdict             verdict
}

// A trial is one row under way.
type trial struct {
	*site
	row    row
	mine   sync.Mutex // for who checks from several goroutines
	checks []check
}

// check notes a figure and whether it is within the limit.
func (t *trial) check(ok bool, done, figure, limit string) {
	v := pass
	if !ok {
		v = fail
	}
	t.checks = append(t.checks, check{t.row.name, t.row.promise, done, figure, limit, v})
}

// atMost checks a number against its limit; format prints both.
func (t *trial) atMost(done, format string, got, limit float64) {
	t.check(got <= limit, done, fmt.Sprintf(format, got), "<= "+fmt.Sprintf(format, limit))
}

// runAll runs the rows asked for: those that wait together, and the others after them, or, in a quick
// run, meanwhile.
func (l *lab) runAll() []check {
	all := rows()
	found := make([][]check, len(all))
	var waiting sync.WaitGroup
	for i, r := range all {
		if r.waits && l.options.wants(r) {
			waiting.Go(func() { found[i] = l.run(r) })
		}
	}
	if !l.options.quick {
		waiting.Wait()
	}
	for i, r := range all {
		if !r.waits && l.options.wants(r) {
			found[i] = l.run(r)
		}
	}
	waiting.Wait()
	var checks []check
	for _, c := range found {
		checks = append(checks, c...)
	}
	return checks
}

// run runs one row on a site of its own, which is cleared afterwards.
func (l *lab) run(r row) []check {
	start := time.Now()
	t := &trial{site: l.newSite(), row: r}
	stop := context.AfterFunc(l.ctx, t.Clear) // ends what the row waits for
	err := t.begin()
	if err == nil {
		err = r.measure(t)
	}
	stop()
	t.Clear()
	if err != nil {
		t.check(false, r.about, "the trial broke off: "+err.Error(), "it ends")
	}
	fmt.Fprintf(os.Stderr, "soak: %-12s %5.1f s\n", r.name, time.Since(start).Seconds())
	for _, c := range t.checks {
		fmt.Fprintf(os.Stderr, "soak:   %s: %s, %s: %s\n", c.verdict, c.done, c.figure, c.limit)
	}
	return t.checks
}

// pick is quick's value in a quick run and full's otherwise.
func pick[T any](t *trial, quick, full T) T {
	if t.options.quick {
		return quick
	}
	return full
}
