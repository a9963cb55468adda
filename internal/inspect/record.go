package inspect

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

const (
	// maxMessages is how many messages of a connection are kept, the newest.
	maxMessages = 1000
	// maxInterim is how many interim answers are kept, the first.
	maxInterim = 16
)

// Field is a field of a header or trailer section, or a cookie, or a part of a query.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Secret says that Value was masked.
	Secret bool `json:"secret,omitempty"`
}

// state is how far a request is.
type state string

const (
	open state = "open"
	done state = "done"
	cut  state = "cut" // it ended without a whole answer
)

// record is one request with its answer.
type record struct {
	store    *Store
	endpoint string // under which it came; "": it has no name
	imported bool
	kind     string // of an import; "": that is seen otherwise
	id       int64
	original int64 // id of the one that it replays; 0: none

	// The request.
	started             time.Time
	method, host, proto string
	remote, public      string // the visitor's address, and the origin it asked

	mu        sync.Mutex // guards the following
	target    string     // "": it is forgotten
	header    []Field
	size      int64 // bytes that are kept; nothing more once forgotten
	forgotten bool
	state     state
	asked     body
	status    int // 0: none yet
	interim   []interim
	answer    []Field
	trailer   []Field // of the answer
	answered  body
	events    *events       // of an answer of server-sent events; nil: it is none
	switched  *switched     // of a connection that was taken over; nil: it was not
	messages  []message     // the newest
	lost      int           // messages that were given up
	held      int64         // bytes of messages
	inflaters [2]inflater   // past the messages that were given up, by side
	wait      time.Duration // to the answer's header
	total     time.Duration
	tunnel    time.Duration // in which the tunnel was waited for
}

// interim is a 1xx answer.
type interim struct {
	status int
	header []Field
}

// body is the beginning of a body.
type body struct {
	kept []byte
	size int64 // of all that passed
	more bool  // than was kept did
}

func newRecord(r *http.Request, now time.Time) *record {
	rec := &record{
		started: now, method: r.Method, target: r.RequestURI, host: r.Host, proto: r.Proto, state: open,
		header: fieldsOf(r.Header, protocol.HeaderRoute, protocol.HeaderVisitor),
	}
	rec.remote = r.Header.Get(protocol.HeaderVisitor)
	if list := r.Header["X-Forwarded-For"]; len(list) > 0 {
		last := list[len(list)-1]
		rec.remote = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	}
	rec.public = "http://" + r.Host
	if host := r.Header.Get("X-Forwarded-Host"); host != "" {
		scheme := "http://"
		if r.Header.Get("X-Forwarded-Proto") == "https" {
			scheme = "https://"
		}
		rec.public = scheme + host
	}
	rec.size = overhead + sizeOf(rec.header) + int64(len(rec.target))
	return rec
}

// fieldsOf copies a header section, but for what is the tunnel's own.
func fieldsOf(h http.Header, without ...string) []Field {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	if n == 0 {
		return nil
	}
	fields := make([]Field, 0, n)
next:
	for name, values := range h {
		for _, one := range without {
			if name == one {
				continue next
			}
		}
		for _, v := range values {
			fields = append(fields, Field{Name: name, Value: v})
		}
	}
	return fields
}

func sizeOf(fields []Field) int64 {
	n := int64(0)
	for _, f := range fields {
		n += int64(len(f.Name) + len(f.Value) + 40)
	}
	return n
}

// forget gives back what rec keeps, and keeps nothing any more.
func (rec *record) forget() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.store.size.Add(-rec.size)
	rec.size, rec.forgotten = 0, true
	rec.target, rec.header = "", nil
	rec.asked.kept, rec.answered.kept, rec.messages, rec.answer, rec.trailer, rec.interim = nil, nil, nil, nil, nil, nil
	if rec.switched != nil {
		rec.switched.asked.forget()
		rec.switched.answered.forget()
	}
	rec.inflaters = [2]inflater{}
	if rec.events != nil {
		rec.events.block = nil
	}
}

// grow counts n bytes more that are kept. rec.mu is held.
func (rec *record) grow(n int64) {
	if !rec.forgotten {
		rec.size += n
		rec.store.size.Add(n)
	}
}

// keep takes what p adds to b. rec.mu is held.
func (rec *record) keep(b *body, p []byte) {
	b.size += int64(len(p))
	room := rec.store.maxBody() - len(b.kept)
	b.more = b.more || len(p) > room
	if room <= 0 || rec.forgotten {
		return
	}
	before := cap(b.kept)
	b.kept = append(b.kept, p[:min(room, len(p))]...)
	rec.grow(int64(cap(b.kept) - before))
}

// say keeps a message. rec.mu is held.
func (rec *record) say(m message) {
	if rec.forgotten {
		return
	}
	rec.messages = append(rec.messages, m)
	rec.held += m.weight()
	rec.grow(messageOverhead) // the data was counted as it came
	for len(rec.messages) > maxMessages || rec.held > int64(rec.store.maxBody()) && len(rec.messages) > 1 {
		first := rec.messages[0]
		i := rec.inflaterOf(first.fromVisitor)
		before := i.weight()
		i.skip(first, rec.store.maxBody())
		rec.grow(i.weight() - before)
		rec.messages[0] = message{}
		rec.messages, rec.lost = rec.messages[1:], rec.lost+1
		rec.held -= first.weight()
		rec.grow(-int64(cap(first.data)) - messageOverhead)
	}
}

// inflaterOf is the state of a side's compression after the messages that were given
// up. rec.mu is held.
func (rec *record) inflaterOf(fromVisitor bool) *inflater {
	if fromVisitor {
		return &rec.inflaters[1]
	}
	return &rec.inflaters[0]
}

// catchUp has i go through what it keeps of messages that were given up, and keeps where
// that has come to, for this side.
func (rec *record) catchUp(side int, i *inflater, left *int64) {
	was := *i
	if len(was.past) == 0 || !i.catchUp(left) {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.forgotten {
		return
	}
	now := &rec.inflaters[side]
	before := now.weight()
	now.caughtUp(was, *i)
	rec.grow(now.weight() - before)
}

// begin notes the header of an answer that is not interim. rec.mu is held.
func (rec *record) begin(status int, header []Field) {
	rec.status, rec.answer = status, header
	rec.wait = time.Since(rec.started)
	rec.grow(sizeOf(header))
}

// end comes when the handler has returned; whole says that it did not panic.
func (rec *record) end(header http.Header, whole bool) {
	rec.mu.Lock()
	rec.total = time.Since(rec.started)
	rec.state = done
	switch {
	case !whole:
		rec.state = cut
	case rec.switched == nil && rec.status == 0:
		rec.begin(http.StatusOK, fieldsOf(header)) // as a server does
	}
	if rec.switched == nil && whole {
		rec.trailer = trailersOf(header)
		rec.grow(sizeOf(rec.trailer))
	}
	rec.mu.Unlock()
	rec.store.tooMuch()
	rec.store.changed(rec)
}

// trailersOf are the fields that went out behind the body: those that were announced,
// and those with http.TrailerPrefix.
func trailersOf(h http.Header) []Field {
	var fields []Field
	for _, v := range h["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			for _, value := range h[name] {
				fields = append(fields, Field{Name: name, Value: value})
			}
		}
	}
	for name, values := range h {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			for _, value := range values {
				fields = append(fields, Field{Name: name, Value: value})
			}
		}
	}
	return fields
}
