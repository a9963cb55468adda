// Package pebble runs an ACME authority in the test's own process: pebble, the
// small one that Let's Encrypt tests clients with. It checks names for real, by
// HTTP-01, TLS-ALPN-01 and DNS-01, at ports that the test chooses and with a
// resolver of the test's.
package pebble

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"go.uber.org/goleak"
)

// Config of a [CA].
type Config struct {
	// HTTPPort and TLSPort are where names are checked, in the place of 80 and 443.
	// 0: where nobody is.
	HTTPPort, TLSPort int
	// Resolver, host:port, is asked for names and TXT records. Empty: one that says
	// 127.0.0.1 to every A, and that there is no TXT.
	Resolver string
	// Validity of certificates; 90 days if 0.
	Validity time.Duration
}

// CA is a running authority. It ends with its test.
type CA struct {
	URL      string         // of the directory
	TLSRoots *x509.CertPool // trust its own server
	Roots    *x509.CertPool // trust the certificates that it issues
	RootPEM  []byte         // the same, for a file
	TLSPEM   []byte         // TLSRoots, for a file

	store    *db.MemoryStore
	orders   atomic.Int32
	accounts atomic.Int32
	waiting  atomic.Int32
	away     atomic.Pointer[chan struct{}]
	mode     atomic.Int32
}

// What a CA does with requests.
const (
	serving int32 = iota
	failing
	hanging
)

// Pebble's own, which it does not export.
const (
	accountPath = "/sign-me-up"
	orderPath   = "/order-plz"
)

// environment is set once: pebble reads it when it starts. It does not wait before
// it checks a name, refuses no nonce, and checks each name each time.
var environment = sync.OnceFunc(func() {
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	os.Setenv("PEBBLE_AUTHZREUSE", "0")
})

// Start runs an authority until the test ends.
func Start(tb testing.TB, c Config) *CA {
	tb.Helper()
	environment()
	if c.Resolver == "" {
		c.Resolver = Loopback(tb)
	}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "the only one", ValidityPeriod: uint64(c.Validity / time.Second)},
	})
	checks := va.New(quiet, port(c.HTTPPort), port(c.TLSPort), false, c.Resolver, store)
	front := wfe.New(quiet, store, checks, authority, []string{"pebble.test"}, false, false, 0, 0)

	p := &CA{store: store}
	handler := front.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.serve(w, r, handler)
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	tb.Cleanup(func() {
		p.Serve()
		server.Close()
	})
	p.URL = server.URL + wfe.DirectoryPath
	p.TLSRoots = x509.NewCertPool()
	p.TLSRoots.AddCert(server.Certificate())
	p.TLSPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	root := authority.GetRootCert(0)
	p.RootPEM = root.PEM()
	p.Roots = x509.NewCertPool()
	p.Roots.AppendCertsFromPEM(p.RootPEM)
	return p
}

// port is one that nobody listens at, for 0.
func port(n int) int {
	if n == 0 {
		return 1
	}
	return n
}

func (p *CA) serve(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	switch p.mode.Load() {
	case failing:
		http.Error(w, "the authority is away", http.StatusServiceUnavailable)
		return
	case hanging:
		p.waiting.Add(1)
		defer p.waiting.Add(-1)
		if back := p.away.Load(); back != nil {
			select {
			case <-*back:
			case <-r.Context().Done():
			}
		}
		panic(http.ErrAbortHandler)
	}
	switch {
	case r.Method != http.MethodPost:
	case r.URL.Path == orderPath:
		p.orders.Add(1)
	case r.URL.Path == accountPath:
		p.accounts.Add(1)
	}
	handler.ServeHTTP(w, r)
}

// Orders says how many orders there were.
func (p *CA) Orders() int { return int(p.orders.Load()) }

// Accounts says how often somebody signed up.
func (p *CA) Accounts() int { return int(p.accounts.Load()) }

// Block makes it refuse a name, and those below.
func (p *CA) Block(tb testing.TB, name string) {
	tb.Helper()
	if err := p.store.AddBlockedDomain(name); err != nil {
		tb.Fatal(err)
	}
}

// Fail makes it answer 503 to all requests.
func (p *CA) Fail() { p.mode.Store(failing) }

// Hang makes it answer nothing.
func (p *CA) Hang() {
	back := make(chan struct{})
	p.away.Store(&back)
	p.mode.Store(hanging)
}

// Waiting says how many requests hang.
func (p *CA) Waiting() int { return int(p.waiting.Load()) }

// Serve ends Fail and Hang; requests that hang are cut off.
func (p *CA) Serve() {
	p.mode.Store(serving)
	if back := p.away.Swap(nil); back != nil {
		close(*back)
	}
}

// Goroutines are those that pebble and certmagic never end, or end late, for a
// TestMain that looks for leaks.
func Goroutines() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).permit"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	}
}
