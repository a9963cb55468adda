package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/certs"
	"github.com/revtun/tunnel/pkg/protocol"
)

const tlsDescription = `TARGET is a local app that speaks TLS itself: 8443, host:port, tcp://host:port or unix:/path.
Options may stand before and after it. The server passes connections on by the name that the
visitor asks for (SNI), and never sees inside. The URL is printed as tls://NAME.DOMAIN:PORT.

With --terminate this client ends TLS, and the app gets what is inside: HTTP, or any other
protocol. The client gets the certificate itself, by default from Let's Encrypt, to whose terms
you agree then, and keeps it with its key in tunnel-client/ below $XDG_STATE_HOME, or in the
system's directory for state. The server has neither. The authority calls port 443 of NAME.DOMAIN,
so the server's HTTPS is to be reached there. --cert and --key bring a certificate of your own.

At the first Ctrl-C or SIGTERM no new connection comes; those that are open end with the second
one, or after --grace.`

// tlsFlags are those of tls.
func tlsFlags() []cli.Flag {
	return append(append(commonFlags(), visitFlags()...),
		proxyProtocolFlag(),
		yes("terminate", "end TLS here, and pass what is inside on to TARGET"),
		str("alpn", "http/1.1", "", "`PROTOCOLS` that TARGET speaks inside TLS, with commas between, such as h2,http/1.1; none: it is not asked; with --terminate"),
		str("acme-email", "", "none", "`ADDRESS` that the authority writes to when something is wrong"),
		str("acme-ca", "", "Let's Encrypt", "`URL` of another authority's directory"),
		str("acme-ca-root", "", "the system's roots alone", "`FILE` with more certificates (PEM) to trust when talking to that authority"),
		str("cert", "", "one from --acme-ca", "PEM `FILE` with a certificate and those that lead to its authority"),
		str("key", "", "", "PEM `FILE` with the key of --cert"),
	)
}

// maxALPN is the length of a protocol's name (RFC 7301, section 3.1).
const maxALPN = 255

// terminator ends the visitors' TLS.
type terminator struct {
	protos []string
	files  *certs.Files      // nil: acme
	order  *certs.ACMEConfig // all but domain and storage
	acme   *certs.ACME       // once the URL is known
}

// newTerminator reads the flags of tls. Nil: TLS is the app's.
func newTerminator(c *cli.Context, config *config) (*terminator, error) {
	if !c.Bool("terminate") {
		for _, name := range []string{"alpn", "acme-email", "acme-ca", "acme-ca-root", "cert", "key"} {
			if c.IsSet(name) && c.String(name) != "" {
				return nil, fmt.Errorf("--%s is of no use without --terminate: TARGET has a certificate of its own", name)
			}
		}
		return nil, nil
	}
	t := new(terminator)
	if alpn := text(c, "alpn"); alpn != "none" {
		t.protos = strings.Split(alpn, ",")
		bad := func(p string) bool { return p == "" || len(p) > maxALPN || p == certs.ALPN || printable(p) != p }
		if slices.ContainsFunc(t.protos, bad) {
			return nil, fmt.Errorf("--alpn %q: use names such as h2,http/1.1, or none", alpn)
		}
	}
	cert, key := c.String("cert"), c.String("key")
	var err error
	switch {
	case cert == "" && key == "":
		t.order = &certs.ACMEConfig{Email: c.String("acme-email"), CA: c.String("acme-ca"), NoHTTP: true, Log: config.log}
		if file := c.String("acme-ca-root"); file != "" {
			roots, err := trust(file)
			if err != nil {
				return nil, fmt.Errorf("--acme-ca-root: %w", err)
			}
			t.order.CARoots = roots.RootCAs
		}
	case cert == "" || key == "":
		return nil, errors.New("--cert and --key belong together: give both files")
	case c.String("acme-email")+c.String("acme-ca")+c.String("acme-ca-root") != "":
		return nil, errors.New("--cert and --acme-… exclude each other: choose where the certificate comes from")
	default:
		t.files, err = certs.NewFiles([]certs.Pair{{Cert: cert, Key: key}}, config.log)
	}
	return t, err
}

// config is for the visitors' handshakes. An authority that checks the name gets a
// handshake of its own, so that what it asks for is offered to nobody else.
func (t *terminator) config() *tls.Config {
	challenge := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: t.certificate, NextProtos: []string{certs.ALPN}}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: t.certificate, NextProtos: t.protos,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if t.files == nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == certs.ALPN {
				return challenge, nil
			}
			return nil, nil
		},
	}
}

func (t *terminator) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if t.files != nil {
		return t.files.GetCertificate(hello)
	}
	cert, err := t.acme.GetCertificate(hello)
	if err != nil {
		return nil, fmt.Errorf("%w: the authority (--acme-ca) has to reach port 443 of the name and be reached from here; --cert FILE --key FILE bring another certificate", err)
	}
	return cert, nil
}

// start prepares the order of the certificate for the listener's name. It is called
// before the first visitor is served.
func (t *terminator) start(c *config, public string) error {
	if t.files != nil {
		return nil
	}
	u, err := url.Parse(public)
	if err != nil || u.Scheme != "tls" {
		return &protocol.Error{Code: protocol.ProtocolViolation, Message: "the server gave no URL of TLS", Hint: "use a server of the client's version"}
	}
	s, err := openState()
	if err != nil {
		return fmt.Errorf("the certificate cannot be kept: %w: set XDG_STATE_HOME to a folder that can be written, or give --cert and --key", err)
	}
	if u.Port() != "443" && t.order.CA == "" {
		c.log.Warn("Let's Encrypt calls port 443, and the server's is another: that is well only where 443 leads to it", "url", public)
	}
	order := *t.order
	order.Domain, order.Storage = u.Hostname(), filepath.Join(s.dir, "certs")
	if t.acme, err = certs.NewACME(order); err != nil {
		return usageError{err}
	}
	return nil
}

// run gets the certificate and renews it until ctx ends.
func (t *terminator) run(ctx context.Context) {
	if t.acme != nil {
		t.acme.Run(ctx)
	}
}
