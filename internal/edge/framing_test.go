package edge

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/revtun/tunnel/internal/rig"
)

// fed reads what framing follows, as a connection does, and no more than size bytes
// at a time.
type fed struct {
	io.Reader
	f    *framing
	size int
}

func (r fed) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), r.size)])
	r.f.take(p[:n])
	return n, err
}

// serveAll calls handle for each request in raw that is served, in order, until one
// is not or handle has had enough.
func serveAll(raw string, size int, handle func(*http.Request) bool) {
	follow := new(framing)
	r := bufio.NewReader(fed{strings.NewReader(raw), follow, size})
	for method := ""; ; {
		for i := 0; i < 4 && method == http.MethodPost; i++ { // as http.Server does
			if b, _ := r.Peek(1); len(b) == 0 || b[0] != '\r' && b[0] != '\n' {
				break
			}
			r.ReadByte()
		}
		req, err := http.ReadRequest(r)
		if err != nil || refusedByServer(req) || follow.unclear(req) || !handle(req) {
			return
		}
		method = req.Method
	}
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

// S1: what is read ahead lets nothing pass that would not pass without, however much
// of it there is when a request is served.
func TestFramingReadAhead(t *testing.T) {
	const (
		coded = "POST / HTTP/1.0\r\nHost: a.b\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
		next  = "POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
		last  = "GET / HTTP/1.0\r\nHost: a.b\r\nConnection: close, keep-alive\r\n\r\n"
		plain = "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n"
		bad   = "GET / HTTP/1.1\nHost: a.b\n\n"
	)
	for raw, want := range map[string]int{
		coded:               0,
		coded + next:        0,
		plain + coded:       1,
		next + coded + next: 1,
		next + next:         2,
		last + plain:        1,
		last + plain + bad:  1,
		plain + plain + bad: 2,
	} {
		for size := range len(raw) {
			served := 0
			serveAll(raw, size+1, func(req *http.Request) bool {
				served++
				_, err := io.Copy(io.Discard, req.Body)
				return err == nil
			})
			if served != want {
				t.Errorf("%d at a time: %d served, want %d: %q", size+1, served, want, raw)
			}
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
		// Nothing is read ahead, a part of what follows, or all of it.
		for _, size := range []int{1, 1 + len(raw)%127, 1 + len(raw)} {
			n := 0
			serveAll(raw, size, func(req *http.Request) bool {
				if n++; n > len(strict.Requests) && req.Method == http.MethodConnect {
					return false // the handler refuses it, whatever its target
				}
				if n > len(strict.Requests) {
					t.Fatalf("request %d, %s %s, is none (%d at a time): %q", n, req.Method, req.RequestURI, size, raw)
				}
				w := strict.Requests[n-1]
				body, err := io.ReadAll(req.Body)
				same := string(body) == w.Body || err != nil && strings.HasPrefix(w.Body, string(body))
				if w.Method != req.Method || w.Target != req.RequestURI || w.Whole && !same {
					t.Fatalf("request %d is %s %s %q, want %+v (%d at a time): %q", n, req.Method, req.RequestURI, body, w, size, raw)
				}
				return err == nil
			})
		}
	})
}

// refusedByServer is what http.Server asks of a request besides. http.ReadRequest
// takes the Host field away: what may lack it counts as refused.
func refusedByServer(req *http.Request) bool {
	if req.ProtoMajor != 1 || !httpguts.ValidHostHeader(req.Host) {
		return true
	}
	if req.ProtoMinor > 0 && req.Method != http.MethodConnect && (req.Host == "" || req.URL.Host != "") {
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
