package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// pingSize is the bytes of a small exchange without HTTP, each way.
const pingSize = 64

func tcpRow() row {
	return row{
		name: "tcp",
		about: "Raw TCP: 64 bytes there and back on kept connections and on new ones, and 512 MiB down and up " +
			"(quick: 256 MiB)",
		metrics: withYard(twoRelays, slices.Concat(smallRow().metrics, bulkRow().metrics)),
		measure: func(r *run, row row) {
			fits := func(v variant) bool { return v.raw }
			r.each(row, pick(r, 1, 3), fits, func(s *site, v variant) error { return r.tcp(row, s, v) })
		},
	}
}

// withYard gives metrics another yardstick.
func withYard(yard string, metrics []metric) []metric {
	metrics = slices.Clone(metrics)
	for i := range metrics {
		metrics[i].yard = yard
	}
	return metrics
}

// tcp measures all cases on one tunnel.
func (r *run) tcp(row row, s *site, v variant) error {
	p, err := v.plan(s, s.rawApp)
	if err != nil {
		return err
	}
	dial := func(deadline time.Time) (caller, error) { return dialPinger(p.visit, deadline) }
	t := &tunnel{plan: p, site: s, probe: func(deadline time.Time) error { return anew{dial, deadline}.small() }}
	if err := t.open(nil); err != nil {
		return err
	}
	line := func(kase string) cell { return cell{row.name, kase, v.name, ""} }
	if err := r.exchanges(line, t, dial); err != nil {
		return err
	}
	size := pick[int64](r, 256<<20, 512<<20)
	err = r.bulkCase(line(bulkBody), t, size, func() (mover, error) {
		c, err := dialUntil(p.visit, time.Now().Add(time.Minute))
		return &rawTransfer{conn: c, bytes: size}, err
	})
	if err != nil {
		return err
	}
	return t.check()
}

func dialUntil(addr string, deadline time.Time) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(deadline)
}

// A pinger is a connection to the app without HTTP that sends a few bytes and waits for them.
type pinger struct {
	conn      net.Conn
	sent, got [pingSize]byte
}

func dialPinger(addr string, deadline time.Time) (*pinger, error) {
	c, err := dialUntil(addr, deadline)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{askEcho}); err != nil {
		c.Close()
		return nil, err
	}
	return &pinger{conn: c}, nil
}

func (p *pinger) close() { p.conn.Close() }

// small makes one exchange; each has a number of its own.
func (p *pinger) small() error {
	binary.BigEndian.PutUint64(p.sent[:], binary.BigEndian.Uint64(p.sent[:])+1)
	if _, err := p.conn.Write(p.sent[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(p.conn, p.got[:]); err != nil {
		return err
	}
	if !bytes.Equal(p.sent[:], p.got[:]) {
		return fmt.Errorf("%x came back, %x was sent", p.got, p.sent)
	}
	return nil
}

// A rawTransfer is one large body without HTTP.
type rawTransfer struct {
	conn  net.Conn
	bytes int64
}

func (t *rawTransfer) close() { t.conn.Close() }

func (t *rawTransfer) down() error {
	if _, err := t.conn.Write(binary.BigEndian.AppendUint64([]byte{askDown}, uint64(t.bytes))); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	var sum int64
	for {
		n, err := t.conn.Read(buf)
		sum += int64(n)
		switch {
		case err == io.EOF && sum != t.bytes:
			return fmt.Errorf("%d bytes of %d came, and then the end", sum, t.bytes)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// up uploads, and checks that the app got all. The end of its direction would say so too, but some
// peers do not pass that on.
func (t *rawTransfer) up() error {
	if _, err := t.conn.Write(binary.BigEndian.AppendUint64([]byte{askUp}, uint64(t.bytes))); err != nil {
		return err
	}
	block := make([]byte, 256<<10)
	for left := t.bytes; left > 0; {
		n, err := t.conn.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	var answer [8]byte
	if _, err := io.ReadFull(t.conn, answer[:]); err != nil {
		return err
	}
	if got := int64(binary.BigEndian.Uint64(answer[:])); got != t.bytes {
		return fmt.Errorf("the app got %d bytes of %d", got, t.bytes)
	}
	return nil
}
