package inspect

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Summary is a request in the list.
type Summary struct {
	ID       int64     `json:"id"`
	Started  time.Time `json:"started"`
	Endpoint string    `json:"endpoint,omitempty"`
	Method   string    `json:"method"`
	URL      string    `json:"url"`    // as the visitor asked it
	Path     string    `json:"path"`   // with the query, as it was sent
	Status   int       `json:"status"` // 0: none yet, or none at all
	State    string    `json:"state"`  // open, done, or cut: it ended without a whole answer
	Kind     string    `json:"kind"`   // http, websocket, upgrade, or events
	Type     string    `json:"type,omitempty"`
	Error    string    `json:"error,omitempty"` // the tunnel's own code, in place of an answer of the app's

	RequestBytes  int64   `json:"request_bytes"` // of the body
	ResponseBytes int64   `json:"response_bytes"`
	Messages      int     `json:"messages,omitempty"`
	Milliseconds  float64 `json:"ms"` // so far

	ReplayOf int64 `json:"replay_of,omitempty"`
	Imported bool  `json:"imported,omitempty"`
}

// Request is all that is known of one.
type Request struct {
	Summary
	Host     string  `json:"host"` // as the app is asked for
	Protocol string  `json:"protocol"`
	Visitor  string  `json:"visitor,omitempty"` // address
	Timing   Timing  `json:"timing"`
	Query    []Field `json:"query"`

	Request  Part      `json:"request"`
	Response Part      `json:"response"`
	Interim  []Interim `json:"interim,omitempty"`

	Messages        []Message `json:"messages,omitempty"`
	MessagesDropped int       `json:"messages_dropped,omitempty"`
}

// Timing is where the time went, in milliseconds.
type Timing struct {
	Total  float64 `json:"total"`  // from the request's arrival to the end of its answer
	Wait   float64 `json:"wait"`   // to the header of the answer
	App    float64 `json:"app"`    // in the local app
	Tunnel float64 `json:"tunnel"` // waiting for the tunnel to bring the request's body and to take the answer
}

// Part is one half of an exchange.
type Part struct {
	Headers  []Field `json:"headers"`
	Cookies  []Field `json:"cookies"`
	Trailers []Field `json:"trailers,omitempty"`
	Body     Body    `json:"body"`
}

// Interim is a 1xx answer.
type Interim struct {
	Status  int     `json:"status"`
	Headers []Field `json:"headers"`
}

// Body is a body for the eye: decompressed, and only the beginning of a large one.
type Body struct {
	Type   string `json:"type,omitempty"`
	Coding string `json:"coding,omitempty"` // what was taken off
	Size   int64  `json:"size"`             // bytes that passed
	Cut    bool   `json:"cut,omitempty"`    // there was more than was kept
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"` // in place of text where it is none
	Error  string `json:"error,omitempty"`  // why it is not shown, or not all of it

	coded bool // it is as it was kept: its coding could not be taken off
}

// Message is one of a WebSocket, or an event.
type Message struct {
	Number int       `json:"number"` // from 1
	At     time.Time `json:"at"`
	From   string    `json:"from"` // visitor or app
	Kind   string    `json:"kind"` // text, binary, ping, pong, close, or event
	Size   int64     `json:"size"` // bytes on the wire
	Cut    bool      `json:"cut,omitempty"`
	Text   string    `json:"text,omitempty"`
	Base64 string    `json:"base64,omitempty"`
	Error  string    `json:"error,omitempty"`
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond).Microseconds()) / 1000
}

// summary is rec now.
func (rec *record) summary() Summary {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.summaryLocked()
}

func (rec *record) summaryLocked() Summary {
	s := Summary{
		ID: rec.id, Started: rec.started, Method: rec.method, URL: rec.url(), Path: rec.target,
		Status: rec.status, State: string(rec.state), Kind: "http",
		RequestBytes: rec.asked.size, ResponseBytes: rec.answered.size, Messages: rec.lost + len(rec.messages),
		Endpoint: rec.endpoint, ReplayOf: rec.original, Imported: rec.imported,
	}
	for _, f := range rec.answer {
		switch f.Name {
		case "Content-Type":
			s.Type, _, _ = strings.Cut(f.Value, ";")
		case protocol.HeaderError:
			s.Error = f.Value
		}
	}
	switch {
	case rec.kind != "":
		s.Kind = rec.kind
	case rec.switched != nil && !rec.switched.websocket:
		s.Kind = "upgrade"
	case rec.switched != nil:
		s.Kind = "websocket"
	case rec.events != nil:
		s.Kind = "events"
	}
	s.Milliseconds = milliseconds(rec.total)
	if rec.state == open {
		s.Milliseconds = milliseconds(time.Since(rec.started))
	}
	return s
}

// url is what the visitor asked for. rec.mu is held.
func (rec *record) url() string {
	switch {
	case strings.HasPrefix(rec.target, "/"):
		return rec.public + rec.target
	case rec.target == "*": // RFC 9112, section 3.3
		return rec.public
	}
	return rec.target
}

// show is rec with the messages after one. reveal shows secrets.
func (rec *record) show(reveal bool, after int) Request {
	left := int64(maxExported)
	return rec.showWithin(reveal, after, &left)
}

// showWithin is show of which no more than left is decoded, in bytes; it takes off left
// what was. Several requests may share it.
func (rec *record) showWithin(reveal bool, after int, left *int64) Request {
	rec.mu.Lock()
	s := Request{Summary: rec.summaryLocked(), Host: rec.host, Protocol: rec.proto, Visitor: rec.remote, MessagesDropped: rec.lost}
	header, asked, answered, answer := rec.header, rec.asked, rec.answered, rec.answer
	s.Timing = Timing{Total: s.Milliseconds, Wait: milliseconds(rec.wait), Tunnel: min(milliseconds(rec.tunnel), s.Milliseconds)}
	if rec.switched == nil {
		s.Timing.App = s.Timing.Total - s.Timing.Tunnel
	} else {
		s.Timing.App = s.Timing.Wait
	}
	for _, one := range rec.interim {
		s.Interim = append(s.Interim, Interim{one.status, sorted(masked(one.header, reveal))})
	}
	s.Response.Trailers = sorted(masked(rec.trailer, reveal))
	messages, inflaters := slices.Clone(rec.messages), rec.inflaters
	rec.mu.Unlock()

	s.Query = queryOf(s.Path)
	s.Request.fill(header, "Cookie", asked, reveal, left)
	s.Response.fill(answer, "Set-Cookie", answered, reveal, left)
	for side := range inflaters {
		rec.catchUp(side, &inflaters[side], left)
	}
	s.Messages = showMessages(messages, s.MessagesDropped, after, inflaters, left)
	return s
}

func (p *Part) fill(header []Field, cookies string, b body, reveal bool, left *int64) {
	p.Headers = sorted(masked(header, reveal))
	p.Cookies = cookiesOf(header, cookies, reveal)
	p.Body = showBody(b, valueOf(header, "Content-Type"), valueOf(header, "Content-Encoding"), left)
}

// sorted orders fields by name: in which order they came is not known.
func sorted(fields []Field) []Field {
	slices.SortStableFunc(fields, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
	return fields
}

func valueOf(fields []Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func queryOf(target string) []Field {
	fields := []Field{}
	_, query, _ := strings.Cut(target, "?")
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		fields = append(fields, Field{Name: unescaped(name), Value: unescaped(value)})
	}
	return fields
}

func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

func cookiesOf(header []Field, name string, reveal bool) []Field {
	fields := []Field{}
	for _, f := range header {
		if f.Name != name {
			continue
		}
		for i, one := range strings.Split(f.Value, ";") {
			if i > 0 && name == "Set-Cookie" {
				break // its attributes
			}
			cookie, value, _ := strings.Cut(strings.TrimSpace(one), "=")
			if !reveal {
				value = Mask
			}
			fields = append(fields, Field{Name: cookie, Value: value, Secret: !reveal})
		}
	}
	return fields
}

func showBody(b body, kind, coding string, left *int64) Body {
	s := Body{Type: kind, Size: b.size, Cut: b.more}
	text, err := decodeWithin(b.kept, coding, left)
	switch {
	case len(b.kept) == 0:
		return s
	case err != nil && len(text) == 0:
		s.Error, text, s.coded = err.Error(), b.kept, true
	case err != nil && !s.Cut:
		s.Error = err.Error()
	}
	if coding != "" && s.Error == "" {
		s.Coding = coding
	}
	s.Text, s.Base64 = textOrNot(text, s.Cut)
	return s
}

// textOrNot returns b as text, or, where it is none, in base64. cut says that its last
// character may be missing a part.
func textOrNot(b []byte, cut bool) (text, encoded string) {
	whole := b
	for i := 1; cut && i < utf8.UTFMax && len(whole) > 0 && !utf8.Valid(whole); i++ {
		whole = whole[:len(whole)-1]
	}
	if utf8.Valid(whole) && !slices.Contains(whole, 0) {
		return string(whole), ""
	}
	return "", base64.StdEncoding.EncodeToString(b)
}

// maxShown bounds what the compressed messages of one answer are inflated to, in bytes.
const maxShown = 8 << 20

// showMessages shows the messages after one. No more than left is inflated: those that are
// not shown take of that, too, as the later ones refer to them.
func showMessages(messages []message, lost, after int, inflaters [2]inflater, left *int64) []Message {
	var shown []Message
	room := int64(maxShown)
	for i, m := range messages {
		s := Message{Number: lost + i + 1, At: m.at, From: "app", Kind: m.kind, Size: m.size, Cut: int64(len(m.data)) < m.size}
		side := &inflaters[0]
		if m.fromVisitor {
			s.From, side = "visitor", &inflaters[1]
		}
		data, skipped := m.data, s.Number <= after
		if m.deflated && !(skipped && m.alone) {
			limit := *left
			if !skipped {
				limit = min(limit, room)
			}
			before := limit
			var err error
			if data, err = side.inflate(m, &limit); err != nil {
				s.Error = err.Error()
			}
			*left -= before - limit
			if !skipped {
				room -= before - limit
			}
		}
		if skipped {
			continue
		}
		if m.kind == kindOf(opClose) && len(data) >= 2 { // RFC 6455, section 5.5.1
			data = fmt.Appendf(nil, "%d %s", binary.BigEndian.Uint16(data), data[2:])
		}
		s.Text, s.Base64 = textOrNot(data, s.Cut)
		shown = append(shown, s)
	}
	return shown
}
