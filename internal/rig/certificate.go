package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificate is one that signs itself, with its key.
type Certificate struct {
	TLS       tls.Certificate
	Roots     *x509.CertPool // that trust it alone
	Cert, Key string         // files, PEM, for their owner alone
}

// NewCertificate is [MakeCertificate] for a test, with which its files go.
func NewCertificate(tb testing.TB, names ...string) *Certificate {
	tb.Helper()
	c, err := MakeCertificate(tb.TempDir(), "cert", names...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// MakeCertificate makes one for names, of which the first is its subject, and for
// 127.0.0.1, valid for a day, as files of dir that begin with name. Programs may be given
// it as their authority.
func MakeCertificate(dir, name string, names ...string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{
		TLS:   tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		Roots: x509.NewCertPool(), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key"),
	}
	c.Roots.AddCert(leaf)
	for _, f := range []struct {
		path string
		pem.Block
	}{{c.Cert, pem.Block{Type: "CERTIFICATE", Bytes: der}}, {c.Key, pem.Block{Type: "PRIVATE KEY", Bytes: secret}}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&f.Block), 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Get is [tls.Config.GetCertificate]: it has this one for everybody.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.TLS, nil }

// Visitors is what a visitor asks who trusts the certificate alone.
func (c *Certificate) Visitors() *tls.Config { return &tls.Config{RootCAs: c.Roots} }
