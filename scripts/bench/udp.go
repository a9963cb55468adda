package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The load of udp's last case, and its metric.
const (
	datagramRate = 10_000 // a second
	datagramSize = 1200   // bytes, as QUIC's
	steadyRate   = "10,000/s"
	lost         = "lost %"
)

func udpRow() row {
	return row{
		name: "udp",
		about: "Datagrams that the app sends back: of 64 bytes one after the other, by 1 and by 64 visitors, and of " +
			"1,200 bytes at 10,000 a second by one visitor",
		metrics: append(withYard(twoRelays, smallRow().metrics), metric{lost, 2, ""}),
		measure: func(r *run, row row) {
			fits := func(v variant) bool { return v.datagrams != nil }
			r.each(row, pick(r, 1, 3), fits, func(s *site, v variant) error { return r.udp(row, s, v) })
		},
	}
}

// udp measures all cases on one tunnel.
func (r *run) udp(row row, s *site, v variant) error {
	p, err := v.datagrams(s, s.rawApp)
	if err != nil {
		return err
	}
	p.datagrams = true
	t := &tunnel{plan: p, site: s, probe: func(time.Time) error { return probeDatagrams(p.visit) }}
	if err := t.open(nil); err != nil {
		return err
	}
	for _, visitors := range []int{1, 64} {
		line := cell{row.name, connections(visitors), v.name, ""}
		var sent, missed atomic.Int64
		l := &load{conns: visitors, measure: pick(r, 250*time.Millisecond, 800*time.Millisecond)}
		l.dial = func(time.Time) (caller, error) { return dialThrower(p.visit, &sent, &missed) }
		if err := r.smallCase(line, t, l); err != nil {
			return err
		}
		r.store.add(line.row, line.kase, line.variant, lost, 100*float64(missed.Load())/float64(sent.Load()))
	}
	if err := r.steady(cell{row.name, steadyRate, v.name, ""}, t); err != nil {
		return &caseError{steadyRate, err}
	}
	return t.check()
}

// probeDatagrams makes one exchange, and does not wait long.
func probeDatagrams(addr string) error {
	c, err := dialDatagrams(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	th := &thrower{conn: c, limit: 50 * time.Millisecond}
	return th.once()
}

// A thrower is a visitor that sends a datagram and waits for it.
type thrower struct {
	conn         net.Conn
	limit        time.Duration // what has not come back by then is lost
	sent, missed *atomic.Int64
	out, in      [pingSize]byte
}

func dialThrower(addr string, sent, missed *atomic.Int64) (*thrower, error) {
	c, err := dialDatagrams(addr)
	return &thrower{conn: c, limit: 250 * time.Millisecond, sent: sent, missed: missed}, err
}

func (t *thrower) close() { t.conn.Close() }

// small is one exchange, with another datagram for each one that is lost. It gives up after many.
func (t *thrower) small() error {
	const patient = 20
	var err error
	for range patient {
		t.sent.Add(1)
		if err = t.once(); err == nil {
			return nil
		}
		t.missed.Add(1)
	}
	return err
}

// once sends a datagram with a number of its own and waits for it, but not for earlier ones.
func (t *thrower) once() error {
	binary.BigEndian.PutUint64(t.out[:], binary.BigEndian.Uint64(t.out[:])+1)
	if _, err := t.conn.Write(t.out[:]); err != nil {
		return err
	}
	if err := t.conn.SetReadDeadline(time.Now().Add(t.limit)); err != nil {
		return err
	}
	for {
		n, err := t.conn.Read(t.in[:])
		if err != nil {
			return err
		}
		if bytes.Equal(t.in[:n], t.out[:]) {
			return nil
		}
	}
}

// steady sends at a fixed rate, whatever comes back, and stores under line what did.
func (r *run) steady(line cell, t *tunnel) error {
	c, err := dialDatagrams(t.visit)
	if err != nil {
		return err
	}
	defer c.Close()
	f := &flow{conn: c, measure: pick(r, 300*time.Millisecond, 1500*time.Millisecond)}
	cpu := t.cpu()
	got, err := f.run()
	if err != nil {
		return err
	}
	r.store.figures(line, got, t.cpu()-cpu)
	r.store.add(line.row, line.kase, line.variant, lost, 100*(1-float64(got.latency.total)/float64(f.sent)))
	return nil
}

// A flow is one visitor that sends numbered datagrams at [datagramRate].
type flow struct {
	conn    net.Conn
	measure time.Duration
	sent    int
}

// run sends, and counts what comes back until nothing has come for a while. A datagram that comes
// twice, or was never sent, is an error.
func (f *flow) run() (*loadResult, error) {
	total := int(f.measure.Seconds() * datagramRate)
	times := make([]atomic.Int64, total) // when each was sent, 0: not yet
	r := &loadResult{}
	start := time.Now()
	var receiving sync.WaitGroup
	var failed error
	receiving.Go(func() { failed = f.receive(start, times, &r.latency) })
	buf := make([]byte, datagramSize)
	for f.sent < total {
		due := int(time.Since(start).Seconds() * datagramRate)
		for ; f.sent < min(due, total); f.sent++ {
			binary.BigEndian.PutUint64(buf, uint64(f.sent))
			times[f.sent].Store(int64(time.Since(start)))
			_, _ = f.conn.Write(buf) // one that is lost is missed by receive
		}
		time.Sleep(time.Millisecond)
	}
	r.elapsed = time.Since(start)
	receiving.Wait()
	if failed == nil && r.latency.total == 0 {
		failed = errors.New("nothing came back")
	}
	return r, failed
}

// receive reads until all is back, or nothing has come for a while.
func (f *flow) receive(start time.Time, times []atomic.Int64, h *histogram) error {
	const silence = 300 * time.Millisecond
	seen := make([]bool, len(times))
	buf := make([]byte, 2*datagramSize)
	for h.total < len(times) {
		if err := f.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		n, err := f.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		i := binary.BigEndian.Uint64(buf)
		if n != datagramSize || i >= uint64(len(times)) || times[i].Load() == 0 || seen[i] {
			return errors.New("a datagram came that was not sent, or came twice")
		}
		seen[i] = true
		h.add(time.Since(start) - time.Duration(times[i].Load()))
	}
	return nil
}
