package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/revtun/tunnel/internal/rig"
)

// dnsGarbage sends what is no question to the DNS server of --acme-dns self, whose authority cannot be reached,
// beside good questions and requests.
func (t *trial) dnsGarbage() error {
	const growth = 32
	var err error
	if t.secure, err = t.FreePort(); err != nil {
		return err
	}
	at, err := t.FreePort()
	if err != nil {
		return err
	}
	nobody, err := t.FreePort()
	if err != nil {
		return err
	}
	storage := filepath.Join(t.lab.dir, "acme-"+t.secure)
	if err := os.MkdirAll(storage, 0o700); err != nil {
		return err
	}
	if err := t.serve(quiet, "--tls-listen", t.secure, "--allow-plain", "*", "--acme-dns", "self", "--acme-dns-listen", at,
		"--acme-ca", "https://"+nobody+"/directory", "--acme-storage", storage); err != nil {
		return err
	}
	if _, err := t.client(t.addr, "others"); err != nil {
		return err
	}
	if err := t.Until(rig.Patience, 10*time.Millisecond, func() error { return question("udp", at) }); err != nil {
		return err
	}
	long := pick(t, 3*time.Second, 10*time.Second)
	before := t.send(paced{name: "others", requests: 900, over: 3 * time.Second})
	rss := t.server.PeakRSS()
	end := time.Now().Add(long)
	var asked, lost, sent atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { sent.Add(garbageUDP(at, end)) })
	}
	for range 100 {
		all.Go(func() { sent.Add(garbageTCP(at, end)) })
	}
	all.Go(func() {
		for time.Now().Before(end) {
			asked.Add(1)
			if question("udp", at) != nil {
				lost.Add(1)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	during := t.send(paced{name: "others", requests: 900, over: long})
	all.Wait()
	done := fmt.Sprintf("%d messages of garbage to the DNS server: ", sent.Load())
	t.atMost(done+"growth of the server's memory", "%.1f MiB", (t.server.PeakRSS()-rss)/mib, growth)
	t.check(lost.Load()*2 <= asked.Load(), done+"good questions beside", fmt.Sprintf("%d of %d had no answer to three tries", lost.Load(), asked.Load()), "half at most")
	t.check(len(during.errors) == 0, done+"requests beside",
		fmt.Sprintf("%s; p99 %.1f ms, before %.1f", during.failed(), ms(during.p99()), ms(before.p99())), "0 failed")
	for _, network := range []string{"udp", "tcp"} {
		start := time.Now()
		if err := t.Until(rig.Patience, 20*time.Millisecond, func() error { return question(network, at) }); err != nil {
			return err
		}
		t.check(time.Since(start) <= 6*time.Second, done+"an answer by "+network+" afterwards", seconds(time.Since(start)), "<= 6.0 s")
	}
	return nil
}

// question asks for the start of authority, three times by UDP, as resolvers do.
func question(network, at string) error {
	m := new(dns.Msg)
	m.SetQuestion("_acme-challenge.localhost.", dns.TypeSOA)
	c := dns.Client{Net: network, Timeout: 300 * time.Millisecond}
	var err error
	for range 3 {
		var answer *dns.Msg
		answer, _, err = c.Exchange(m, at)
		if err == nil && (answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0) {
			return errors.New("no answer but " + answer.String())
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// garbage is one message of some kind of wrong: noise, a good header before noise, a name that points at
// itself, more questions than there are, an answer.
func garbage() []byte {
	b := make([]byte, 12+mrand.IntN(1400))
	_, _ = rand.Read(b)
	switch mrand.IntN(4) {
	case 0:
		copy(b[2:], []byte{1, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	case 1:
		b = append(b[:2], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 16, 0, 1)
	case 2:
		copy(b[2:], []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	}
	return b
}

// garbageUDP sends until end, and returns how many.
func garbageUDP(at string, end time.Time) (n int64) {
	for time.Now().Before(end) {
		c, err := net.Dial("udp", at)
		if err != nil {
			continue
		}
		for range 100 {
			_, _ = c.Write(garbage()) // or it is lost
			n++
		}
		c.Close()
	}
	return n
}

// garbageTCP makes one connection after the other, each with a message, and a length that may be a lie.
func garbageTCP(at string, end time.Time) (n int64) {
	for time.Now().Before(end) {
		c, err := net.DialTimeout("tcp", at, time.Second)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		_ = c.SetDeadline(end)
		b := garbage()
		length := uint16(len(b) + mrand.IntN(3)*20_000)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, length), b...)); err == nil {
			n++
		}
		_, _ = c.Read(make([]byte, 1)) // until it answers or ends
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	return n
}
