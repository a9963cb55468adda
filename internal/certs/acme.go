package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// What an ACME holds at most, and how long things may take.
const (
	defaultWait        = 8 * time.Second
	defaultMaxOrders   = 8
	waitingPerOrder    = 8 // how many names may wait for each order that runs
	maxFailures        = 10_000
	maxCached          = 5_000           // certificates in memory, about 10 kB each
	orderTimeout       = 5 * time.Minute // of one order, without its wait for others
	renewalInfoTimeout = 30 * time.Second
	firstPause         = time.Minute // after a name's first failure; each further one makes it
	pauseFactor        = 4           // times as long,
	longestPause       = time.Hour   // up to this: authorities count failures by the hour
	challengePath      = "/.well-known/acme-challenge/"
	letsEncrypt        = certmagic.LetsEncryptProductionCA
)

// ACMEConfig says for which names an [ACME] gets certificates, from whom, and
// how it proves that they are its own. Domain and Storage are needed, and
// Domain or Allowed decides what is ordered.
type ACMEConfig struct {
	// Domain is ordered when [ACME.Run] begins, with "*."+Domain where there is a
	// DNS; visitors that send no name get it.
	Domain string
	// Storage is the folder of the account, the keys and the certificates, for its
	// owner alone. It is made where it is missing. Processes may share it.
	Storage string
	// Email is where the authority writes to when something is wrong. May be empty.
	Email string
	// CA is the URL of the authority's directory. Empty: Let's Encrypt.
	CA string
	// CARoots are trusted when talking to the authority. Nil: the system's.
	CARoots *x509.CertPool
	// DNS, if set, proves Domain and "*."+Domain by DNS-01; the names one label
	// below Domain then use the wildcard and are never ordered.
	DNS Provider
	// Resolvers, each host:port, are asked where a provider's zone begins and
	// whether a record is public. Empty: the system's. Not used for [SelfDNS].
	Resolvers []string
	// Propagation is how long a record may take until it is public, 2 minutes if
	// 0. Negative: nobody checks. Not used for [SelfDNS].
	Propagation time.Duration
	// Allowed says whether a name may be ordered: nil, or why not. It is asked in
	// each handshake for which there is no certificate and before each renewal,
	// and must be quick. Names are lower case without a final dot. It is not asked
	// for Domain. Nil: no other name is.
	Allowed func(ctx context.Context, name string) error
	// NoHTTP and NoTLSALPN say that the authority cannot reach us in that way.
	NoHTTP, NoTLSALPN bool
	// Wait is how long a handshake waits for an order, 8 s if 0; its order goes on.
	Wait time.Duration
	// MaxOrders is how many orders run at once, 8 if 0. Eight times as many names
	// may wait; one more is refused.
	MaxOrders int
	// Log gets certificates that came and orders that failed. Nil discards.
	Log *slog.Logger

	renewEvery time.Duration // how often it looks what is to be renewed; tests
}

// check returns c with its defaults, or what is wrong with it.
func (c ACMEConfig) check() (ACMEConfig, error) {
	c.Domain = strings.ToLower(strings.TrimSuffix(c.Domain, "."))
	if err := checkName(c.Domain); err != nil {
		return c, fmt.Errorf("the domain %.100q cannot have a certificate: %w", c.Domain, err)
	}
	if c.CA == "" {
		c.CA = letsEncrypt
	}
	u, err := url.Parse(c.CA)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return c, fmt.Errorf("the ACME authority %q is not a URL: give that of its directory, https://…", c.CA)
	case u.Scheme == "http" && !certmagic.SubjectIsInternal(u.Host):
		return c, fmt.Errorf("the ACME authority %q is to be reached by https", c.CA)
	case c.CA == letsEncrypt && (net.ParseIP(c.Domain) != nil || !strings.Contains(c.Domain, ".") || certmagic.SubjectIsInternal(c.Domain)):
		return c, fmt.Errorf("Let's Encrypt gives no certificate for %s: name a public domain, a private authority (--acme-ca), or a certificate (--cert)", c.Domain)
	case c.Storage == "":
		return c, errors.New("no folder to keep certificates in")
	case c.NoHTTP && c.NoTLSALPN && c.DNS == nil:
		return c, errors.New("no way is left to prove a name to the authority: HTTP-01 and TLS-ALPN-01 are off, and there is no DNS provider")
	}
	if c.Wait <= 0 {
		c.Wait = defaultWait
	}
	if c.MaxOrders <= 0 {
		c.MaxOrders = defaultMaxOrders
	}
	c.Log = orDiscard(c.Log)
	return c, nil
}

// ACME orders certificates and renews them. Make one with [NewACME], and end it
// with [ACME.Close] or the context of [ACME.Run]. Its methods may be called from
// many goroutines.
type ACME struct {
	config ACMEConfig
	cache  *certmagic.Cache
	web    *certmagic.Config // HTTP-01 and TLS-ALPN-01
	dns    *certmagic.Config // DNS-01; nil without a provider
	taken  *placeholder

	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one for each order that runs

	mu       sync.Mutex
	closed   bool
	work     sync.WaitGroup // not added to once closed is set
	orders   map[string]*order
	failures map[string]failure
}

// NewACME checks c and that its storage can be written. Nothing is ordered
// before [ACME.Run], [ACME.GetCertificate] or [ACME.Prepare] is called.
func NewACME(c ACMEConfig) (*ACME, error) {
	c, err := c.check()
	if err != nil {
		return nil, err
	}
	if err := checkStorage(c.Storage); err != nil {
		return nil, err
	}
	a := &ACME{
		config:   c,
		slots:    make(chan struct{}, c.MaxOrders),
		orders:   map[string]*order{},
		failures: map[string]failure{},
	}
	if a.taken, err = takePort(); err != nil {
		return nil, err
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	log := zapLogger(c.Log)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   a.configFor,
		RenewCheckInterval: c.renewEvery,
		Capacity:           maxCached,
		Logger:             log,
	})
	store := &storage{FileStorage: &certmagic.FileStorage{Path: c.Storage}, acme: a}
	a.web = a.newConfig(store, log, nil)
	if c.DNS != nil {
		a.dns = a.newConfig(store, log, newSolver(c, log))
	}
	return a, nil
}

func checkStorage(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the folder for certificates: %w", err)
	}
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return fmt.Errorf("the folder for certificates cannot be written: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Run orders the certificates of the own domain, again and again until they
// are there, and returns when ctx has ended and all that a did, too. The error is
// that of ctx.
func (a *ACME) Run(ctx context.Context) error {
	defer a.Close()
	var own sync.WaitGroup
	for _, subject := range a.own() {
		own.Go(func() { a.keepTrying(ctx, subject) })
	}
	own.Wait()
	<-ctx.Done()
	return ctx.Err()
}

// Close ends all orders and returns when that is done. Handshakes fail from then
// on. It may be called again.
func (a *ACME) Close() {
	a.mu.Lock()
	again := a.closed
	a.closed = true
	a.mu.Unlock()
	if again {
		a.work.Wait()
		return
	}
	a.cancel()
	a.cache.Stop()
	a.work.Wait()
	a.taken.close()
}

// begin adds to the work that Close waits for.
func (a *ACME) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errClosed
	}
	a.work.Add(1)
	return nil
}

// GetCertificate is for [tls.Config], with [ALPN] at the end of its NextProtos.
// Where there is no certificate yet, and the name may have one, it is ordered,
// and the handshake waits for a while; the error then says what is the matter. A
// certificate that has expired is given out while it is renewed.
func (a *ACME) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ctx := hello.Context()
	if ctx == nil {
		ctx = context.Background() // a hello that a test has made
	}
	name, err := serverName(hello.ServerName, a.config.Domain)
	if err != nil {
		return nil, err
	}
	if isChallenge(hello) {
		challenge, ok := certmagic.GetACMEChallenge(name)
		if !ok {
			return nil, fmt.Errorf("no order for %s is being checked", name)
		}
		return acmez.TLSALPN01ChallengeCert(challenge.Challenge)
	}
	subject := a.subject(name)
	cert, valid := a.cached(hello, subject)
	if valid {
		return cert, nil
	}
	if err := a.allowed(ctx, subject); err != nil {
		if cert != nil {
			return cert, nil
		}
		return nil, fmt.Errorf("no certificate for %s: %w", name, err)
	}
	o, err := a.order(subject)
	if cert != nil {
		return cert, nil
	}
	if err != nil {
		return nil, err
	}
	if err := o.wait(ctx, a.config.Wait); err != nil {
		return nil, err
	}
	if cert, _ = a.cached(hello, subject); cert == nil {
		return nil, fmt.Errorf("the certificate for %s is not there any more", name)
	}
	return cert, nil
}

// cached is the certificate in memory for subject, and whether it is valid now.
func (a *ACME) cached(hello *tls.ClientHelloInfo, subject string) (*tls.Certificate, bool) {
	choices := a.cache.AllMatchingCertificates(subject)
	if len(choices) == 0 {
		return nil, false
	}
	cert, err := certmagic.DefaultCertificateSelector(hello, choices)
	if err != nil {
		return nil, false
	}
	return &cert.Certificate, !cert.Expired()
}

// HTTPChallenge answers an authority that checks a name by HTTP-01 (RFC 8555,
// section 8.3) while its order runs. All else goes to next, other tokens and
// names below the same path too: an app may have its own certificates.
func (a *ACME) HTTPChallenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, challengePath) {
			challenge, ok := certmagic.GetACMEChallenge(strings.ToLower(r.Host))
			if ok && certmagic.SolveHTTPChallenge(a.web.Logger, w, r, challenge.Challenge) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Prepare orders the certificate of a name that may have one and has none, so
// that its first visitor does not wait. It does not wait either; what goes wrong
// is logged, or said to who visits the name.
func (a *ACME) Prepare(name string) {
	name, err := serverName(name, a.config.Domain)
	if err != nil {
		return
	}
	subject := a.subject(name)
	if len(a.cache.AllMatchingCertificates(subject)) > 0 || a.allowed(a.ctx, subject) != nil {
		return
	}
	_, _ = a.order(subject)
}

// own are the names that are always ordered.
func (a *ACME) own() []string {
	if a.dns == nil {
		return []string{a.config.Domain}
	}
	return []string{a.config.Domain, "*." + a.config.Domain}
}

func (a *ACME) isOwn(subject string) bool {
	return subject == a.config.Domain || a.dns != nil && subject == "*."+a.config.Domain
}

// subject is the name on the certificate that is for name.
func (a *ACME) subject(name string) string {
	if a.dns != nil {
		if label, ok := strings.CutSuffix(name, "."+a.config.Domain); ok && !strings.Contains(label, ".") {
			return "*." + a.config.Domain
		}
	}
	return name
}

// allowed says whether subject may be ordered.
func (a *ACME) allowed(ctx context.Context, subject string) error {
	switch {
	case a.isOwn(subject):
		return nil
	case a.config.Allowed == nil:
		return errUnknown
	}
	return a.config.Allowed(ctx, subject)
}
