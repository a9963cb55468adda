package inspect

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"
)

// told is what is kept of messages, without when they came.
func told(rec *record) string {
	all := ""
	for _, m := range rec.messages {
		all += fmt.Sprintf("%v %s %d %q %v\n", m.fromVisitor, m.kind, m.size, m.data, m.deflated)
	}
	return all
}

// inPieces has feed read data in pieces of every size that cut has, and returns what was kept.
func inPieces(data, cut []byte, feed func(*record, []byte)) string {
	rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Time{})
	rec.store = &Store{MaxBody: 1 << 10}
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(cut) > 0 {
			n = min(n, int(cut[i%len(cut)])+1)
		}
		feed(rec, data[:n])
		data = data[n:]
	}
	return told(rec)
}

// FuzzFrames: what a visitor sends on a WebSocket says the same in whatever pieces it comes,
// and its messages are inflated or not, but never more than the bound.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x85\x01\x02\x03\x04hello\x01\x02ab\x89\x00\x80\x01c"), []byte{0})
	f.Add([]byte("\xc1\x7e\x00\x03abc\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01d"), []byte{2, 7})
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), []byte{1})
	f.Fuzz(func(t *testing.T, data, cut []byte) {
		parse := func(cut []byte) string {
			frames := frames{deflate: deflate{used: true}}
			return inPieces(data, cut, func(rec *record, p []byte) {
				frames.feed(p, true, rec)
				left := int64(maxShown)
				showMessages(rec.messages, rec.lost, 0, [2]inflater{}, &left)
			})
		}
		if whole, pieces := parse(nil), parse(cut); whole != pieces {
			t.Errorf("as a whole\n%s in pieces\n%s", whole, pieces)
		}
	})
}

// FuzzEvents: the same of server-sent events.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: 1\r\n\r\ndata: 2\n\n:\r\rdata"), []byte{0})
	f.Add([]byte("\n\n\r\n\r\r\na\n\r"), []byte{3, 0})
	f.Fuzz(func(t *testing.T, data, cut []byte) {
		parse := func(cut []byte) string {
			events := new(events)
			return inPieces(data, cut, func(rec *record, p []byte) { events.feed(p, rec) })
		}
		if whole, pieces := parse(nil), parse(cut); whole != pieces {
			t.Errorf("as a whole\n%s in pieces\n%s", whole, pieces)
		}
	})
}
