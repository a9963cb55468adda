package edge

import (
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/revtun/tunnel/internal/proxy"
)

// logAccess writes the request's line. The query is left out: it may carry
// secrets, and so may every header field.
func (h *HTTP) logAccess(t *proxy.Tally, r *http.Request, v *visit, start time.Time) {
	h.Log.Debug("request",
		"remote", v.remote.String(), "method", printable(r.Method), "host", printable(v.host), "path", r.URL.EscapedPath(),
		"proto", r.Proto, "status", t.Status, "bytes", t.Bytes,
		"ms", float64(time.Since(start).Microseconds())/1000)
}

// printable replaces what is not: slog's JSON leaves the control characters above
// ASCII as they are, and a terminal obeys them (S22).
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, s)
}
