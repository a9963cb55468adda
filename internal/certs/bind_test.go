package certs

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/internal/rig/poll"
)

const (
	tsigKey = `key "tunnel" { algorithm hmac-sha256; secret "dGhlIHR1bm5lbCdzIGtleSBvZiB0ZXN0cw=="; };
`
	otherKey = `key "other" { algorithm hmac-sha256; secret "bm90IHRoZSB0dW5uZWwncyBrZXk="; };
`
	bindConf = `
include %[1]q;
include %[2]q;
options {
	directory %[3]q;
	listen-on port %[4]s { 127.0.0.1; };
	listen-on-v6 { none; };
	pid-file none;
	lock-file none;
	session-keyfile none;
	recursion no;
	dnssec-validation no;
};
controls { };
zone "example.test" {
	type primary;
	file "zone";
	update-policy { grant tunnel name _acme-challenge.tunnel.example.test. TXT; };
};
`
	bindZone = `$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
tunnel A 127.0.0.1
*.tunnel A 127.0.0.1
`
)

// program finds one that the tests need.
func program(t *testing.T, name, debian string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: install %s", name, debian)
	}
	t.Skipf("needs %s, of Debian's %s", name, debian)
	return ""
}

// bind runs a name server for example.test, which takes updates by the key of
// the file that it returns, beside another that may do nothing.
func bind(t *testing.T) (addr, key, other string) {
	t.Helper()
	named := program(t, "named", "bind9")
	dir := t.TempDir()
	// AppArmor holds named to its own folders, by the path of its program.
	copied := filepath.Join(dir, "bind")
	b, err := os.ReadFile(named)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o700); err != nil {
		t.Fatal(err)
	}
	key, other = filepath.Join(dir, "tunnel.key"), filepath.Join(dir, "other.key")
	addr = rig.FreePort(t)
	conf := filepath.Join(dir, "named.conf")
	_, port, _ := net.SplitHostPort(addr)
	for name, text := range map[string]string{
		key: tsigKey, other: otherKey, filepath.Join(dir, "zone"): bindZone,
		conf: fmt.Sprintf(bindConf, key, other, dir, port),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out logged
	cmd := exec.Command(copied, "-g", "-4", "-n", "1", "-c", conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("named: %s", &out)
		}
	})
	poll.Until(t, "named answers", func() bool {
		q := new(dns.Msg)
		q.SetQuestion("example.test.", dns.TypeSOA)
		m, err := dns.Exchange(q, addr)
		return err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) == 1
	})
	return addr, key, other
}

// script is the one that users have, for the name server at addr.
func script(t *testing.T, key, addr string) string {
	t.Helper()
	program(t, "nsupdate", "bind9-dnsutils")
	path, err := filepath.Abs("../../deploy/dns/nsupdate.sh")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("exec:%s %s %s", path, key, strings.Replace(addr, ":", "#", 1))
}

// TestExecDNS01 orders the domain and its wildcard by records that a script sets
// on a real name server.
func TestExecDNS01(t *testing.T) {
	t.Parallel()
	addr, key, _ := bind(t)
	provider, err := ParseDNS(script(t, key, addr), "tunnel.example.test")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, pebble.Config{Resolver: pebble.Resolver(t, func() string { return addr })})
	a := s.start(t, ACMEConfig{DNS: provider, Resolvers: []string{addr}})
	run(t, a.Run)
	cert := s.mustVisit(t, "demo.tunnel.example.test")
	if cert.DNSNames[0] != "*.tunnel.example.test" {
		t.Errorf("%q", cert.DNSNames)
	}
	s.mustVisit(t, "tunnel.example.test")
	poll.Until(t, "the records are gone", func() bool {
		q := new(dns.Msg)
		q.SetQuestion("_acme-challenge.tunnel.example.test.", dns.TypeTXT)
		m, err := dns.Exchange(q, addr)
		return err == nil && len(m.Answer) == 0
	})
}

// TestExecDNSRefused says that the name server's refusal is in the error.
func TestExecDNSRefused(t *testing.T) {
	addr, _, other := bind(t)
	provider, err := ParseDNS(script(t, other, addr), "tunnel.example.test")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, pebble.Config{})
	a := s.start(t, ACMEConfig{DNS: provider, Resolvers: []string{addr}, Propagation: -1})
	_, err = a.GetCertificate(hello("demo.tunnel.example.test"))
	if err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Errorf("%v", err)
	}
}

func TestNsupdateUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"key", "server", "remove", "a.", "b"}, {"/no/key", "server", "present", "a.", "b"}} {
		var stderr bytes.Buffer
		cmd := exec.Command("../../deploy/dns/nsupdate.sh", args...)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil || stderr.Len() == 0 {
			t.Errorf("%q: %v, %q", args, err, &stderr)
		}
	}
}
