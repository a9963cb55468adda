package inspect

import (
	"bytes"
	"context"
	"net/http/httptest"
	"testing"
	"time"
)

// Who watches and does not read keeps nothing that was given up, nor does a record itself.
func TestGivenUp(t *testing.T) {
	store := new(Store)
	w, stop := store.watch()
	defer stop()
	var first *record
	for i := range maxRecords + 5 {
		rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
		rec.header = []Field{{Name: "A", Value: "b"}}
		if store.add(rec); i == 0 {
			first = rec
		}
	}
	store.changed(first)
	if n := len(w.dirty); n != maxRecords {
		t.Errorf("%d records are kept for who watches", n)
	}
	if first.header != nil || first.target != "" {
		t.Errorf("what was given up has its header %v and target %q", first.header, first.target)
	}
	if _, err := first.again(Edit{}); err == nil {
		t.Error("it is replayed")
	}
	last := store.all()[0]
	store.Clear()
	store.changed(last)
	if n := len(w.dirty); n != 0 {
		t.Errorf("%d records are kept for who watches after all were cleared", n)
	}
}

// late is an answer that must be told how long it may take.
type late struct {
	httptest.ResponseRecorder
	until time.Time
	open  bool // there was a write without a bound
}

func (l *late) SetWriteDeadline(t time.Time) error { l.until = t; return nil }

func (l *late) Write(p []byte) (int, error) {
	l.open = l.open || time.Until(l.until) <= 0
	return len(p), nil
}

func TestLiveDeadline(t *testing.T) {
	s := &Server{store: new(Store)}
	l := new(late)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.live(l, httptest.NewRequest("GET", "/api/live", nil).WithContext(ctx))
	s.tell(l, nil)
	if l.open || l.until.IsZero() {
		t.Error("who does not read keeps the stream for ever")
	}
}

// A search ends with who asked for it, and there is one at a time.
func TestSearchEnds(t *testing.T) {
	store := new(Store)
	rec := newRecord(httptest.NewRequest("GET", "/needle", nil), time.Now())
	rec.asked = body{kept: bytes.Clone([]byte("needle"))}
	store.add(rec)
	f := filter{text: "needle"}
	if n := len(f.choose(t.Context(), store.all())); n != 1 {
		t.Fatalf("%d are found", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan int)
	searching.Lock()
	go func() { found <- len(f.choose(ctx, store.all())) }()
	select {
	case <-found:
		t.Error("two search at once")
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	searching.Unlock()
	if n := <-found; n != 0 {
		t.Errorf("%d are found for nobody", n)
	}
}

func TestSecretNames(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "X-Original-Authorization": true, "X_Api_Key": true, "Ocp-Apim-Subscription-Key": true, "Db-Passwd": true, "X-Auth_token": true,
		"Set-Cookie2": true, "Client_Secret": true, "Sec-Websocket-Key": false, "Content-Type": false, "Keep-Alive": false,
	} {
		if isSecret(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
