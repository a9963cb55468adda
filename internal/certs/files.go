package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often at most a handshake looks whether files have changed.
const lookEvery = 2 * time.Second

// Pair names two PEM files: a certificate with the chain that leads to its
// authority, and its key.
type Pair struct{ Cert, Key string }

// Files are certificates from files. A handshake gets the one that its server
// name asks for. Where the files of a pair have changed, one handshake in two
// seconds at most reads them again; a new pair that is broken is logged, and the
// old one stays. Files has no goroutine and needs no end.
type Files struct {
	log *slog.Logger
	now func() time.Time

	// looking is held by the one handshake that looks at the files.
	looking sync.Mutex
	looked  time.Time // guarded by looking

	mu    sync.RWMutex
	pairs []*loaded // what they hold is never changed; guarded by mu
}

// loaded is what was read of a pair.
type loaded struct {
	Pair
	at     stamp
	cert   *tls.Certificate
	warned bool // that it has expired
}

// stamp tells whether files have changed.
type stamp struct {
	cert, key time.Time
	sizes     [2]int64
	missing   string // what stat said, if it failed
}

// NewFiles reads all pairs. The error names the first that cannot be used, the
// file and what is wrong with it. A certificate that has expired is used, with a
// warning in log, which may be nil.
func NewFiles(pairs []Pair, log *slog.Logger) (*Files, error) {
	if len(pairs) == 0 {
		return nil, errors.New("no certificate: name one with --cert FILE and its key with --key FILE")
	}
	f := &Files{log: orDiscard(log), now: time.Now}
	for _, p := range pairs {
		l, err := read(p)
		if err != nil {
			return nil, err
		}
		f.warn(l)
		f.pairs = append(f.pairs, l)
	}
	f.looked = f.now()
	return f, nil
}

// GetCertificate is for [tls.Config]. Among certificates for the same name it
// takes the first that the visitor can use, and one for the name itself before
// a wildcard. Whoever sends no name, or one that none is for, gets the first pair:
// its client then says what is wrong.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.look()
	f.mu.RLock()
	defer f.mu.RUnlock()
	var wildcard *tls.Certificate
	for _, l := range f.pairs {
		if hello.ServerName == "" || hello.SupportsCertificate(l.cert) != nil {
			continue
		}
		if names(l.cert.Leaf, hello.ServerName) {
			return l.cert, nil
		}
		if wildcard == nil {
			wildcard = l.cert
		}
	}
	if wildcard != nil {
		return wildcard, nil
	}
	return f.pairs[0].cert, nil
}

// Covers reports whether a visitor who asks for name finds a certificate for it; name may
// begin with "*.".
func (f *Files) Covers(name string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.ContainsFunc(f.pairs, func(l *loaded) bool {
		return l.cert.Leaf.VerifyHostname(strings.Replace(name, "*", "any", 1)) == nil
	})
}

// names says that a certificate holds name itself, not a wildcard for it.
func names(leaf *x509.Certificate, sni string) bool {
	want, err := serverName(sni, "")
	if err != nil {
		return false
	}
	for _, n := range leaf.DNSNames {
		if have, err := serverName(n, ""); err == nil && have == want {
			return true
		}
	}
	return false
}

// look reads the pairs again that have changed. Only one handshake at a time
// does; the others go on with what there is.
func (f *Files) look() {
	if !f.looking.TryLock() {
		return
	}
	defer f.looking.Unlock()
	now := f.now()
	if d := now.Sub(f.looked); d >= 0 && d < lookEvery {
		return
	}
	f.looked = now
	f.mu.RLock()
	pairs := append([]*loaded(nil), f.pairs...)
	f.mu.RUnlock()
	for i, old := range pairs {
		pairs[i] = f.again(old)
	}
	f.mu.Lock()
	f.pairs = pairs
	f.mu.Unlock()
}

// again is what old is now.
func (f *Files) again(old *loaded) *loaded {
	at := stampOf(old.Pair)
	if at == old.at {
		f.warn(old)
		return old
	}
	l, err := read(old.Pair)
	if err != nil {
		// The stamp stays, so that this is said once, until the files change again.
		f.log.Error("a certificate's files have changed and cannot be used: the old one stays", "err", err)
		return &loaded{Pair: old.Pair, at: at, cert: old.cert, warned: old.warned}
	}
	f.log.Info("read a changed certificate", "cert", l.Cert, "names", l.cert.Leaf.DNSNames, "expires", l.cert.Leaf.NotAfter)
	f.warn(l)
	return l
}

// warn says once that a certificate is not valid at this time.
func (f *Files) warn(l *loaded) {
	now, leaf := f.now(), l.cert.Leaf
	switch {
	case l.warned:
	case now.After(leaf.NotAfter):
		l.warned = true
		f.log.Warn("a certificate has expired: visitors will refuse it", "cert", l.Cert, "expired", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		l.warned = true
		f.log.Warn("a certificate is not valid yet: visitors will refuse it", "cert", l.Cert, "valid from", leaf.NotBefore)
	}
}

func stampOf(p Pair) stamp {
	var s stamp
	c, err := os.Stat(p.Cert)
	if err != nil {
		return stamp{missing: err.Error()}
	}
	k, err := os.Stat(p.Key)
	if err != nil {
		return stamp{missing: err.Error()}
	}
	s.cert, s.key = c.ModTime(), k.ModTime()
	s.sizes = [2]int64{c.Size(), k.Size()}
	return s
}

// read reads a pair. Its stamp is taken first: a change while it is read is
// found the next time.
func read(p Pair) (*loaded, error) {
	at := stampOf(p)
	cert, err := readFile("certificate", p.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readFile("key", p.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the certificate %s and the key %s cannot be used together: %w", p.Cert, p.Key, err)
	}
	return &loaded{Pair: p, at: at, cert: &pair}, nil
}

func readFile(what, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("no file for the %s: each --cert needs a --key", what)
	}
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s at %s", what, name)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the %s %s may not be read by this user", what, name)
	case err != nil:
		return nil, fmt.Errorf("read the %s: %w", what, err)
	case len(b) == 0:
		return nil, fmt.Errorf("the %s %s is empty", what, name)
	}
	return b, nil
}
