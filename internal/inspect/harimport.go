package inspect

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxHAR bounds a HAR that is imported, in bytes.
const maxHAR = 128 << 20

// Imported is the answer to an import.
type Imported struct {
	IDs []int64 `json:"ids"`
}

// importHAR takes the requests of a HAR in, as if they had come now, in their order.
func (s *Server) importHAR(w http.ResponseWriter, r *http.Request) {
	var h harLog
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHAR)).Decode(&h); err != nil {
		refuse(w, http.StatusBadRequest, "this is no HAR: "+err.Error())
		return
	}
	if h.Log.Version == "" {
		refuse(w, http.StatusBadRequest, "this is no HAR: it has no log with a version")
		return
	}
	all := make([]*record, 0, len(h.Log.Entries))
	for i, e := range h.Log.Entries {
		rec, err := e.record()
		if err != nil {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("entry %d of the HAR: %v", i+1, err))
			return
		}
		all = append(all, rec)
	}
	imported := Imported{IDs: []int64{}}
	for _, rec := range all {
		s.store.add(rec)
		imported.IDs = append(imported.IDs, rec.id)
	}
	send(w, http.StatusOK, imported)
}

// record is the entry as if it had been recorded.
func (e harEntry) record() (*record, error) {
	u, err := url.Parse(e.Request.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL", e.Request.URL)
	}
	rec := &record{
		started: e.Started, method: e.Request.Method, target: u.RequestURI(), host: u.Host, proto: e.Request.HTTPVersion,
		endpoint: e.Endpoint, imported: true, public: u.Scheme + "://" + u.Host, state: done, status: e.Response.Status,
		header: canonical(e.Request.Headers), answer: canonical(e.Response.Headers),
		total: span(e.Time), wait: span(e.Timings.Send + e.Timings.Wait),
	}
	if rec.status == 0 {
		rec.state = cut
	}
	if post := e.Request.PostData; post != nil {
		if rec.asked.kept, err = bytesOf(post.Text, post.Encoding); err != nil {
			return nil, fmt.Errorf("postData: %w", err)
		}
		if !post.Coded {
			rec.header = without(rec.header, "Content-Encoding")
		}
	}
	if rec.answered.kept, err = bytesOf(e.Response.Content.Text, e.Response.Content.Encoding); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if !e.Response.Content.Coded {
		rec.answer = without(rec.answer, "Content-Encoding") // a HAR's text is decoded
	}
	rec.asked.size = max(int64(len(rec.asked.kept)), e.Request.BodySize)
	rec.answered.size = int64(len(rec.answered.kept))
	for _, m := range e.Messages {
		one := message{at: time.UnixMicro(int64(m.Time * 1e6)), fromVisitor: m.Type == "send", kind: kindOf(byte(m.Opcode)), data: []byte(m.Data)}
		if m.Opcode == opBinary {
			if b, err := base64.StdEncoding.DecodeString(m.Data); err == nil {
				one.data = b
			}
		}
		one.size = int64(len(one.data))
		rec.messages = append(rec.messages, one)
		rec.size += one.weight()
	}
	rec.size += overhead + sizeOf(rec.header) + sizeOf(rec.answer) + int64(cap(rec.asked.kept)+cap(rec.answered.kept)+len(rec.target)+len(rec.endpoint))
	return rec, nil
}

func span(ms float64) time.Duration { return time.Duration(max(ms, 0) * float64(time.Millisecond)) }

// canonical is fields as net/http has them: those of HTTP/2 are in lower case, and its
// pseudo-headers are none.
func canonical(fields []Field) []Field {
	all := make([]Field, 0, len(fields))
	for _, f := range fields {
		if !strings.HasPrefix(f.Name, ":") {
			all = append(all, Field{Name: http.CanonicalHeaderKey(f.Name), Value: f.Value})
		}
	}
	return all
}

func without(fields []Field, name string) []Field {
	kept := fields[:0]
	for _, f := range fields {
		if f.Name != name {
			kept = append(kept, f)
		}
	}
	return kept
}

func bytesOf(text, encoding string) ([]byte, error) {
	if encoding == "base64" {
		return base64.StdEncoding.DecodeString(text)
	}
	return []byte(text), nil
}
