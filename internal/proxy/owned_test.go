package proxy

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"
)

// What goes out is the same whether the header is copied or changed, and a copy
// leaves the visitor's own as it was.
func TestEndToEnd(t *testing.T) {
	for _, h := range []http.Header{
		{},
		{"User-Agent": {"x"}, "Cookie": {"a", "b"}, "Connection": {"close"}},
		{"Connection": {"X-A, te", "X-B, upgrade"}, "X-A": {"1"}, "X-B": {"2"}, "X-C": {"3"}, "Te": {"gzip, trailers"}, "Upgrade": {"h2c, websocket"}},
		{"Keep-Alive": {"1"}, "Proxy-Connection": {"1"}, "Proxy-Authenticate": {"1"}, "Proxy-Authorization": {"1"},
			"Te": {"gzip"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"x"}, "Http2-Settings": {"1"}, "X-A": {"1"}},
	} {
		for name, values := range h {
			h[name] = append(make([]string, 0, len(values)+1), values...)
		}
		before := h.Clone()
		r := &http.Request{ProtoMajor: 1, ProtoMinor: 1, Header: h}
		copied := endToEnd(r, false)
		for _, values := range copied {
			_ = append(values, "more")
		}
		if !reflect.DeepEqual(h, before) {
			t.Errorf("%q became %q", before, h)
		}
		for name, values := range h {
			if more := values[:len(values)+1][len(values)]; more != "" {
				t.Errorf("what was appended to the copy's %s is in the original", name)
			}
		}
		changed := endToEnd(r, true)
		if !maps.EqualFunc(copied, changed, slices.Equal) {
			t.Errorf("%q: copied %q, changed %q", before, copied, changed)
		}
		for name := range changed {
			if hopByHop(name) && name != "Te" && !(name == "Connection" || name == "Upgrade") {
				t.Errorf("%q: %s goes out", before, name)
			}
		}
	}
}
