package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// selfDNS serves the name of tunnel.example.test.
func selfDNS(t *testing.T) *SelfDNS {
	t.Helper()
	d := &SelfDNS{Domain: "Tunnel.Example.test."}
	if err := d.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	run(t, d.Run)
	return d
}

// TestSelfDNS01 orders the domain and its wildcard by records that the server
// itself serves.
func TestSelfDNS01(t *testing.T) {
	d := selfDNS(t)
	s := newSite(t, pebble.Config{Resolver: pebble.Resolver(t, d.Addr)})
	a := s.start(t, ACMEConfig{DNS: d, Allowed: func(_ context.Context, name string) error {
		if name == "app.example.org" {
			return nil
		}
		return errors.New("not asked for " + name)
	}})
	run(t, a.Run)
	cert := s.mustVisit(t, "demo.tunnel.example.test")
	if !slices.Equal(cert.DNSNames, []string{"*.tunnel.example.test"}) {
		t.Errorf("%q", cert.DNSNames)
	}
	if other := s.mustVisit(t, "other.tunnel.example.test"); other.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("another name got another certificate")
	}
	if own := s.mustVisit(t, "tunnel.example.test"); !slices.Equal(own.DNSNames, []string{"tunnel.example.test"}) {
		t.Errorf("%q", own.DNSNames)
	}
	// A custom domain is proven in another way.
	s.mustVisit(t, "app.example.org")
	if _, err := a.GetCertificate(hello("a.b.tunnel.example.test")); err == nil || !strings.Contains(err.Error(), "not asked for a.b.") {
		t.Errorf("%v", err)
	}
	if n := s.ca.Orders(); n != 3 {
		t.Errorf("%d orders", n)
	}
	poll.Until(t, "the records are gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.txt) == 0
	})
}

// TestWildcardRenewal says that a wildcard is renewed in the only way there is.
func TestWildcardRenewal(t *testing.T) {
	d := selfDNS(t)
	s := newSite(t, pebble.Config{Resolver: pebble.Resolver(t, d.Addr), Validity: 30 * time.Minute})
	a := s.start(t, ACMEConfig{DNS: d})
	first := s.mustVisit(t, "demo.tunnel.example.test")
	if err := a.cache.RenewManagedCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "another certificate", func() bool {
		return s.mustVisit(t, "demo.tunnel.example.test").SerialNumber.Cmp(first.SerialNumber) != 0
	})
}

// TestSelfDNSNotReached says what is missing where the NS record is.
func TestSelfDNSNotReached(t *testing.T) {
	d := selfDNS(t)
	s := newSite(t, pebble.Config{})
	a := s.start(t, ACMEConfig{DNS: d})
	_, err := a.GetCertificate(hello("demo.tunnel.example.test"))
	want := `does the record "_acme-challenge.tunnel.example.test NS tunnel.example.test" exist`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(s.log.String(), "nobody asked this server") {
		t.Errorf("the log:\n%s", s.log)
	}
}

// TestSelfDNSHint says that the hint is for what it can explain.
func TestSelfDNSHint(t *testing.T) {
	d := selfDNS(t)
	s := newSite(t, pebble.Config{})
	s.ca.Fail()
	a := s.start(t, ACMEConfig{DNS: d})
	_, err := a.GetCertificate(hello("demo.tunnel.example.test"))
	if err == nil || strings.Contains(err.Error(), "nobody asked") {
		t.Errorf("%v", err)
	}
}

// TestSelfDNSAnswersFromWhereAsked says that a server on all addresses answers
// from the one that was asked: others' resolvers drop what comes from elsewhere.
func TestSelfDNSAnswersFromWhereAsked(t *testing.T) {
	d := &SelfDNS{Domain: "tunnel.example.test"}
	if err := d.Listen(":0"); err != nil {
		t.Fatal(err)
	}
	run(t, d.Run)
	_, port, err := net.SplitHostPort(d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1"}
	if runtime.GOOS == "linux" {
		hosts = append(hosts, "127.0.0.2")
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		q := new(dns.Msg)
		q.SetQuestion(d.zone(), dns.TypeSOA)
		m, err := dns.Exchange(q, net.JoinHostPort(host, port))
		if err != nil || len(m.Answer) != 1 {
			t.Errorf("%s: %v, %v", host, m, err)
		}
	}
}

func TestSelfDNSAnswers(t *testing.T) {
	d := selfDNS(t)
	zone := "_acme-challenge.tunnel.example.test."
	for _, v := range []string{"one", "two"} {
		if _, err := d.AppendRecords(t.Context(), zone, []libdns.Record{libdns.TXT{Name: "@", Text: v}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		kind   uint16
		class  uint16
		rcode  int
		answer int
		ns     int
	}{
		{zone, dns.TypeTXT, dns.ClassINET, dns.RcodeSuccess, 2, 0},
		{"_ACME-challenge.TUNNEL.example.test.", dns.TypeTXT, dns.ClassINET, dns.RcodeSuccess, 2, 0},
		{zone, dns.TypeSOA, dns.ClassINET, dns.RcodeSuccess, 1, 0},
		{zone, dns.TypeNS, dns.ClassINET, dns.RcodeSuccess, 1, 0},
		{zone, dns.TypeA, dns.ClassINET, dns.RcodeSuccess, 0, 1},
		{zone, dns.TypeCAA, dns.ClassINET, dns.RcodeSuccess, 0, 1},
		{zone, dns.TypeANY, dns.ClassINET, dns.RcodeSuccess, 0, 1},
		{"x." + zone, dns.TypeTXT, dns.ClassINET, dns.RcodeNameError, 0, 1},
		{"tunnel.example.test.", dns.TypeTXT, dns.ClassINET, dns.RcodeRefused, 0, 0},
		{"a_acme-challenge.tunnel.example.test.", dns.TypeTXT, dns.ClassINET, dns.RcodeRefused, 0, 0},
		{".", dns.TypeNS, dns.ClassINET, dns.RcodeRefused, 0, 0},
		{"version.bind.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, 0, 0},
		{zone, dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, 0, 0},
		{zone, dns.TypeAXFR, dns.ClassINET, dns.RcodeSuccess, 0, 1},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if test.kind == dns.TypeAXFR && network == "udp" {
				continue
			}
			q := new(dns.Msg)
			q.SetQuestion(test.name, test.kind)
			q.Question[0].Qclass = test.class
			client := &dns.Client{Net: network, Timeout: 10 * time.Second}
			m, _, err := client.Exchange(q, d.Addr())
			if err != nil {
				t.Fatalf("%s %s: %v", test.name, network, err)
			}
			if m.Rcode != test.rcode || len(m.Answer) != test.answer || len(m.Ns) != test.ns || m.RecursionAvailable {
				t.Errorf("%s %d %s:\n%v", test.name, test.kind, network, m)
			}
			if m.Question[0].Name != test.name {
				t.Errorf("%s: the question came back as %s", test.name, m.Question[0].Name)
			}
		}
	}
}

// TestSelfDNSSmallAnswers says that no answer over UDP is large, and that who
// wants the rest gets it over TCP.
func TestSelfDNSSmallAnswers(t *testing.T) {
	d := selfDNS(t)
	var sent int
	for i := range maxRecords + 1 {
		_, err := d.AppendRecords(t.Context(), d.zone(), []libdns.Record{libdns.TXT{Name: "@", Text: fmt.Sprintf("%043d", i)}})
		if (err != nil) != (i == maxRecords) {
			t.Fatalf("record %d: %v", i, err)
		}
		if err == nil {
			sent++
		}
	}
	q := new(dns.Msg)
	q.SetQuestion(d.zone(), dns.TypeTXT)
	q.SetEdns0(4096, true)
	client := &dns.Client{Net: "udp", UDPSize: 4096, Timeout: 10 * time.Second}
	m, _, err := client.Exchange(q, d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	m.Compress = true // as it was sent
	if b, err := m.Pack(); err != nil || len(b) > 512 || !m.Truncated {
		t.Errorf("%d bytes over UDP, truncated %v, %v", len(b), m.Truncated, err)
	}
	client.Net = "tcp"
	m, _, err = client.Exchange(q, d.Addr())
	if err != nil || len(m.Answer) != sent {
		t.Errorf("over TCP %v, %v", m, err)
	}
}

func TestSelfDNSOthersRecords(t *testing.T) {
	d := &SelfDNS{Domain: "tunnel.example.test"}
	for _, r := range []struct {
		zone   string
		record libdns.Record
	}{
		{"tunnel.example.test.", libdns.TXT{Name: "www", Text: "x"}},
		{"_acme-challenge.tunnel.example.test.", libdns.RR{Type: "A", Name: "@", Data: "192.0.2.1"}},
		{"example.org.", libdns.TXT{Name: "_acme-challenge", Text: "x"}},
		{"_acme-challenge.tunnel.example.test.", libdns.TXT{Name: "@", Text: strings.Repeat("x", 256)}},
	} {
		if _, err := d.AppendRecords(t.Context(), r.zone, []libdns.Record{r.record}); err == nil {
			t.Errorf("%v is served", r)
		}
	}
	for _, zone := range []string{"example.test.", "tunnel.example.test", "_acme-challenge.tunnel.example.test."} {
		name := libdns.RelativeName(d.zone(), zone)
		records := []libdns.Record{libdns.RR{Type: "TXT", Name: name, Data: "x"}}
		if _, err := d.AppendRecords(t.Context(), zone, records); err != nil {
			t.Errorf("%s in %s: %v", name, zone, err)
		}
		if gone, err := d.DeleteRecords(t.Context(), zone, records); err != nil || len(gone) != 1 {
			t.Errorf("%s in %s: %v, %v", name, zone, gone, err)
		}
	}
	if len(d.txt) != 0 {
		t.Errorf("%q are left", d.txt)
	}
}

// TestSelfDNSConnections says that one connection more than the bound is not
// served, and that those within it are.
func TestSelfDNSConnections(t *testing.T) {
	d := selfDNS(t)
	q := new(dns.Msg)
	q.SetQuestion(d.zone(), dns.TypeSOA)
	ask := func() error {
		c, err := dns.DialTimeout("tcp", d.Addr(), 10*time.Second)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.WriteMsg(q); err != nil {
			return err
		}
		_, err = c.ReadMsg()
		return err
	}
	for i := range maxTCPConns {
		if err := ask(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := ask(); err == nil {
		t.Error("one more is answered")
	}
}

func TestSelfDNSPortTaken(t *testing.T) {
	d := selfDNS(t)
	err := (&SelfDNS{Domain: "tunnel.example.test"}).Listen(d.Addr())
	if err == nil || !strings.Contains(err.Error(), "another DNS server is there") || !strings.Contains(err.Error(), "--acme-dns-listen") {
		t.Errorf("%v", err)
	}
}

// FuzzSelfDNS holds the server to what makes it safe on the open internet,
// whatever arrives.
func FuzzSelfDNS(f *testing.F) {
	d := &SelfDNS{Domain: "tunnel.example.test", txt: []string{"one", "two"}}
	for _, name := range []string{d.zone(), "x." + d.zone(), "example.org.", "."} {
		for _, kind := range []uint16{dns.TypeTXT, dns.TypeSOA, dns.TypeANY} {
			q := new(dns.Msg)
			q.SetQuestion(name, kind)
			q.SetEdns0(4096, true)
			b, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(b[:len(b)-3])
			r := bytes.Clone(b)
			r[2] |= 0x80
			f.Add(r)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		b := d.answer(query, true)
		if b == nil {
			return
		}
		if len(query) < 12 || query[2]&0x80 != 0 {
			t.Fatal("what is no question is answered")
		}
		if len(b) > 512 {
			t.Fatalf("%d bytes", len(b))
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			t.Fatalf("the answer cannot be read: %v", err)
		}
		if !m.Response || b[0] != query[0] || b[1] != query[1] || m.RecursionAvailable {
			t.Fatalf("%v", m)
		}
		for _, rr := range m.Answer {
			if !strings.EqualFold(rr.Header().Name, d.zone()) {
				t.Fatalf("%v is not ours", rr)
			}
		}
	})
}
