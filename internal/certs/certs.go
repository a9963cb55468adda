// Package certs gets the certificates that TLS is served with.
//
// There are two sources, each with a GetCertificate for a [tls.Config]. [Files]
// has pairs of PEM files and reads them again when they change. [ACME] orders
// them from a certificate authority (RFC 8555): its own domain at the start,
// any other name when it is first asked for and somebody vouches for it, and
// renews them in time. It proves that a name is ours in one of three ways:
//
//   - TLS-ALPN-01 (RFC 8737): the authority opens TLS to the name, offers
//     [ALPN] alone, and [ACME.GetCertificate] answers;
//   - HTTP-01: the authority asks the name for a file over plain HTTP, and
//     [ACME.HTTPChallenge] answers;
//   - DNS-01, the only one for wildcards: a TXT record below the domain, which a
//     [Provider] sets: [SelfDNS], a DNS server for that one record, [ExecDNS],
//     a command, or any other provider of libdns.
//
// An ACME listens nowhere: it answers through the listeners of its owner, who
// may be a server, or a client that is reached through its tunnel.
//
// Ordering, renewing and storing are certmagic's. This package decides which
// names are ordered and how many at once, keeps handshakes from waiting long,
// and owns what runs beside.
package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ALPN is the protocol that an authority offers, alone, when it checks a name by
// TLS-ALPN-01 (RFC 8737, section 4). It belongs at the end of NextProtos of a
// [tls.Config] whose certificates come from an [ACME]. A connection that has chosen it is
// to be closed: nothing is served on it.
const ALPN = "acme-tls/1"

// isChallenge says that a handshake that has just begun is an authority's check by
// TLS-ALPN-01.
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ALPN
}

// serverName is the name that a visitor asks for in its one spelling: lower
// case, no final dot. Without one it is other.
func serverName(sni, other string) (string, error) {
	name := lower(strings.TrimSuffix(sni, "."))
	if name == "" {
		return other, nil
	}
	return name, checkName(name)
}

// lower is for ASCII alone: strings.ToLower makes letters of other scripts, as
// the Kelvin sign, into those of a host name.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// checkName says what is wrong with a host name in lower case and without a
// final dot. It keeps out whatever could mean something in a path, a command or
// a record, too. The name may hold anything: only its error is safe to print.
func checkName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("not a host name: empty, or longer than 253 bytes")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("not a host name: the label %.70q", label)
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return fmt.Errorf("not a host name: %q is in it", c)
			}
		}
	}
	return nil
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
