package inspect

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// harLog is HAR 1.2, the format in which browsers export what they saw. Names that begin
// with _ are not of it, as it has them.
type harLog struct {
	Log struct {
		Version string     `json:"version"`
		Creator harCreator `json:"creator"`
		Entries []harEntry `json:"entries"`
	} `json:"log"`
}

type harCreator struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type harEntry struct {
	Started  time.Time    `json:"startedDateTime"`
	Time     float64      `json:"time"`
	Request  harRequest   `json:"request"`
	Response harResponse  `json:"response"`
	Cache    struct{}     `json:"cache"`
	Timings  harTimings   `json:"timings"`
	Comment  string       `json:"comment,omitempty"`
	Endpoint string       `json:"_endpoint,omitempty"`
	Kind     string       `json:"_kind,omitempty"`              // "": http
	Cut      bool         `json:"_cut,omitempty"`               // there is no whole answer
	Messages []harMessage `json:"_webSocketMessages,omitempty"` // as Chromium has them
	Events   []harEvent   `json:"_events,omitempty"`
	Dropped  int          `json:"_messagesDropped,omitempty"` // older ones
}

type harRequest struct {
	Method      string   `json:"method"`
	URL         string   `json:"url"`
	HTTPVersion string   `json:"httpVersion"`
	Cookies     []Field  `json:"cookies"`
	Headers     []Field  `json:"headers"`
	QueryString []Field  `json:"queryString"`
	PostData    *harPost `json:"postData,omitempty"`
	Target      string   `json:"_target,omitempty"` // as it was sent, where URL cannot have it
	HeadersSize int      `json:"headersSize"`
	BodySize    int64    `json:"bodySize"`
}

type harPost struct {
	MimeType string `json:"mimeType"`
	Text     string `json:"text"`
	Encoding string `json:"_encoding,omitempty"` // base64
	Coded    bool   `json:"_coded,omitempty"`    // the content coding is still on
	Cut      bool   `json:"_cut,omitempty"`      // there was more
	Comment  string `json:"comment,omitempty"`
}

type harResponse struct {
	Status      int        `json:"status"`
	StatusText  string     `json:"statusText"`
	HTTPVersion string     `json:"httpVersion"`
	Cookies     []Field    `json:"cookies"`
	Headers     []Field    `json:"headers"`
	Content     harContent `json:"content"`
	RedirectURL string     `json:"redirectURL"`
	HeadersSize int        `json:"headersSize"`
	BodySize    int64      `json:"bodySize"`
}

type harContent struct {
	Size     int64  `json:"size"`
	MimeType string `json:"mimeType"`
	Text     string `json:"text,omitempty"`
	Encoding string `json:"encoding,omitempty"`
	Coded    bool   `json:"_coded,omitempty"` // the content coding is still on
	Cut      bool   `json:"_cut,omitempty"`   // there was more
	Comment  string `json:"comment,omitempty"`
}

type harTimings struct {
	Send    float64 `json:"send"`
	Wait    float64 `json:"wait"`
	Receive float64 `json:"receive"`
}

type harMessage struct {
	Type   string  `json:"type"` // send: by the visitor
	Time   float64 `json:"time"` // seconds since 1970
	Opcode int     `json:"opcode"`
	Data   string  `json:"data"` // base64 where Opcode says binary
	// Encoding is base64 where Opcode says otherwise and it is no text all the same.
	Encoding string `json:"_encoding,omitempty"`
}

// harEvent is one of a stream of server-sent events.
type harEvent struct {
	Time float64 `json:"time"` // seconds since 1970
	Data string  `json:"data"` // its lines
}

// maxExported bounds what all of one export is decoded to, in bytes.
const maxExported = 64 << 20

// exportHAR answers with the requests that the filter takes, or those of ids.
func (s *Server) exportHAR(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f, err := parseFilter(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	reveal, ok := s.reveals(w, r)
	if !ok {
		return
	}
	var ids []string
	if list := q.Get("ids"); list != "" {
		ids = strings.Split(list, ",")
	}
	w.Header().Set("Content-Disposition", `attachment; filename="tunnel.har"`)
	w.Header().Set("Content-Type", "application/json")
	// One entry at a time is in memory: a small body may be a large one when decoded.
	io.WriteString(w, `{"log":{"version":"1.2","creator":{"name":"tunnel-client","version":"1"},"entries":[`)
	left, between := s.most, ""
	for _, one := range f.choose(r.Context(), s.store.all()) {
		if r.Context().Err() != nil {
			return // nobody reads it any more
		}
		rec := s.store.find(one.ID)
		if rec == nil || ids != nil && !slices.Contains(ids, strconv.FormatInt(one.ID, 10)) {
			continue
		}
		shown := rec.showWithin(reveal, 0, &left)
		if shown.Path == "" {
			continue // it was given up meanwhile
		}
		entry, err := json.Marshal(newEntry(shown))
		if err != nil {
			panic(http.ErrAbortHandler) // so that it is not taken for a whole one
		}
		if _, err := io.WriteString(w, between); err != nil {
			return
		}
		if _, err := w.Write(entry); err != nil {
			return
		}
		between = ","
	}
	io.WriteString(w, "]}}\n")
}

func newEntry(r Request) harEntry {
	e := harEntry{Started: r.Started, Time: r.Timing.Total, Endpoint: r.Endpoint, Cut: r.State != string(done), Dropped: r.MessagesDropped}
	e.Timings = harTimings{Send: 0, Wait: min(r.Timing.Wait, e.Time)}
	e.Timings.Receive = e.Time - e.Timings.Wait
	e.Request = harRequest{
		Method: r.Method, HTTPVersion: r.Protocol, Cookies: plain(r.Request.Cookies), Headers: plain(r.Request.Headers),
		QueryString: r.Query, HeadersSize: -1, BodySize: r.RequestBytes,
	}
	e.Request.URL, e.Request.Target = harURL(r)
	if b := r.Request.Body; b.Text != "" || b.Base64 != "" {
		e.Request.PostData = &harPost{MimeType: b.Type, Text: b.Text, Coded: b.coded, Cut: b.Cut, Comment: b.Error}
		if b.Base64 != "" {
			e.Request.PostData.Text, e.Request.PostData.Encoding = b.Base64, "base64"
		}
	}
	b := r.Response.Body
	e.Response = harResponse{
		Status: r.Status, StatusText: http.StatusText(r.Status), HTTPVersion: "HTTP/1.1", Cookies: plain(r.Response.Cookies), Headers: plain(r.Response.Headers),
		RedirectURL: valueOf(r.Response.Headers, "Location"), HeadersSize: -1, BodySize: r.ResponseBytes,
		Content: harContent{Size: int64(len(b.Text)), MimeType: b.Type, Text: b.Text, Coded: b.coded, Cut: b.Cut, Comment: b.Error},
	}
	if b.Base64 != "" {
		e.Response.Content.Text, e.Response.Content.Encoding = b.Base64, "base64"
		e.Response.Content.Size = int64(base64.RawStdEncoding.DecodedLen(len(strings.TrimRight(b.Base64, "="))))
	}
	if b.Cut || r.Request.Body.Cut {
		e.Comment = "only the beginning of a body was kept"
	}
	switch e.Kind = r.Kind; r.Kind {
	case "http":
		e.Kind = ""
	case "websocket":
		e.Messages = newMessages(r.Messages)
	case "events":
		for _, m := range r.Messages {
			e.Events = append(e.Events, harEvent{secondsOf(m.At), m.Text})
		}
	}
	return e
}

// harURL is the URL with what RFC 3986 does not allow in a path or query encoded, and the
// request's target where that is not in it as it was.
func harURL(r Request) (uri, target string) {
	const plain = "-._~!$&'()*+,;=:@/?"
	origin, ok := strings.CutSuffix(r.URL, r.Path)
	if !ok { // that of OPTIONS *
		return r.URL, r.Path
	}
	var b strings.Builder
	for i := range len(r.Path) {
		c := r.Path[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if _, bad := url.PathUnescape(r.Path[i:min(i+3, len(r.Path))]); letter || strings.IndexByte(plain, c) >= 0 || c == '%' && bad == nil {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	if b.String() != r.Path {
		target = r.Path
	}
	return origin + b.String(), target
}

func secondsOf(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }

// plain is fields without what a HAR has no word for.
func plain(fields []Field) []Field {
	all := make([]Field, len(fields))
	for i, f := range fields {
		all[i] = Field{Name: f.Name, Value: f.Value}
	}
	return all
}

func newMessages(messages []Message) []harMessage {
	all := make([]harMessage, 0, len(messages))
	for _, m := range messages {
		h := harMessage{Type: "receive", Time: secondsOf(m.At), Data: m.Text}
		if m.From == "visitor" {
			h.Type = "send"
		}
		for _, opcode := range []byte{opText, opBinary, opClose, opPing, opPong} {
			if kindOf(opcode) == m.Kind {
				h.Opcode = int(opcode)
			}
		}
		switch {
		case h.Opcode == opBinary && m.Base64 == "":
			h.Data = base64.StdEncoding.EncodeToString([]byte(m.Text))
		case m.Base64 != "":
			h.Data = m.Base64
			if h.Opcode != opBinary {
				h.Encoding = "base64"
			}
		}
		all = append(all, h)
	}
	return all
}
