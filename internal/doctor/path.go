package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxAddrs is how many of a name's addresses are tried.
	maxAddrs = 8
	// clockNoise is how far apart clocks may be that are well: a second of the Date's own
	// precision, one of the answer's way, and more that harms nobody.
	clockNoise = 30 * time.Second
	// clockLimit is what certificates and tokens do not bear any more.
	clockLimit = 5 * time.Minute
)

// path asks the server what it is, and looks at each stage of the way there.
func (v *visit) path(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*stepTime)
	defer cancel()
	var date string
	asked := &transport.Dialer{
		Server: v.server, Agent: v.Client.Agent, TLS: v.Client.TLS, DialContext: v.dial,
		Proxy: func(*url.URL) (*url.URL, error) { return v.proxy, nil },
		Trace: func(s transport.Step) {
			if s.Stage == transport.Answered {
				date = s.Head.Get("Date")
			}
			v.stage(s)
		},
	}
	start := time.Now()
	about, err := asked.Describe(ctx)
	s := Step{Name: Server, Verdict: OK, Took: time.Since(start)}
	switch {
	case v.broken != "":
		v.without(TCP, Proxy, TLS, Server, Clock)
		return
	case err == nil:
		s.Detail = "a tunnel server for names below " + about.Domain
		v.ptth = slices.Contains(about.Transports, protocol.UpgradePTTH)
	case errors.Is(err, transport.ErrNoDescription):
		s.Verdict, s.Detail, s.Hint = Warn, err.Error(), checkServer+"; what comes next tells whether it is an old one"
	default:
		s.Verdict, s.Detail, s.Hint = Fail, err.Error(), checkServer
	}
	v.plain()
	v.show(s)
	v.clock(date)
}

// plain is in TLS's place where the server is at http.
func (v *visit) plain() {
	if v.server.Scheme == "https" {
		return
	}
	s := Step{Name: TLS, Verdict: Skip, Detail: "not used: the server is at http"}
	ip, err := netip.ParseAddr(v.server.Hostname())
	local := v.server.Hostname() == "localhost" || err == nil && ip.IsLoopback()
	if v.hasToken() && !local {
		s.Verdict, s.Hint = Warn, "use https:// in --server: the token crosses the network in the clear"
	}
	v.show(s)
}

// stage shows a stage of package transport.
func (v *visit) stage(t transport.Step) {
	s := Step{Name: Proxy, Verdict: OK, Took: t.Took}
	switch {
	case t.Stage == transport.Secured:
		s.Name = TLS
		v.show(v.secured(s, t))
	case t.Stage == transport.Answered, t.Stage == transport.ProxySecured && t.Err == nil:
	case t.Err != nil:
		s.Verdict, s.Detail = Fail, t.Err.Error()
		s.Hint = "correct --proxy, or HTTP_PROXY and HTTPS_PROXY; NO_PROXY=" + v.server.Hostname() + " goes without one"
		v.show(s)
	default:
		s.Detail = v.proxy.Host + " connects to " + v.server.Host
		v.show(s)
	}
}

// dial is the first connection, to the server or the proxy.
func (v *visit) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ips, err := v.resolve(ctx, addr)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	conns, errs := dialAll(ctx, network, ips)
	s := Step{Name: TCP, Verdict: OK, Took: time.Since(start)}
	var up, down []string
	var conn net.Conn
	slow := false
	for i, ip := range ips {
		switch {
		case errs[i] != nil:
			down = append(down, ip+": "+short(errs[i]))
			slow = slow || !errors.Is(errs[i], syscall.ENETUNREACH) && !errors.Is(errs[i], syscall.EHOSTUNREACH) && !errors.Is(errs[i], syscall.EADDRNOTAVAIL)
		case conn == nil:
			conn = conns[i]
			up = append(up, ip)
		default:
			conns[i].Close()
			up = append(up, ip)
		}
	}
	s.Detail = strings.Join(up, ", ")
	if conn == nil {
		s.Verdict, s.Detail = Fail, strings.Join(down, "; ")
		s.Hint = "check " + v.first() + ", whether it runs, and whether a firewall is on the way"
	} else if slow {
		s.Verdict, s.Detail = Warn, "reached at "+s.Detail+", and not at "+strings.Join(down, "; ")
		s.Hint = "connecting is slow while the address of the name is wrong: have it corrected in the DNS"
	}
	v.show(s)
	if conn == nil {
		return nil, errors.Join(errs...)
	}
	if v.proxy == nil {
		v.show(Step{Name: Proxy, Verdict: Skip, Detail: "none is used"})
	}
	return conn, nil
}

// first names where the first connection leads.
func (v *visit) first() string {
	if v.proxy != nil {
		return "--proxy, or HTTP_PROXY and HTTPS_PROXY"
	}
	return "--server"
}

// resolve returns the addresses of addr with its port.
func (v *visit) resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s := Step{Name: DNS, Verdict: OK}
	if _, err := netip.ParseAddr(host); err == nil {
		s.Verdict, s.Detail = Skip, host+" is an address"
		v.show(s)
		return []string{addr}, nil
	}
	asking, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	start := time.Now()
	ips, err := cmp.Or(v.Resolver, net.DefaultResolver).LookupNetIP(asking, "ip", host)
	s.Took = time.Since(start)
	if err != nil {
		s.Verdict, s.Detail = Fail, host+": "+short(err)
		s.Hint = "check the name in " + v.first() + ", and the DNS server of this network"
		v.show(s)
		return nil, err
	}
	ips = ips[:min(len(ips), maxAddrs)]
	var names, all []string
	for _, ip := range ips {
		names = append(names, ip.Unmap().String())
		all = append(all, net.JoinHostPort(ip.Unmap().String(), port))
	}
	s.Detail = host + " is " + strings.Join(names, ", ")
	v.show(s)
	return all, nil
}

func dialAll(ctx context.Context, network string, addrs []string) ([]net.Conn, []error) {
	conns, errs := make([]net.Conn, len(addrs)), make([]error, len(addrs))
	var all sync.WaitGroup
	for i, addr := range addrs {
		all.Go(func() { conns[i], errs[i] = (&net.Dialer{Timeout: stepTime}).DialContext(ctx, network, addr) })
	}
	all.Wait()
	return conns, errs
}

// short leaves out of an error of package net what the step says itself.
func short(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return dns.Err
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// clock compares the server's clock, of its answer, with ours.
func (v *visit) clock(date string) {
	if v.broken != "" && date == "" {
		v.without(Clock)
		return
	}
	s := Step{Name: Clock, Verdict: OK}
	told, err := http.ParseTime(date)
	if err != nil {
		s.Verdict, s.Detail = Skip, "the server's answer has no Date"
		v.show(s)
		return
	}
	ahead := time.Since(told).Round(time.Second)
	s.Detail = "within " + clockNoise.String() + " of the server's"
	if ahead.Abs() > clockNoise {
		s.Verdict, s.Hint = Warn, "set the clock of the one that is wrong, best by NTP: certificates and tokens are valid for a time"
		s.Detail = fmt.Sprintf("this machine's is %v ahead of the server's", ahead)
		if ahead < 0 {
			s.Detail = fmt.Sprintf("this machine's is %v behind the server's", -ahead)
		}
	}
	if ahead.Abs() > clockLimit {
		s.Verdict = Fail
	}
	v.show(s)
}

// secured judges the handshake with the server.
func (v *visit) secured(s Step, t transport.Step) Step {
	if t.Err == nil {
		return v.signed(s, t.TLS)
	}
	s.Verdict, s.Detail = Fail, t.Err.Error()
	s.Hint = "check --server: its scheme, its name and its port"
	var unverified *tls.CertificateVerificationError
	if !errors.As(t.Err, &unverified) || len(unverified.UnverifiedCertificates) == 0 {
		return s
	}
	leaf := unverified.UnverifiedCertificates[0]
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(t.Err, &unknown) && string(leaf.RawIssuer) == string(leaf.RawSubject):
		s.Detail = fmt.Sprintf("the certificate, of %q, signed itself, so that nobody vouches for it", nameOf(leaf.Subject))
		s.Hint = "where it is the server's own, pass it with --ca FILE"
	case errors.As(t.Err, &unknown):
		s.Detail = fmt.Sprintf("the certificate is signed by %q, which this machine does not trust", nameOf(leaf.Issuer))
		s.Hint = "where that is your company's proxy, which looks into TLS, or an authority of your own, pass its certificate with --ca FILE; otherwise somebody else answers for the server: use another network"
	case errors.As(t.Err, &name):
		s.Hint = "use a name that the certificate is for: " + strings.Join(leaf.DNSNames, ", ")
	case errors.As(t.Err, &invalid) && invalid.Reason == x509.Expired:
		s.Detail = fmt.Sprintf("the certificate is valid from %s to %s, and this machine's clock says %s",
			day(leaf.NotBefore), day(leaf.NotAfter), day(time.Now()))
		s.Hint = "set the clock where it is wrong; else have the server's certificate renewed"
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
