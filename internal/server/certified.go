package server

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/auth"
)

// certified is who shows a certificate of one of TLS.ClientCAs: somebody who may serve
// its DNS names, and nobody else. Another certificate with the same names is the same
// somebody, so that it can be renewed.
type certified struct {
	identity auth.Identity
	rights   auth.Rights
	until    time.Time // when it ends
}

// certify reads a certificate that was verified. A name below domain is one that clients
// claim as its label, any other is a custom domain; either may have a wildcard.
func certify(cert *x509.Certificate, domain string) *certified {
	c := &certified{until: cert.NotAfter}
	var all []string
	for _, name := range cert.DNSNames {
		all = append(all, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, name := range all {
		if label, below := strings.CutSuffix(name, "."+domain); below {
			c.rights.Names = append(c.rights.Names, label)
		} else {
			c.rights.Domains = append(c.rights.Domains, name)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(all, " ")))
	c.identity.ID = "certificate:" + hex.EncodeToString(sum[:8])
	return c
}

// rights are what the claimant may claim now.
func (s *claimant) rights() auth.Rights {
	if s.by != nil {
		return s.by.rights
	}
	return s.server.c.Auth.Rights(s.identity)
}

// valid reports whether the claimant may stay.
func (s *claimant) valid() bool {
	if s.by != nil {
		return time.Now().Before(s.by.until)
	}
	return s.server.c.Auth.Valid(s.identity)
}
