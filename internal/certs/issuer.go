package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// newConfig is how certificates are ordered and renewed. solver proves names by
// DNS-01; nil: by HTTP-01 and TLS-ALPN-01.
func (a *ACME) newConfig(store certmagic.Storage, log *zap.Logger, solver acmez.Solver) *certmagic.Config {
	config := certmagic.New(a.cache, certmagic.Config{
		Storage:        store,
		Logger:         log,
		OnEvent:        a.event,
		ShouldEmitFunc: func(event string) bool { return event == "cert_obtained" },
	})
	host, port := a.taken.addr()
	config.Issuers = []certmagic.Issuer{&issuer{acme: a, ACMEIssuer: certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA:                        a.config.CA,
		Email:                     a.config.Email,
		TrustedRoots:              a.config.CARoots,
		Agreed:                    true,
		DNS01Solver:               solver,
		DisableHTTPChallenge:      a.config.NoHTTP,
		DisableTLSALPNChallenge:   a.config.NoTLSALPN,
		DisableDistributedSolvers: true,
		ListenHost:                host,
		AltHTTPPort:               port,
		AltTLSALPNPort:            port,
		Logger:                    log,
	})}}
	return config
}

func (a *ACME) event(_ context.Context, event string, data map[string]any) error {
	if event != "cert_obtained" {
		return nil
	}
	a.config.Log.Info("got a certificate", "name", data["identifier"], "renewal", data["renewal"], "ca", a.config.CA)
	return nil
}

// issuer is certmagic's, with each order asked for, counted, limited in time,
// and ended with its ACME.
type issuer struct {
	*certmagic.ACMEIssuer
	acme *ACME
}

// PreCheck never asks a person. Without an address for mail it does not look for
// one either: certmagic would find "default", the name of the folder of an
// account without, and no authority takes that.
func (i *issuer) PreCheck(ctx context.Context, names []string, _ bool) error {
	if i.Email == "" {
		return nil
	}
	return i.ACMEIssuer.PreCheck(ctx, names, false)
}

// Issue is one order, the first for a name or a renewal.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := i.acme.begin(); err != nil {
		return nil, certmagic.ErrNoRetry{Err: err}
	}
	defer i.acme.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(i.acme.ctx, cancel)()

	select {
	case i.acme.slots <- struct{}{}:
		defer func() { <-i.acme.slots }()
	case <-ctx.Done():
		return nil, certmagic.ErrNoRetry{Err: errClosed}
	}
	for _, name := range csr.DNSNames {
		if err := i.acme.allowed(ctx, name); err != nil {
			// It is not renewed any more: its last certificate goes, too.
			i.acme.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
			return nil, certmagic.ErrNoRetry{Err: fmt.Errorf("not ordered: %w", err)}
		}
	}
	ctx, stop := context.WithTimeout(ctx, orderTimeout)
	defer stop()
	cert, err := i.ACMEIssuer.Issue(ctx, csr)
	switch {
	case err == nil:
		return cert, nil
	case i.acme.ctx.Err() != nil:
		err = errClosed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("the authority took longer than %s: %w", orderTimeout, err)
	default:
		err = i.explain(csr.DNSNames, err)
	}
	// The pause before the next try is ours to choose.
	return nil, certmagic.ErrNoRetry{Err: err}
}

// explain adds to an error what the authority cannot know.
func (i *issuer) explain(names []string, err error) error {
	self, ok := i.acme.config.DNS.(*SelfDNS)
	if !ok || !slices.ContainsFunc(names, i.acme.isOwn) {
		return err
	}
	if hint := self.unasked(); hint != "" {
		return fmt.Errorf("%w (%s)", err, hint)
	}
	return err
}

// GetRenewalInfo asks the authority when a certificate should be renewed (RFC
// 9773). certmagic does not end that by itself.
func (i *issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (acme.RenewalInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, renewalInfoTimeout)
	defer cancel()
	defer context.AfterFunc(i.acme.ctx, cancel)()
	return i.ACMEIssuer.GetRenewalInfo(ctx, cert)
}

// storage is a folder whose locks are part of the work that Close waits for:
// whoever changes something there holds one.
type storage struct {
	*certmagic.FileStorage
	acme *ACME
}

// Lock waits for the lock of that name, or for ctx.
func (s *storage) Lock(ctx context.Context, name string) error {
	if err := s.acme.begin(); err != nil {
		return err
	}
	err := s.FileStorage.Lock(ctx, name)
	if err != nil {
		s.acme.work.Done()
	}
	return err
}

// TryLock does not wait.
func (s *storage) TryLock(ctx context.Context, name string) (bool, error) {
	if err := s.acme.begin(); err != nil {
		return false, err
	}
	ok, err := s.FileStorage.TryLock(ctx, name)
	if !ok || err != nil {
		s.acme.work.Done()
	}
	return ok, err
}

// Unlock lets the next one have the lock.
func (s *storage) Unlock(ctx context.Context, name string) error {
	defer s.acme.work.Done()
	return s.FileStorage.Unlock(ctx, name)
}

// placeholder listens on a loopback port where nobody answers. For each check
// certmagic opens a listener of its own, unless somebody has the port already;
// the listeners that answer are our owner's, on whatever address and port.
type placeholder struct {
	net.Listener
	done chan struct{}
}

func takePort() (*placeholder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = net.Listen("tcp", "[::1]:0"); err != nil {
			return nil, fmt.Errorf("listen on loopback: %w", err)
		}
	}
	p := &placeholder{Listener: l, done: make(chan struct{})}
	go p.serve()
	return p, nil
}

// serve closes each connection.
func (p *placeholder) serve() {
	defer close(p.done)
	for {
		c, err := p.Accept()
		switch {
		case err == nil:
			c.Close()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(100 * time.Millisecond) // no descriptors are left
		}
	}
}

func (p *placeholder) addr() (string, int) {
	a := p.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (p *placeholder) close() {
	p.Close()
	<-p.done
}
