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
	"time"
)

// A Certificate is one that signs itself, and its key, as files.
type Certificate struct {
	Cert, Key string         // paths of PEM files
	Roots     *x509.CertPool // that trust it alone
}

// NewCertificate makes one for the names and 127.0.0.1, valid for a day, as files of dir that begin with
// name.
func NewCertificate(dir, name string, names ...string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"), x509.NewCertPool()}
	c.Roots.AddCert(parsed)
	for _, f := range []struct {
		path string
		pem.Block
	}{{c.Cert, pem.Block{Type: "CERTIFICATE", Bytes: der}}, {c.Key, pem.Block{Type: "PRIVATE KEY", Bytes: raw}}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&f.Block), 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Visitors is what a visitor asks who trusts the certificate alone.
func (c *Certificate) Visitors() *tls.Config { return &tls.Config{RootCAs: c.Roots} }
