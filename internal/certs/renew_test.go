package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/pebble"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// TestRenewal says that a certificate is renewed by itself before it expires, and
// that its name never goes without.
func TestRenewal(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{Validity: 24 * time.Second})
	a := s.start(t, ACMEConfig{Domain: "renewed.example.test", Allowed: anyName, renewEvery: 200 * time.Millisecond})
	run(t, a.Run)
	first := s.mustVisit(t, "renewed.example.org")
	poll.Until(t, "another certificate", func() bool {
		return s.mustVisit(t, "renewed.example.org").SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if now := time.Now(); now.After(first.NotAfter) {
		t.Errorf("renewed %s after it expired", now.Sub(first.NotAfter))
	}
	if !strings.Contains(s.log.String(), "renewal=true") {
		t.Errorf("the renewal is not in the log:\n%s", s.log)
	}
}

// TestRenewalAsks says that a name that may not be ordered any more is not
// renewed, and leaves the memory.
func TestRenewalAsks(t *testing.T) {
	s := newSite(t, pebble.Config{Validity: 30 * time.Minute}) // so short that it is renewed at the first look
	// certmagic remembers in the process which name's renewal failed last.
	name := fmt.Sprintf("asks-%d.example.org", time.Now().UnixNano())
	var gone atomic.Bool
	a := s.start(t, ACMEConfig{Allowed: func(context.Context, string) error {
		if gone.Load() {
			return errors.New("no such tunnel")
		}
		return nil
	}})
	s.mustVisit(t, name)
	s.mustVisit(t, "tunnel.example.test")
	gone.Store(true)
	if err := a.cache.RenewManagedCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the name is forgotten and the own domain renewed", func() bool {
		return len(a.cache.AllMatchingCertificates(name)) == 0 &&
			strings.Contains(s.log.String(), "name=tunnel.example.test renewal=true")
	})
	if n := s.ca.Orders(); n != 3 {
		t.Errorf("%d orders, want 2 and one renewal", n)
	}
}

// TestRenewalFails says that a certificate whose renewal fails is used to its
// end and after it, where its visitors see what is the matter, and that it is
// renewed when the authority is back, even by another process.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, pebble.Config{Validity: 5 * time.Second})
	dir := t.TempDir()
	a := s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	first := s.expiring(t, "fails.example.org")
	s.ca.Hang()
	if err := a.cache.RenewManagedCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "it expires", func() bool { return time.Now().After(first.NotAfter.Add(2 * time.Second)) })
	cert, err := a.GetCertificate(hello("fails.example.org"))
	if err != nil || cert.Leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Fatalf("%v, %v", cert, err)
	}
	a.Close()
	s.ca.Serve()
	s.start(t, ACMEConfig{Allowed: anyName, Storage: dir})
	if again := s.expiring(t, "fails.example.org"); again.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("it is the old one")
	}
}
