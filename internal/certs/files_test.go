package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a pair for names that is valid until end.
func pair(t *testing.T, dir, base string, end time.Time, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: names,
		NotBefore: end.Add(-90 * 24 * time.Hour), NotAfter: end,
	}, &x509.Certificate{SerialNumber: serial}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, base+".pem"), filepath.Join(dir, base+".key")}
	write(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return p
}

// write replaces a file, so that it is seen to have changed.
func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	stampFile(t, name, time.Now().Add(time.Duration(time.Now().Nanosecond()%1e6)*time.Second))
}

func stampFile(t *testing.T, name string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func soon() time.Time { return time.Now().Add(24 * time.Hour) }

func TestFilesByName(t *testing.T) {
	dir := t.TempDir()
	wild := pair(t, dir, "wild", soon(), "*.example.org")
	exact := pair(t, dir, "exact", soon(), "www.example.org", "example.org")
	other := pair(t, dir, "other", soon(), "other.test")
	f, err := NewFiles([]Pair{other, wild, exact}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"www.example.org": "www.example.org", "WWW.example.ORG": "www.example.org", "example.org": "www.example.org",
		"a.example.org": "*.example.org", "a.b.example.org": "other.test", "other.test": "other.test",
		"": "other.test", "unknown.test": "other.test",
	} {
		cert, err := f.GetCertificate(hello(name))
		if err != nil || cert.Leaf.DNSNames[0] != want {
			t.Errorf("%q: %q, want %q (%v)", name, cert.Leaf.DNSNames, want, err)
		}
	}
}

// TestFilesChange says that new files are used soon, and broken ones never.
func TestFilesChange(t *testing.T) {
	dir := t.TempDir()
	p := pair(t, dir, "a", soon(), "www.example.org")
	var log logged
	f, err := NewFiles([]Pair{p}, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	f.now = func() time.Time { return now }
	get := func() *tls.Certificate {
		t.Helper()
		cert, err := f.GetCertificate(hello("www.example.org"))
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get()
	pair(t, dir, "a", soon(), "www.example.org")
	now = now.Add(time.Second)
	if get() != first {
		t.Error("the files were looked at again after a second")
	}
	now = now.Add(time.Second)
	second := get()
	if bytes.Equal(second.Certificate[0], first.Certificate[0]) {
		t.Error("the new certificate is not used")
	}

	key, err := os.ReadFile(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []func(){
		func() { pair(t, dir, "b", soon(), "b"); copyFile(t, filepath.Join(dir, "b.key"), p.Key) },
		func() { write(t, p.Key, nil) },
		func() { write(t, p.Key, []byte("no key")) },
		func() { os.Remove(p.Key) },
	} {
		broken()
		before := strings.Count(log.String(), "the old one stays")
		for range 3 {
			now = now.Add(lookEvery)
			if get() != second {
				t.Error("the old certificate is not used any more")
			}
		}
		if n := strings.Count(log.String(), "the old one stays") - before; n != 1 {
			t.Errorf("%d lines in the log:\n%s", n, &log)
		}
	}
	write(t, p.Key, key)
	now = now.Add(lookEvery)
	if cert := get(); cert == second || !bytes.Equal(cert.Certificate[0], second.Certificate[0]) {
		t.Error("the mended pair was not read")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}

func TestFilesRefused(t *testing.T) {
	dir := t.TempDir()
	a := pair(t, dir, "a", soon(), "a.test")
	b := pair(t, dir, "b", soon(), "b.test")
	junk := filepath.Join(dir, "junk")
	write(t, junk, []byte("junk"))
	for _, test := range []struct {
		pairs []Pair
		want  []string
	}{
		{nil, []string{"--cert"}},
		{[]Pair{a, {a.Cert, ""}}, []string{"needs a --key"}},
		{[]Pair{{filepath.Join(dir, "none"), a.Key}}, []string{"there is no certificate at", "none"}},
		{[]Pair{{a.Cert, filepath.Join(dir, "none")}}, []string{"there is no key at", "none"}},
		{[]Pair{{a.Cert, b.Key}}, []string{a.Cert, b.Key, "cannot be used together", "does not match"}},
		{[]Pair{{junk, a.Key}}, []string{junk, "cannot be used"}},
		{[]Pair{{dir, a.Key}}, []string{dir}},
	} {
		_, err := NewFiles(test.pairs, nil)
		if err == nil {
			t.Errorf("%v is used", test.pairs)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
	}
	if os.Getuid() != 0 {
		if err := os.Chmod(a.Key, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFiles([]Pair{a}, nil); err == nil || !strings.Contains(err.Error(), "may not be read") {
			t.Errorf("%v", err)
		}
	}
}

// TestFilesExpired says that a certificate that has expired is used with a
// warning, at the start or when it happens, once.
func TestFilesExpired(t *testing.T) {
	dir := t.TempDir()
	var log logged
	f, err := NewFiles([]Pair{
		pair(t, dir, "a", time.Now().Add(-time.Hour), "a.test"),
		pair(t, dir, "b", soon(), "b.test"),
	}, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "has expired"); n != 1 || !strings.Contains(log.String(), "a.pem") {
		t.Errorf("the log:\n%s", &log)
	}
	for range 3 {
		f.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
		f.looked = time.Time{}
		if _, err := f.GetCertificate(hello("b.test")); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "has expired"); n != 2 || !strings.Contains(log.String(), "b.pem") {
		t.Errorf("the log:\n%s", &log)
	}
}
