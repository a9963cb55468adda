package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/certs"
	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// plainListen is the default of --listen where TLS is on.
	plainListen = ":80"
	// orderWait is how long a handshake waits for an order, at most four fifths of
	// --header-timeout, so that the log has the cause.
	orderWait = 8 * time.Second
)

// tlsFlags are those of serve that are about TLS.
func tlsFlags() []cli.Flag {
	str := func(name, value, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
	}
	list := func(name, usage string) cli.Flag {
		return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
	}
	return []cli.Flag{
		str("tls-listen", ":443", "`HOST:PORT` to listen on for HTTPS and HTTP/3 if TLS is on, which --acme-… or --cert does"),
		str("acme-email", "", "order certificates, by default from Let's Encrypt, which writes to `ADDRESS` if something is wrong"),
		str("acme-ca", "", "order certificates from another authority: the `URL` of its ACME directory"),
		str("acme-ca-root", "", "`FILE` with the certificates to trust when talking to the authority of --acme-ca"),
		str("acme-dns", "", "order one wildcard certificate for all names, proven by DNS: `HOW` is self if this server answers the DNS challenge itself, or exec:COMMAND"),
		str("acme-dns-listen", ":53", "`HOST:PORT` where --acme-dns self answers DNS over UDP and TCP"),
		str("acme-storage", "", "`DIR` for certificates and keys (default: $STATE_DIRECTORY, /var/lib/tunnel-server for root, or tunnel-server in the user's data folder)"),
		list("cert", "PEM `FILE` with a certificate and its chain; may be repeated, each with its --key"),
		list("key", "PEM `FILE` with the key of the --cert at the same position"),
		str("client-ca", "", "PEM `FILE` with certificate authorities: whoever presents a certificate issued by one may attach an origin by PTTH, for the certificate's DNS names"),
		str("allow-plain", "", "`NAME,…` to serve over plain HTTP, too, without a redirect to HTTPS; * for all"),
		&cli.DurationFlag{Name: "hsts", DefaultText: "the header is not sent", Usage: "send Strict-Transport-Security with this max-age, a `TIME` such as 4320h", EnvVars: env("hsts")},
		&cli.BoolFlag{Name: "no-http3", Usage: "disable HTTP/3", EnvVars: env("no-http3")},
	}
}

// secured reports whether TLS is on.
func secured(c *cli.Context) bool { return usesACME(c) || usesFiles(c) }

func usesACME(c *cli.Context) bool {
	return c.String("acme-email") != "" || c.String("acme-ca") != "" || c.String("acme-dns") != ""
}

func usesFiles(c *cli.Context) bool {
	return len(c.StringSlice("cert")) > 0 || len(c.StringSlice("key")) > 0
}

// listen is the address of the plain listener.
func listen(c *cli.Context) string {
	if secured(c) && (!c.IsSet("listen") || c.String("listen") == "") {
		return plainListen
	}
	return text(c, "listen")
}

// listens are all addresses that clients can reach, each as its flag.
func listens(c *cli.Context) []flagValue {
	all := []flagValue{{"--listen", listen(c)}}
	if secured(c) {
		all = append(all, flagValue{"--tls-listen", text(c, "tls-listen")})
	}
	return all
}

type flagValue struct{ flag, value string }

// secure adds to config what the flags of TLS say. end is for where the server does
// not run in the end.
func secure(c *cli.Context, config *server.Config) (end func(), err error) {
	none := func() {}
	if err := checkTLS(c); err != nil || !secured(c) {
		return none, err
	}
	t := &server.TLS{Listen: text(c, "tls-listen"), HSTS: c.Duration("hsts"), NoHTTP3: c.Bool("no-http3")}
	if t.AllowPlain, err = plainNames(c.String("allow-plain")); err != nil {
		return none, err
	}
	if t.ClientCAs, err = authorities("client-ca", c.String("client-ca")); err != nil {
		return none, err
	}
	config.TLS = t
	if usesFiles(c) {
		pairs := make([]certs.Pair, 0, len(c.StringSlice("cert")))
		for i, file := range c.StringSlice("cert") {
			pairs = append(pairs, certs.Pair{Cert: file, Key: c.StringSlice("key")[i]})
		}
		files, err := certs.NewFiles(pairs, config.Log)
		if err != nil {
			return none, err
		}
		t.GetCertificate = files.GetCertificate
		for _, name := range []string{config.Domain, "*." + config.Domain} {
			if !files.Covers(name) && (name == config.Domain || !config.PathNames) {
				config.Log.Warn("no --cert is for this name: visitors will refuse what they get", "name", name)
			}
		}
		return none, nil
	}
	return order(c, config)
}

// checkPairs refuses a certificate without its key, before anything is made of its being there.
func checkPairs(c *cli.Context) error {
	cert, key := c.StringSlice("cert"), c.StringSlice("key")
	switch {
	case len(cert) > 0 && len(key) == 0:
		return errors.New("--cert needs --key: give the FILE with the certificate's key")
	case len(cert) == 0 && len(key) > 0:
		return errors.New("--key needs --cert: give the FILE with the certificate of that key")
	case len(cert) != len(key):
		return fmt.Errorf("%d --cert and %d --key: give each certificate its key, in the same order", len(cert), len(key))
	}
	return nil
}

// checkTLS refuses flags that do not go together.
func checkTLS(c *cli.Context) error {
	cert, key := c.StringSlice("cert"), c.StringSlice("key")
	switch {
	case slices.Contains(cert, ""), slices.Contains(key, ""):
		return errors.New("--cert or --key names no file")
	case usesACME(c) && usesFiles(c):
		return errors.New("--cert and --acme-… exclude each other: choose where certificates come from")
	case c.Duration("hsts") < 0:
		return fmt.Errorf("--hsts %s is negative", c.Duration("hsts"))
	}
	if address := text(c, "acme-email"); address != "" {
		if a, err := mail.ParseAddress(address); err != nil || a.Address != address {
			return fmt.Errorf("--acme-email %q is not an address such as you@example.com", address)
		}
	}
	if usesACME(c) {
		return nil
	}
	for _, name := range []string{"acme-ca-root", "acme-dns-listen", "acme-storage"} {
		if given(c, name) {
			return fmt.Errorf("--%s is of no use without --acme-email, --acme-ca or --acme-dns", name)
		}
	}
	if usesFiles(c) {
		return nil
	}
	for _, name := range []string{"tls-listen", "client-ca", "allow-plain", "hsts", "no-http3"} {
		if given(c, name) {
			return fmt.Errorf("--%s is of no use without certificates: give --acme-email ADDRESS, or --cert FILE and --key FILE", name)
		}
	}
	return nil
}

// given reports whether a flag says something. A variable that was not filled in
// does not.
func given(c *cli.Context, name string) bool {
	return c.IsSet(name) && (c.String(name) != "" || c.Duration(name) != 0 || c.Bool(name))
}

// plainNames reads --allow-plain.
func plainNames(list string) ([]string, error) {
	var names []string
	for one := range strings.SplitSeq(list, ",") {
		one = strings.ToLower(strings.TrimSpace(one))
		if one == "" {
			continue
		}
		if one != "*" && protocol.CheckName(one) != nil {
			if _, err := domain(one); err != nil || !strings.Contains(one, ".") {
				return nil, fmt.Errorf("--allow-plain: %q is not a name: give those that clients claim, or * for all", one)
			}
		}
		names = append(names, one)
	}
	return names, nil
}

// order has certificates ordered.
func order(c *cli.Context, config *server.Config) (end func(), err error) {
	none := func() {}
	provider, err := certs.ParseDNS(c.String("acme-dns"), config.Domain)
	if err != nil {
		return none, fmt.Errorf("--acme-dns: %w", err)
	}
	roots, err := authorities("acme-ca-root", c.String("acme-ca-root"))
	if err != nil {
		return none, err
	}
	storage, err := storage(c.String("acme-storage"))
	if err != nil {
		return none, err
	}
	config.Registry = new(registry.Memory)
	names := &edge.HTTP{Registry: config.Registry, Domain: config.Domain, Public: config.PublicURL}
	a := certs.ACMEConfig{
		Domain: config.Domain, Storage: storage, Email: c.String("acme-email"), CA: c.String("acme-ca"), CARoots: roots,
		DNS: provider, Allowed: names.MayCertify, Wait: orderWait, Log: config.Log,
	}
	if t := config.HeaderTimeout; t > 0 {
		a.Wait = min(orderWait, t*4/5)
	}
	acme, err := certs.NewACME(a)
	if err != nil {
		return none, err
	}
	config.TLS.GetCertificate, config.TLS.Challenges, config.TLS.Run = acme.GetCertificate, acme.HTTPChallenge, acme.Run
	if self, ok := provider.(*certs.SelfDNS); ok {
		if err := answerDNS(c, self, acme, config); err != nil {
			acme.Close()
			return none, err
		}
	}
	return acme.Close, nil
}

// answerDNS has the server answer for its own challenges.
func answerDNS(c *cli.Context, self *certs.SelfDNS, acme *certs.ACME, config *server.Config) error {
	at := text(c, "acme-dns-listen")
	if err := checkListen("--acme-dns-listen", at); err != nil {
		return err
	}
	self.Log = config.Log
	if err := self.Listen(at); err != nil {
		return err
	}
	config.TLS.Run = func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var dns error
		var answering sync.WaitGroup
		answering.Go(func() {
			defer cancel() // one without the other is no use
			dns = self.Run(ctx)
		})
		err := acme.Run(ctx)
		cancel()
		answering.Wait()
		if dns != nil && !errors.Is(dns, context.Canceled) {
			return dns
		}
		return err
	}
	return nil
}

// authorities reads the certificates of a flag's file.
func authorities(flag, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--%s: there is no certificate in %s: it must have those of the authority, as PEM", flag, file)
	}
	return roots, nil
}

// storage is the folder of certificates and keys.
func storage(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if state, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); state != "" { // systemd's
		return filepath.Join(state, "certificates"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/tunnel-server/certificates", nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("there is no folder to keep certificates in: give --acme-storage DIR (%w)", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "tunnel-server", "certificates"), nil
}
