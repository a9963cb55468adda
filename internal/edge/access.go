package edge

import (
	"net/http"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
)

// logAccess writes the request's line. The query is left out: it may carry
// secrets, and so may every header field.
func (h *HTTP) logAccess(t *proxy.Tally, r *http.Request, v *visit, start time.Time) {
	h.Log.Debug("request",
		"remote", v.remote.String(), "method", r.Method, "host", v.host, "path", r.URL.EscapedPath(),
		"proto", r.Proto, "status", t.Status, "bytes", t.Bytes,
		"ms", float64(time.Since(start).Microseconds())/1000)
}
