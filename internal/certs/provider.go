package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3"
	acmeproto "github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// Provider sets and removes the TXT records of DNS-01. Those of
// github.com/libdns fit.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// ParseDNS is the provider that a command line names: none for "", a [SelfDNS]
// for "self", whose Listen and Run its caller has to call, or an [ExecDNS] for
// "exec:COMMAND". The error says what may be written.
func ParseDNS(flag, domain string) (Provider, error) {
	command, exec := strings.CutPrefix(flag, "exec:")
	switch {
	case flag == "":
		return nil, nil
	case flag == "self":
		return &SelfDNS{Domain: domain}, nil
	case exec:
		d := &ExecDNS{Command: command}
		return d, d.check()
	}
	return nil, fmt.Errorf("no DNS provider %q: there are self and exec:COMMAND", flag)
}

// newSolver proves names by the provider of c.
func newSolver(c ACMEConfig, log *zap.Logger) acmez.Solver {
	if self, ok := c.DNS.(*SelfDNS); ok {
		return selfSolver{self}
	}
	propagation := c.Propagation
	if propagation < 0 {
		propagation = -1
	}
	return &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider:        c.DNS,
		PropagationTimeout: propagation,
		Resolvers:          c.Resolvers,
		Logger:             log,
	}}
}

// selfSolver sets records that are public at once, in a zone that is known:
// nothing has to be looked up before.
type selfSolver struct{ dns *SelfDNS }

func (s selfSolver) records(c acmeproto.Challenge) []libdns.Record {
	return []libdns.Record{libdns.TXT{
		Name: libdns.RelativeName(c.DNS01TXTRecordName()+".", s.dns.zone()),
		Text: c.DNS01KeyAuthorization(),
		TTL:  recordTTL,
	}}
}

// Present sets the record.
func (s selfSolver) Present(ctx context.Context, c acmeproto.Challenge) error {
	_, err := s.dns.AppendRecords(ctx, s.dns.zone(), s.records(c))
	return err
}

// CleanUp removes it.
func (s selfSolver) CleanUp(ctx context.Context, c acmeproto.Challenge) error {
	_, err := s.dns.DeleteRecords(ctx, s.dns.zone(), s.records(c))
	return err
}

// Limits of a SelfDNS.
const (
	recordTTL  = 5 * time.Second // of TXT records, and of "there is none"
	zoneTTL    = time.Hour       // of NS and SOA
	maxRecords = 16              // an order for two names needs two
)

// zone is the only name that is answered for.
func (d *SelfDNS) zone() string {
	return "_acme-challenge." + strings.ToLower(strings.TrimSuffix(d.Domain, ".")) + "."
}

// AppendRecords sets TXT records of _acme-challenge.Domain. Others are errors,
// and so are more than 16.
func (d *SelfDNS) AppendRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	values, err := d.values(zone, records)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.txt)+len(values) > maxRecords {
		return nil, fmt.Errorf("%s has %d records already", d.zone(), len(d.txt))
	}
	d.txt = append(d.txt, values...)
	d.set, d.asked = true, false
	d.serial++
	return records, nil
}

// DeleteRecords removes records that AppendRecords has set, and says which.
func (d *SelfDNS) DeleteRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	values, err := d.values(zone, records)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone []libdns.Record
	for i, v := range values {
		for j, have := range d.txt {
			if have == v {
				d.txt = append(d.txt[:j:j], d.txt[j+1:]...)
				gone = append(gone, records[i])
				break
			}
		}
	}
	d.serial++
	return gone, nil
}

// values are the texts of records, which are all to be of our one name.
func (d *SelfDNS) values(zone string, records []libdns.Record) ([]string, error) {
	values := make([]string, 0, len(records))
	for _, r := range records {
		rr := r.RR()
		name := strings.ToLower(strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".") + ".")
		if rr.Type != "TXT" || name != d.zone() {
			return nil, fmt.Errorf("%s %s is not a TXT record of %s", name, rr.Type, d.zone())
		}
		if len(rr.Data) > 255 {
			return nil, errors.New("a TXT record of more than 255 bytes")
		}
		values = append(values, rr.Data)
	}
	return values, nil
}

// unasked is what to do where nobody asked for the record that was set last,
// and empty where somebody did, or none was set since it was called.
func (d *SelfDNS) unasked() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.set
	d.set = false
	if d.asked || !set {
		return ""
	}
	zone := strings.TrimSuffix(d.zone(), ".")
	return fmt.Sprintf("nobody asked this server for %s: does the record \"%s NS %s\" exist, does %s lead here, and does port 53 get through, UDP and TCP?",
		zone, zone, d.host(), d.host())
}
