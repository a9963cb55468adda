package inspect

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
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
	target := u.RequestURI()
	if e.Request.Target != "" {
		target = e.Request.Target
		if target != "*" && target[0] != '/' || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("_target %q is no path", target)
		}
	}
	rec := &record{
		started: e.Started, method: e.Request.Method, target: target, host: u.Host, proto: e.Request.HTTPVersion,
		endpoint: e.Endpoint, imported: true, public: u.Scheme + "://" + u.Host, state: done, status: e.Response.Status,
		header: canonical(e.Request.Headers), answer: canonical(e.Response.Headers),
		total: span(e.Time), wait: span(e.Timings.Send + e.Timings.Wait),
	}
	if rec.status == 0 || e.Cut {
		rec.state = cut
	}
	if rec.kind = e.kind(); rec.kind == "" {
		return nil, fmt.Errorf("_kind %q is none", e.Kind)
	}
	if err := e.bodies(rec); err != nil {
		return nil, err
	}
	for _, m := range e.Messages {
		rec.messages = append(rec.messages, m.message())
	}
	for _, one := range e.Events {
		rec.messages = append(rec.messages, message{at: timeOf(one.Time), kind: "event", data: []byte(one.Data), size: int64(len(one.Data))})
	}
	for _, m := range rec.messages {
		rec.size += m.weight()
	}
	rec.lost = max(0, e.Dropped)
	rec.size += overhead + sizeOf(rec.header) + sizeOf(rec.answer) + int64(cap(rec.asked.kept)+cap(rec.answered.kept)+len(rec.target)+len(rec.endpoint))
	return rec, nil
}

// kind is how the request is listed, "" where there is no such kind.
func (e harEntry) kind() string {
	switch e.Kind {
	case "http", "websocket", "upgrade", "events":
		return e.Kind
	case "":
		if e.Response.Status == http.StatusSwitchingProtocols { // a browser's
			return "websocket"
		}
		return "http"
	}
	return ""
}

// bodies gives rec those of the entry. A HAR's texts are decoded.
func (e harEntry) bodies(rec *record) (err error) {
	coded, b := valueOf(rec.header, "Content-Encoding") != "", &rec.asked
	if post := e.Request.PostData; post != nil {
		if b.kept, err = bytesOf(post.Text, post.Encoding); err != nil {
			return fmt.Errorf("postData: %w", err)
		}
		if b.more = post.Cut; !post.Coded {
			rec.header = without(rec.header, "Content-Encoding")
		}
	}
	b.size = sizeOr(e.Request.BodySize, b.kept)
	// Browsers leave out what they have not kept, and do not say so.
	if rec.kind == "http" && b.size > int64(len(b.kept)) && (!coded || len(b.kept) == 0) {
		b.more = true
	}
	content := e.Response.Content
	b = &rec.answered
	if b.kept, err = bytesOf(content.Text, content.Encoding); err != nil {
		return fmt.Errorf("content: %w", err)
	}
	b.size = sizeOr(e.Response.BodySize, b.kept)
	b.more = content.Cut || rec.kind == "http" && b.size > 0 && len(b.kept) == 0
	if !content.Coded {
		rec.answer = without(rec.answer, "Content-Encoding")
	}
	return nil
}

// sizeOr is how much passed, or, where that is not known, how much was kept.
func sizeOr(size int64, kept []byte) int64 {
	if size < 0 || size == 0 && len(kept) > 0 {
		return int64(len(kept))
	}
	return size
}

// message is m as it was on the wire.
func (m harMessage) message() message {
	one := message{at: timeOf(m.Time), fromVisitor: m.Type == "send", kind: kindOf(byte(m.Opcode)), data: []byte(m.Data)}
	if m.Opcode == opBinary || m.Encoding == "base64" {
		if b, err := base64.StdEncoding.DecodeString(m.Data); err == nil {
			one.data = b
		}
	}
	if m.Opcode == opClose { // RFC 6455, section 5.5.1
		code, reason, _ := strings.Cut(string(one.data), " ")
		if n, err := strconv.ParseUint(code, 10, 16); err == nil {
			one.data = append(binary.BigEndian.AppendUint16(nil, uint16(n)), reason...)
		}
	}
	one.size = int64(len(one.data))
	return one
}

func timeOf(seconds float64) time.Time { return time.UnixMicro(int64(math.Round(seconds * 1e6))) }

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
