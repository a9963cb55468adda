package inspect

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
)

// upload is a request's body that is recorded as it is read.
type upload struct {
	io.ReadCloser
	rec *record
}

func (u *upload) Read(p []byte) (int, error) {
	start := time.Now()
	n, err := u.ReadCloser.Read(p)
	u.rec.mu.Lock()
	if u.rec.status == 0 { // later it is not what the answer waits for
		u.rec.tunnel += time.Since(start)
	}
	u.rec.keep(&u.rec.asked, p[:max(n, 0)])
	u.rec.mu.Unlock()
	u.rec.store.tooMuch()
	return n, err
}

// answer is a ResponseWriter that records what is written. What it does not have is
// the one's that it wraps, by way of http.ResponseController.
type answer struct {
	http.ResponseWriter
	rec  *record
	head bool // the method is HEAD: no body follows
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader notes the status and the header, interim ones as well.
func (a *answer) WriteHeader(status int) {
	fields := fieldsOf(a.Header())
	a.ResponseWriter.WriteHeader(status)
	rec, streaming := a.rec, false
	rec.mu.Lock()
	switch {
	case rec.status != 0:
	case status < 200 && status != http.StatusSwitchingProtocols:
		if len(rec.interim) < maxInterim && !rec.forgotten {
			rec.interim = append(rec.interim, interim{status, fields})
			rec.grow(sizeOf(fields))
		}
	default:
		rec.begin(status, fields)
		if streaming = isEvents(fields); streaming {
			rec.events = new(events)
		}
	}
	rec.mu.Unlock()
	if streaming {
		rec.store.changed(rec) // it may stay open for long
	}
}

func isEvents(fields []Field) bool {
	kind, coding := "", ""
	for _, f := range fields {
		switch f.Name {
		case "Content-Type":
			kind = f.Value
		case "Content-Encoding":
			coding = f.Value
		}
	}
	kind, _, _ = strings.Cut(kind, ";")
	return coding == "" && strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// Write notes the body.
func (a *answer) Write(p []byte) (int, error) {
	start := time.Now()
	n, err := a.ResponseWriter.Write(p)
	took := time.Since(start)
	rec := a.rec
	rec.mu.Lock()
	if rec.status == 0 {
		rec.begin(http.StatusOK, fieldsOf(a.Header()))
	}
	rec.tunnel += took
	told := 0
	if !a.head {
		rec.keep(&rec.answered, p[:n])
		if rec.events != nil {
			told = rec.events.feed(p[:n], rec)
		}
	}
	rec.mu.Unlock()
	rec.store.tooMuch()
	if told > 0 {
		rec.store.changed(rec)
	}
	return n, err
}

// Hijack hands the connection over, and sees what passes on it, unless an answer has
// begun.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	rec := a.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if err != nil || rec.status != 0 {
		return conn, rw, err
	}
	rec.switched = &switched{rec: rec}
	tap := &proxy.Tap{Conn: conn, Came: rec.switched.came, Goes: rec.switched.goes}
	rw.Writer.Reset(tap)
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	rec.switched.early = bytes.Clone(early)
	return tap, rw, nil
}

// switched is a connection that the handler has taken over: the head of an answer that
// goes to the visitor, and the two directions behind it.
type switched struct {
	rec       *record
	early     []byte // what the visitor sent before the head
	head      []byte // until it is whole
	begun     bool
	websocket bool
	asked     frames // by the visitor
	answered  frames
}

// maxSwitchHead bounds the head that is looked for, in bytes.
const maxSwitchHead = 64 << 10

// came gets what the visitor sent.
func (s *switched) came(p []byte) {
	s.rec.mu.Lock()
	s.rec.asked.size += int64(len(p))
	told := 0
	if s.websocket {
		told = s.asked.feed(p, true, s.rec)
	}
	s.rec.mu.Unlock()
	s.tell(told)
}

// goes gets what is sent to the visitor.
func (s *switched) goes(p []byte) {
	s.rec.mu.Lock()
	told := 0
	if !s.begun {
		p = s.begin(p)
		told = 1
	}
	s.rec.answered.size += int64(len(p))
	if s.websocket {
		told += s.answered.feed(p, false, s.rec)
	}
	s.rec.mu.Unlock()
	s.tell(told)
}

func (s *switched) tell(messages int) {
	s.rec.store.tooMuch()
	if messages > 0 {
		s.rec.store.changed(s.rec)
	}
}

// begin looks for the end of the answer's head, and returns what follows it.
func (s *switched) begin(p []byte) []byte {
	s.head = append(s.head, p...)
	end := bytes.Index(s.head, []byte("\r\n\r\n"))
	if end < 0 && len(s.head) < maxSwitchHead {
		return nil
	}
	head := s.head
	s.begun, s.head = true, nil
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if end < 0 || err != nil {
		return nil
	}
	s.rec.asked.size += int64(len(s.early))
	s.rec.begin(res.StatusCode, fieldsOf(res.Header))
	if res.StatusCode == http.StatusSwitchingProtocols && strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		s.websocket = true
		s.asked.deflate = parseDeflate(res.Header)
		s.answered.deflate = s.asked.deflate
		s.asked.feed(s.early, true, s.rec)
	}
	return head[end+4:]
}
