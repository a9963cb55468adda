package edge

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/internal/rig"
)

// fed reads what framing follows, as a connection does.
type fed struct {
	io.Reader
	f *framing
}

func (r fed) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.f.take(p[:n])
	return n, err
}

// However the bytes come, the same request is the first that is not served.
func TestFramingInPieces(t *testing.T) {
	for id, p := range rig.Poisons() {
		raw := p.Fill(id, "demo.example.com", "other.example.com")
		whole, pieces := new(framing), new(framing)
		whole.take([]byte(raw))
		for i := range len(raw) {
			pieces.take([]byte(raw[i : i+1]))
		}
		if a, b := whole.stop.Load(), pieces.stop.Load(); a != b || whole.state != lost && whole.began != pieces.began {
			t.Errorf("%s: %d of %d at once, %d of %d byte by byte", p.Name, a, whole.began, b, pieces.began)
		}
	}
}

// S1: whatever is served is what the strictest reader reads, request by request.
func FuzzFraming(f *testing.F) {
	for id, p := range rig.Poisons() {
		f.Add(p.Fill(id, "a.b", "c.d"))
	}
	f.Fuzz(func(t *testing.T, raw string) {
		strict := rig.ReadStrict(raw)
		follow := new(framing)
		// A byte at a time, so that nothing is read ahead.
		r := bufio.NewReader(fed{iotest.OneByteReader(strings.NewReader(raw)), follow})
		for n, method := 0, ""; ; n++ {
			for i := 0; i < 4 && method == http.MethodPost; i++ { // as http.Server does
				if b, _ := r.Peek(1); len(b) == 0 || b[0] != '\r' && b[0] != '\n' {
					break
				}
				r.ReadByte()
			}
			req, err := http.ReadRequest(r)
			if err != nil || refusedByServer(req) || follow.unclear(req) {
				return
			}
			if n >= len(strict.Requests) {
				t.Fatalf("request %d, %s %s, is none: %q", n+1, req.Method, req.RequestURI, raw)
			}
			w := strict.Requests[n]
			body, err := io.ReadAll(req.Body)
			if w.Method != req.Method || w.Target != req.RequestURI || w.Whole && string(body) != w.Body {
				t.Fatalf("request %d is %s %s %q, want %+v: %q", n+1, req.Method, req.RequestURI, body, w, raw)
			}
			if err != nil {
				return
			}
			method = req.Method
		}
	})
}

// refusedByServer is what http.Server asks of a request besides.
func refusedByServer(req *http.Request) bool {
	hosts := req.Header["Host"]
	if req.ProtoMajor != 1 || len(hosts) == 0 && req.ProtoMinor > 0 && req.Method != http.MethodConnect || len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]) {
		return true
	}
	for name, values := range req.Header {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				return true
			}
		}
	}
	return false
}
