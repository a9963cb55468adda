package edge

import (
	"io"
	"net/http"
	"strings"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/rewrite"
	"github.com/revtun/tunnel/pkg/protocol"
)

// rewriteRequest makes the local app see itself called directly.
func rewriteRequest(out *http.Request, v *visit, p *policy.Policy) {
	out.Host = v.host
	if v.prefix != "" {
		unprefixDestination(out, v)
	}
	switch {
	case p.Rewrites():
		rewrite.Request(out, public(v), rewrite.Origin{Scheme: p.Scheme, Host: p.Host})
	case v.prefix != "":
		unprefixRequest(out, v)
	}
}

// public is where the visitor believes to be.
func public(v *visit) rewrite.Origin {
	o := rewrite.Origin{Host: v.host, Path: v.prefix}
	if v.scheme == "https" {
		// A page that came without TLS, from whoever was on its way, is foreign. The
		// other way round, a proxy may not have said that there is TLS.
		o.Scheme = "https"
	}
	return o
}

// rewriteResponse turns what the local app says of itself back to the public
// name.
func rewriteResponse(res *http.Response, r *http.Request, v *visit, p *policy.Policy) {
	if p.Rewrites() {
		rewrite.Response(res, r.Header["Origin"], rewrite.Origin{Host: p.Host}, rewrite.Origin{Scheme: v.scheme, Host: v.host})
	}
	if v.prefix != "" {
		prefixResponse(res.Header, v) // of what is public by now
	}
}

// confineCookies keeps cookies from the other tenants (S20): one that names the
// parent of all, or what a browser might take for it, becomes a cookie of the
// host that set it.
func (h *HTTP) confineCookies(header http.Header) {
	for i, cookie := range header["Set-Cookie"] {
		parts := strings.Split(cookie, ";")
		kept := parts[:1]
		for _, part := range parts[1:] {
			name, value, _ := strings.Cut(part, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "Domain") || !h.shared(strings.TrimSpace(value)) {
				kept = append(kept, part)
			}
		}
		if len(kept) < len(parts) {
			header["Set-Cookie"][i] = strings.Join(kept, ";")
		}
	}
}

// shared reports whether the Domain of a cookie is, or may be, h.Domain or a
// parent of it. Browsers decode what is not plainly a host.
func (h *HTTP) shared(domain string) bool {
	domain = strings.Trim(domain, ".")
	for _, c := range []byte(domain) {
		if c >= 0x80 || strings.IndexByte("%\"'\\ \t", c) >= 0 {
			return true
		}
	}
	return domain != "" && strings.HasSuffix("."+h.Domain, "."+strings.ToLower(domain))
}

// stripCode removes what may be taken for the tunnel's own word from the answer
// of the local app: its trailers too, once they have come.
func stripCode(res *http.Response) {
	deleteCode(res.Header)
	deleteCode(res.Trailer)
	if res.ContentLength < 0 && res.StatusCode != http.StatusSwitchingProtocols {
		res.Body = &answerTrailers{res.Body, res}
	}
}

func deleteCode(header http.Header) {
	for name := range header {
		if begins(name, "Tt") && spell(name) == protocol.HeaderError {
			delete(header, name)
		}
	}
}

// answerTrailers is the body of an answer that may have trailers.
type answerTrailers struct {
	io.ReadCloser
	res *http.Response
}

func (t *answerTrailers) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		deleteCode(t.res.Trailer)
	}
	return n, err
}

// BeforeWait passes on what [proxy.Forward] flushes by.
func (t *answerTrailers) BeforeWait(f func()) bool {
	w, ok := t.ReadCloser.(interface{ BeforeWait(func()) bool })
	return ok && w.BeforeWait(f)
}
