package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
)

// isInterceptor reports whether an authority, by its name in lower case, is one that a
// product made up to look into TLS. Where it is among this machine's roots, nothing but
// its name tells it from others.
func isInterceptor(name string) bool {
	for _, product := range []string{
		"zscaler", "netskope", "fortinet", "fortigate", "palo alto", "blue coat", "bluecoat", "sophos", "mcafee", "trellix",
		"cisco umbrella", "ironport", "check point", "barracuda", "forcepoint", "websense", "sonicwall", "watchguard",
		"untangle", "cloudflare gateway", "gateway ca - cloudflare", "kaspersky", "avast", "eset ssl", "bitdefender",
		"mitmproxy", "portswigger", "charles proxy", "fiddler", "squid", "inspection", "intercept", "ssl proxy", "tls proxy",
	} {
		if strings.Contains(name, product) {
			return true
		}
	}
	return false
}

// signed says who vouches for the server, whose certificate was accepted.
func (v *visit) signed(s Step, state tls.ConnectionState) Step {
	leaf := state.PeerCertificates[0]
	s.Detail = fmt.Sprintf("%s, signed by %q, valid until %s", tls.VersionName(state.Version), nameOf(leaf.Issuer), leaf.NotAfter.UTC().Format("2006-01-02"))
	if !v.trusted(state) {
		s.Detail += "; trusted by --ca alone"
	}
	if interceptor(state.VerifiedChains) {
		s.Verdict = Warn
		s.Detail += ": the name is one of proxies that look into TLS"
		s.Hint = "tunnels are read on the way then, and may be cut or held up: have " + v.server.Hostname() + " left out of the inspection"
	}
	return s
}

// trusted reports whether the system's roots alone would do.
func (v *visit) trusted(state tls.ConnectionState) bool {
	if v.Client.TLS == nil || v.Client.TLS.RootCAs == nil {
		return true
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: state.ServerName, Intermediates: between})
	return err == nil
}

func interceptor(chains [][]*x509.Certificate) bool {
	for _, chain := range chains {
		for _, c := range chain {
			if isInterceptor(strings.ToLower(c.Issuer.String())) {
				return true
			}
		}
	}
	return false
}

// nameOf is how people know who a certificate names.
func nameOf(n pkix.Name) string {
	switch {
	case n.CommonName != "" && len(n.Organization) > 0:
		return n.CommonName + " (" + n.Organization[0] + ")"
	case n.CommonName != "":
		return n.CommonName
	}
	return n.String()
}
