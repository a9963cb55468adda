package main

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// benchHost is the name that visitors ask for, where names mean anything.
const benchHost = "bench.localhost"

func secureRows() []row {
	const about = "TLS 1.3: 13-byte answers on kept connections and on new ones, and a download and an upload of 256 MiB (quick: 64 MiB)"
	return []row{
		secureRow(http1TLS, "HTTP/1.1 over "+about),
		secureRow(http2TLS, "HTTP/2 over "+about),
		secureRow(http3UDP, "HTTP/3 over QUIC, which has "+about),
	}
}

func secureRow(version, about string) row {
	return row{
		name: version, about: about,
		metrics: slices.Concat(smallRow().metrics, bulkRow().metrics),
		measure: func(r *run, row row) {
			roots, err := r.certs.roots()
			fits := func(v variant) bool { return slices.Contains(v.speaks, version) }
			r.each(row, pick(r, 1, 3), fits, func(s *site, v variant) error {
				if err != nil {
					return err
				}
				return r.secure(row, s, v, roots)
			})
		},
	}
}

// secure measures all cases on one tunnel.
func (r *run) secure(row row, s *site, v variant, roots *x509.CertPool) error {
	p, err := v.secure(s)
	if err != nil {
		return err
	}
	g := guest{version: row.name, addr: p.visit, host: p.host, roots: roots}
	t := &tunnel{plan: p, site: s, probe: func(deadline time.Time) error { return anew{g.dial, deadline}.small() }}
	if err := t.open(nil); err != nil {
		return err
	}
	line := func(kase string) cell { return cell{row.name, kase, v.name, ""} }
	if err := r.exchanges(line, t, g.dial); err != nil {
		return err
	}
	if row.name != http1TLS {
		if err := r.multiplexed(line(oneFor64), t, g); err != nil {
			return err
		}
	}
	size := pick[int64](r, 64<<20, 256<<20)
	err = r.bulkCase(line(bulkBody), t, size, func() (mover, error) { return g.bulk(size, time.Minute) })
	if err != nil {
		return err
	}
	return t.check()
}

// The cases of rows with visitors of a kind of their own; the others are named by [connections].
const (
	oneFor64 = "c=1, 64 at once"
	newEach  = "c=4, new each"
	bulkBody = "bulk"
)

// exchanges measures small exchanges on kept connections, and on a new one for each.
func (r *run) exchanges(line func(kase string) cell, t *tunnel, dial func(time.Time) (caller, error)) error {
	for _, conns := range []int{1, 64} {
		l := &load{dial: dial, conns: conns, measure: pick(r, 250*time.Millisecond, 800*time.Millisecond)}
		if err := r.smallCase(line(connections(conns)), t, l); err != nil {
			return err
		}
	}
	l := &load{conns: 4, measure: pick(r, 250*time.Millisecond, 800*time.Millisecond)}
	l.dial = func(deadline time.Time) (caller, error) { return anew{dial, deadline}, nil }
	return r.smallCase(line(newEach), t, l)
}

// multiplexed measures small exchanges of 64 visitors who share a connection.
func (r *run) multiplexed(line cell, t *tunnel, g guest) error {
	one, err := g.dial(time.Now().Add(2 * patience))
	if err != nil {
		return &caseError{line.kase, err}
	}
	defer one.close()
	l := &load{conns: 64, measure: pick(r, 250*time.Millisecond, 800*time.Millisecond)}
	l.dial = func(time.Time) (caller, error) { return shared{one}, nil }
	return r.smallCase(line, t, l)
}

// planSecureDirect lets visitors call the app over TLS.
func planSecureDirect(s *site) (*plan, error) {
	return &plan{visit: s.secureApp, host: benchHost}, nil
}

// planSecureRelays plans what carries TCP to the app that ends TLS itself.
func planSecureRelays(n int) func(*site) (*plan, error) {
	return func(s *site) (*plan, error) {
		p, err := hops("relay", n)(s, s.secureApp)
		if err == nil {
			p.host = benchHost
		}
		return p, err
	}
}

// planSecureProxies plans a proxy that ends TLS and calls the app without it. Where there are two, the
// way between them is TLS as well.
func planSecureProxies(n int) func(*site) (*plan, error) {
	return func(s *site) (*plan, error) {
		at, err := s.FreePorts(n)
		if err != nil {
			return nil, err
		}
		p := &plan{visit: at[0], host: benchHost}
		last := s.role("secure-proxy", at[n-1], "http://"+s.app, string(s.certs))
		if n == 1 {
			p.server = last
			return p, nil
		}
		p.server = s.role("secure-proxy", at[0], "https://"+at[1], string(s.certs))
		p.client = func(string) rig.Command { return last }
		return p, nil
	}
}

// planOursSecure plans tunnel-server with TLS, and tunnel-client, which comes by TLS too.
func planOursSecure(client func(s *site) []string) func(*site) (*plan, error) {
	return func(s *site) (*plan, error) {
		at, err := s.FreePorts(2)
		if err != nil {
			return nil, err
		}
		return &plan{
			visit: at[0], host: benchHost, control: at[0],
			server: s.ours("tunnel-server", "serve", "--tls-listen", at[0], "--listen", at[1],
				"--cert", s.certs.cert(), "--key", s.certs.key()),
			client: func(control string) rig.Command {
				server := "https://localhost:" + port(control)
				return s.ours("tunnel-client", append(client(s), "--name", "bench", "--server", server, "--ca", s.certs.cert())...)
			},
		}, nil
	}
}

func oursSecureHTTP(s *site) []string { return []string{"http", s.app} }

func oursSecureTLS(s *site) []string { return []string{"tls", s.secureApp} }

func oursSecureTerminate(s *site) []string {
	return []string{"tls", s.app, "--terminate", "--cert", s.certs.cert(), "--key", s.certs.key()}
}
