package inspect

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// pieces is an answer of which each write is seen.
type pieces struct {
	httptest.ResponseRecorder
	largest, writes int
	wrote           func()
}

func (p *pieces) Write(b []byte) (int, error) {
	p.writes++
	p.largest = max(p.largest, len(b))
	if p.wrote != nil {
		p.wrote()
	}
	return p.ResponseRecorder.Write(b)
}

func (p *pieces) WriteString(s string) (int, error) { return p.Write([]byte(s)) }

// withBombs returns a store of n answers of a few KB that decode to 8 MiB.
func withBombs(n int) *Store {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(bytes.Repeat([]byte("a"), maxDecoded))
	z.Close()
	store := new(Store)
	for range n {
		rec := newRecord(httptest.NewRequest("GET", "http://a/", nil), time.Now())
		rec.target, rec.status, rec.state = "/", 200, done
		rec.answer = []Field{{Name: "Content-Encoding", Value: "gzip"}}
		rec.answered = body{kept: bomb.Bytes(), size: int64(bomb.Len())}
		store.add(rec)
	}
	return store
}

// An export has one entry in memory at a time, decodes no more than its bound, says what is
// still coded, so that an import has it right, and ends with who asked for it.
func TestExportOfBombs(t *testing.T) {
	const n = 4
	store := withBombs(n)
	s := listen(t, store)
	s.most = maxDecoded + 1
	out := &pieces{ResponseRecorder: *httptest.NewRecorder()}
	s.exportHAR(out, httptest.NewRequest("GET", "/api/har", nil))
	if size := out.Body.Len(); size > maxDecoded+n*64<<10 {
		t.Errorf("%d bytes are exported", size)
	}
	if out.largest > maxDecoded+64<<10 || out.writes < n {
		t.Errorf("%d writes, the largest of %d bytes", out.writes, out.largest)
	}
	document := out.Body.String()
	checkHAR(t, []byte(document))
	if got := strings.Count(document, `"_coded":true`); got != n-1 {
		t.Errorf("%d of %d bodies are as they were kept", got, n)
	}
	var imported Imported
	if status := call(t, s, "POST", "/api/har", document, &imported); status != 200 || len(imported.IDs) != n {
		t.Fatalf("%d, %d imported", status, len(imported.IDs))
	}
	if b := store.find(imported.IDs[n-1]).show(true, 0).Response.Body; len(b.Text) != maxDecoded || b.Coding != "gzip" {
		t.Errorf("the last one is imported as %d bytes, %s taken off", len(b.Text), b.Coding)
	}

	ctx, cancel := context.WithCancel(t.Context())
	out = &pieces{ResponseRecorder: *httptest.NewRecorder(), wrote: cancel}
	s.exportHAR(out, httptest.NewRequest("GET", "/api/har", nil).WithContext(ctx))
	if out.writes > 2 {
		t.Errorf("%d writes for nobody", out.writes)
	}
}

// Messages that are small on the wire do not make a large answer, and those that were shown
// before do not keep the newest from being shown.
func TestMessagesOfBombs(t *testing.T) {
	var wire bytes.Buffer
	z, _ := flate.NewWriter(&wire, 9)
	z.Write(bytes.Repeat([]byte("a"), 1<<20))
	z.Flush()
	data := bytes.TrimSuffix(wire.Bytes(), []byte("\x00\x00\xff\xff"))
	rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
	rec.switched = &switched{websocket: true}
	rec.status = http.StatusSwitchingProtocols
	const n = 100
	for range n {
		rec.messages = append(rec.messages, message{data: data, size: int64(len(data)), deflated: true, alone: true})
	}
	size, refused := 0, 0
	for _, m := range rec.show(true, 0).Messages {
		size += len(m.Text)
		if m.Error == errInflated.Error() {
			refused++
		}
	}
	if size != maxShown || refused != n-maxShown>>20 {
		t.Errorf("%d bytes are shown, %d messages are not", size, refused)
	}
	if last := rec.show(true, n-1).Messages; len(last) != 1 || len(last[0].Text) != 1<<20 {
		t.Errorf("the newest is %d messages", len(last))
	}
	for i := range rec.messages {
		rec.messages[i].alone = false
		rec.messages[i].data = data
	}
	left := int64(3 << 20)
	showMessages(rec.messages, 0, n, [2]inflater{}, &left)
	if left != 0 {
		t.Errorf("%d bytes of the bound are left, where messages that are not shown need more", left)
	}
}
