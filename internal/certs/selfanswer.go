package certs

import (
	"strings"
	"time"

	"github.com/miekg/dns"
)

// answer is what to send back for the bytes of a question, nil for nothing. It
// never answers an answer, so that two servers cannot be set upon each other.
func (d *SelfDNS) answer(query []byte, udp bool) []byte {
	if len(query) < 12 || query[2]&0x80 != 0 { // RFC 1035, section 4.1.1: the header, and QR
		return nil
	}
	q := new(dns.Msg)
	if q.Unpack(query) != nil {
		return malformed(query)
	}
	m := d.reply(q)
	most := dns.MaxMsgSize
	if udp {
		most = maxUDPAnswer
	}
	m.Truncate(most)
	b, err := m.Pack()
	if err != nil {
		return malformed(query)
	}
	return b
}

// malformed is a header alone that says so.
func malformed(query []byte) []byte {
	m := new(dns.Msg)
	m.Id = uint16(query[0])<<8 | uint16(query[1])
	m.Response = true
	m.Rcode = dns.RcodeFormatError
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// reply decides what a question gets.
func (d *SelfDNS) reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q) // the question as it was spelled, which resolvers check
	m.Compress = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDPAnswer, false)
		if opt.Version() != 0 {
			m.SetRcode(q, dns.RcodeBadVers)
			m.SetEdns0(maxUDPAnswer, false)
			return m
		}
	}
	zone := d.zone()
	switch {
	case q.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case len(q.Question) != 1:
		m.Question = nil
		m.Rcode = dns.RcodeFormatError
	case q.Question[0].Qclass != dns.ClassINET, !dns.IsSubDomain(zone, strings.ToLower(q.Question[0].Name)):
		m.Rcode = dns.RcodeRefused
	case !strings.EqualFold(q.Question[0].Name, zone):
		m.Authoritative = true
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{d.soa(recordTTL)}
	default:
		m.Authoritative = true
		m.Answer = d.records(q.Question[0])
		if len(m.Answer) == 0 {
			m.Ns = []dns.RR{d.soa(recordTTL)} // RFC 2308: how long that is true
		}
	}
	return m
}

// records are those of our name that q asks for. Who asks for any gets none: it
// is of use for floods only (RFC 8482).
func (d *SelfDNS) records(q dns.Question) []dns.RR {
	switch q.Qtype {
	case dns.TypeTXT:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.asked = true
		answers := make([]dns.RR, 0, len(d.txt))
		for _, v := range d.txt {
			answers = append(answers, &dns.TXT{Hdr: header(q.Name, dns.TypeTXT, recordTTL), Txt: []string{v}})
		}
		return answers
	case dns.TypeSOA:
		return []dns.RR{d.soa(zoneTTL)}
	case dns.TypeNS:
		return []dns.RR{&dns.NS{Hdr: header(q.Name, dns.TypeNS, zoneTTL), Ns: d.host() + "."}}
	}
	return nil
}

func (d *SelfDNS) soa(ttl time.Duration) dns.RR {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &dns.SOA{
		Hdr: header(d.zone(), dns.TypeSOA, ttl),
		Ns:  d.host() + ".", Mbox: "hostmaster." + d.host() + ".",
		Serial: d.serial + 1, Refresh: 3600, Retry: 600, Expire: 86400,
		Minttl: uint32(recordTTL.Seconds()),
	}
}

func header(name string, kind uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: uint32(ttl.Seconds())}
}
