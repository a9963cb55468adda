package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/internal/rig/poll"
)

func TestTLSALPN01(t *testing.T) {
	s := newSite(t, pebble.Config{})
	a := s.start(t, ACMEConfig{Allowed: anyName, NoHTTP: true})
	run(t, a.Run)
	cert := s.mustVisit(t, "Demo.tunnel.example.test")
	if !slices.Equal(cert.DNSNames, []string{"demo.tunnel.example.test"}) {
		t.Errorf("the certificate is for %q", cert.DNSNames)
	}
	again := s.mustVisit(t, "demo.tunnel.example.test")
	if again.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("the second visit got another certificate")
	}
	// A visitor without a name gets the own domain's, which Run has ordered.
	poll.Until(t, "the own domain has a certificate", func() bool {
		cert, err := s.visitWith(&tls.Config{InsecureSkipVerify: true})
		return err == nil && cert.VerifyHostname("tunnel.example.test") == nil
	})
	if n := s.ca.Orders(); n != 2 {
		t.Errorf("%d orders for 2 names", n)
	}
}

func TestHTTP01(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	s.start(t, ACMEConfig{Allowed: anyName, NoTLSALPN: true})
	s.mustVisit(t, "app.example.org")
	// What is not an order of ours is the app's.
	for _, path := range []string{"/", "/.well-known/acme-challenge/of-the-app"} {
		resp, err := http.Get("http://" + s.web + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "the app" {
			t.Errorf("%s: %q", path, body)
		}
	}
}

// TestOneWayShut says that a name is proven in the way that is left, where a
// firewall lets only one of the ports through.
func TestOneWayShut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, host string
		config     pebble.Config
	}{
		{"no port 80", "no-80.example.org", pebble.Config{HTTPPort: 1}},
		{"no port 443", "no-443.example.org", pebble.Config{TLSPort: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.config)
			s.start(t, ACMEConfig{Allowed: anyName})
			s.mustVisit(t, c.host)
		})
	}
}

// TestStored says that a second process orders nothing that the first has.
func TestStored(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	dir := t.TempDir()
	first := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	cert := s.mustVisit(t, "demo.tunnel.example.test")
	first.Close()
	if _, err := first.GetCertificate(hello("other.tunnel.example.test")); !errors.Is(err, errClosed) {
		t.Errorf("a closed ACME says %v", err)
	}
	s.ca.Fail()
	s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	again := s.mustVisit(t, "demo.tunnel.example.test")
	if again.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("another certificate")
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && strings.HasSuffix(path, ".key") {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAccounts says that accounts with and without an address for mail live side
// by side in a storage, each used again, and that another authority gets its own.
func TestAccounts(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	dir := t.TempDir()
	for range 2 { // the second authority begins where the first has left its account
		for i, email := range []string{"", "ops@example.org", ""} {
			a := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir, Email: email})
			s.mustVisit(t, fmt.Sprintf("account-%d.example.org", i))
			a.Close()
		}
		if n := s.ca.Accounts(); n != 2 {
			t.Errorf("%d accounts for 2 addresses", n)
		}
		s = newSite(t, pebble.Config{})
	}
}

// TestUnknownNames floods with names that nobody has.
func TestUnknownNames(t *testing.T) {
	s := newSite(t, pebble.Config{})
	dir := t.TempDir()
	unknown := errors.New("no such tunnel")
	a := s.start(t, ACMEConfig{Storage: dir, Allowed: func(context.Context, string) error { return unknown }})
	var visitors sync.WaitGroup
	for i := range 8 {
		visitors.Go(func() {
			for j := range 500 {
				name := fmt.Sprintf("n%d-%d.tunnel.example.test", i, j)
				if _, err := a.GetCertificate(hello(name)); !errors.Is(err, unknown) {
					t.Errorf("%s: %v", name, err)
					return
				}
				a.Prepare(name)
				challenge := hello(name)
				challenge.SupportedProtos = []string{ALPN}
				if _, err := a.GetCertificate(challenge); err == nil {
					t.Errorf("%s: a challenge without an order is answered", name)
				}
			}
		})
	}
	visitors.Wait()
	for _, name := range []string{"../../etc/passwd", "*.example.test", "a..b", "a_b", strings.Repeat("a.", 200) + "a", "ä.test", "-a.test", "a\n.test"} {
		if _, err := a.GetCertificate(hello(name)); err == nil || errors.Is(err, unknown) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if n := s.ca.Orders(); n != 0 {
		t.Errorf("%d orders", n)
	}
	if len(a.orders) != 0 || len(a.failures) != 0 {
		t.Errorf("%d orders and %d failures are remembered", len(a.orders), len(a.failures))
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("the storage has %v, %v", files, err)
	}
}

// TestNobodyAllowed says that without Allowed there is the own domain only.
func TestNobodyAllowed(t *testing.T) {
	s := newSite(t, pebble.Config{})
	a := s.start(t, ACMEConfig{})
	if _, err := a.GetCertificate(hello("demo.tunnel.example.test")); !errors.Is(err, errUnknown) {
		t.Errorf("%v", err)
	}
	if n := s.ca.Orders(); n != 0 {
		t.Errorf("%d orders", n)
	}
	s.mustVisit(t, "tunnel.example.test")
}

// TestRefusedByAuthority says that a refusal reaches who visits, and that the
// authority is not asked again at once.
func TestRefusedByAuthority(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	s.ca.Block(t, "bad.example.org")
	a := s.start(t, ACMEConfig{Allowed: anyName})
	_, err := a.GetCertificate(hello("bad.example.org"))
	if err == nil || !strings.Contains(err.Error(), "rejectedIdentifier") {
		t.Fatalf("%v", err)
	}
	orders := s.ca.Orders()
	for range 10 {
		_, err = a.GetCertificate(hello("bad.example.org"))
		if err == nil || !strings.Contains(err.Error(), "before the next try at") || !strings.Contains(err.Error(), "rejectedIdentifier") {
			t.Fatalf("%v", err)
		}
	}
	if n := s.ca.Orders(); n != orders {
		t.Errorf("%d orders after %d", n, orders)
	}
	if n := strings.Count(s.log.String(), "\n"); n != 1 || !strings.Contains(s.log.String(), "bad.example.org") {
		t.Errorf("%d lines in the log:\n%s", n, s.log)
	}
	s.mustVisit(t, "good.example.org")
}

// TestAway says that without an authority the names that have a certificate go
// on, and that others are told soon.
func TestAway(t *testing.T) {
	s := newSite(t, pebble.Config{})
	dir := t.TempDir()
	a := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	s.mustVisit(t, "demo.tunnel.example.test")
	a.Close()

	s.ca.Hang()
	a = s.start(t, ACMEConfig{Allowed: anyName, Storage: dir, Wait: 100 * time.Millisecond})
	run(t, a.Run)
	_, err := a.GetCertificate(hello("new.tunnel.example.test"))
	if err == nil || !strings.Contains(err.Error(), "is on order: try again") {
		t.Errorf("%v", err)
	}
	s.mustVisit(t, "demo.tunnel.example.test")
	// The handshake's own end ends the wait.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o, err := a.order("new.tunnel.example.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.wait(ctx, time.Hour); err == nil {
		t.Error("no error")
	}
	a.Close() // does not wait for the authority
	s.ca.Serve()
}

// TestBack says that a name's order that failed is tried again.
func TestBack(t *testing.T) {
	s := newSite(t, pebble.Config{})
	s.ca.Fail()
	a := s.start(t, ACMEConfig{Allowed: anyName})
	if _, err := a.GetCertificate(hello("demo.example.org")); err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("%v", err)
	}
	s.ca.Serve()
	a.mu.Lock()
	f := a.failures["demo.example.org"]
	if f.pause != firstPause {
		t.Errorf("the first pause is %s", f.pause)
	}
	f.next = time.Now()
	a.failures["demo.example.org"] = f
	a.mu.Unlock()
	s.mustVisit(t, "demo.example.org")
	if len(a.failures) != 0 {
		t.Error("the failure is still remembered")
	}
}

func TestPausesGrow(t *testing.T) {
	a := &ACME{failures: map[string]failure{}}
	var pauses []time.Duration
	for range 5 {
		a.failed("demo.example.org", io.EOF)
		pauses = append(pauses, a.failures["demo.example.org"].pause)
	}
	if want := []time.Duration{time.Minute, 4 * time.Minute, 16 * time.Minute, time.Hour, time.Hour}; !slices.Equal(pauses, want) {
		t.Errorf("%v, want %v", pauses, want)
	}
	for i := range maxFailures + 10 {
		a.failed(fmt.Sprint(i), io.EOF)
	}
	if n := len(a.failures); n > maxFailures {
		t.Errorf("%d failures are remembered", n)
	}
}

// TestOrdersAreBounded says that an authority that hangs does not let orders pile
// up.
func TestOrdersAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	dir := t.TempDir()
	first := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	s.mustVisit(t, "has-one.example.org") // and so there is an account
	first.Close()
	s.ca.Hang()
	a := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir, MaxOrders: 2, Wait: time.Millisecond})
	for i := range 16 {
		name := fmt.Sprintf("n%d.example.org", i)
		if _, err := a.GetCertificate(hello(name)); err == nil || errors.Is(err, errBusy) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if _, err := a.GetCertificate(hello("more.example.org")); !errors.Is(err, errBusy) {
		t.Errorf("one more: %v", err)
	}
	// Who waits for the same costs nothing, and the own domain finds a place.
	if _, err := a.GetCertificate(hello("n3.example.org")); err == nil || errors.Is(err, errBusy) {
		t.Errorf("the same again: %v", err)
	}
	if _, err := a.GetCertificate(hello("tunnel.example.test")); err == nil || errors.Is(err, errBusy) {
		t.Errorf("the own domain: %v", err)
	}
	poll.Until(t, "two orders have reached the authority", func() bool { return s.ca.Waiting() >= 2 })
	for range 30 { // as long as others would take to reach it
		time.Sleep(10 * time.Millisecond)
		if n := s.ca.Waiting(); n > 2 {
			t.Fatalf("%d orders run", n)
		}
	}
}

// TestManyVisitors says that all who wait for one name share one order.
func TestManyVisitors(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	var asked atomic.Int32
	s.start(t, ACMEConfig{Allowed: func(context.Context, string) error { asked.Add(1); return nil }})
	var visitors sync.WaitGroup
	for range 20 {
		visitors.Go(func() {
			if _, err := s.visit("demo.example.org"); err != nil {
				t.Error(err)
			}
		})
	}
	visitors.Wait()
	if n := s.ca.Orders(); n != 1 {
		t.Errorf("%d orders", n)
	}
	before := asked.Load()
	s.mustVisit(t, "demo.example.org")
	if asked.Load() != before {
		t.Error("Allowed is asked for a name that has its certificate")
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{})
	a := s.start(t, ACMEConfig{Allowed: anyName, Wait: time.Millisecond})
	a.Prepare("prepared.example.org")
	poll.Until(t, "the name has a certificate", func() bool {
		_, valid := a.cached(hello("prepared.example.org"), "prepared.example.org")
		return valid
	})
	s.mustVisit(t, "prepared.example.org")
	a.Prepare("prepared.example.org")
	if n := s.ca.Orders(); n != 1 {
		t.Errorf("%d orders", n)
	}
}

func TestACMERefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := ACMEConfig{Domain: "tunnel.example.com", Storage: t.TempDir()}
	for _, test := range []struct {
		change func(*ACMEConfig)
		want   string
	}{
		{func(c *ACMEConfig) { c.Domain = "" }, "not a host name"},
		{func(c *ACMEConfig) { c.Domain = "localhost" }, "name a public domain"},
		{func(c *ACMEConfig) { c.Domain = "192.0.2.1" }, "name a public domain"},
		{func(c *ACMEConfig) { c.Domain = "box.local" }, "name a public domain"},
		{func(c *ACMEConfig) { c.Domain = "a b.example.com" }, "not a host name"},
		{func(c *ACMEConfig) { c.Storage = "" }, "no folder"},
		{func(c *ACMEConfig) { c.Storage = filepath.Join(file, "sub") }, "the folder for certificates"},
		{func(c *ACMEConfig) { c.CA = "acme.example.com" }, "not a URL"},
		{func(c *ACMEConfig) { c.CA = "http://acme.example.com/directory" }, "by https"},
		{func(c *ACMEConfig) { c.NoHTTP, c.NoTLSALPN = true, true }, "no way is left"},
	} {
		c := good
		test.change(&c)
		a, err := NewACME(c)
		if err == nil {
			a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q, have %v", test.want, err)
		}
	}
}
