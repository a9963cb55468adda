package inspect

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// talk is one side of a WebSocket whose messages refer to those before them.
type talk struct {
	rec    *record
	before int64 // what rec keeps without a message, in bytes
	wire   bytes.Buffer
	z      *flate.Writer
}

func newTalk(store *Store) *talk {
	rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
	rec.status, rec.switched = http.StatusSwitchingProtocols, &switched{websocket: true}
	store.add(rec)
	k := &talk{rec: rec, before: rec.size}
	k.z, _ = flate.NewWriter(&k.wire, 9)
	return k
}

// say has a message pass.
func (k *talk) say(text string) {
	k.wire.Reset()
	io.WriteString(k.z, text)
	k.z.Flush()
	data := bytes.Clone(bytes.TrimSuffix(k.wire.Bytes(), []byte(blockEnd)))
	k.rec.mu.Lock()
	defer k.rec.mu.Unlock()
	k.rec.grow(int64(cap(data)))
	k.rec.say(message{kind: "text", data: data, size: int64(len(data)), deflated: true})
}

// last is how the newest message is shown.
func (k *talk) last() string {
	all := k.rec.show(true, 0).Messages
	m := all[len(all)-1]
	return m.Text + m.Error
}

// Messages that refer to those that were given up are read for as long as those are no more
// than what is kept of a connection, from one look to the next.
func TestGivenUpMessages(t *testing.T) {
	store := &Store{MaxBody: 16 << 10}
	random := rand.New(rand.NewPCG(1, 2))
	text := func(i int) string { return fmt.Sprintf("message %d, %x", i, random.Uint64()) }
	watched, ignored := newTalk(store), newTalk(store)
	lost := 0
	for i := range 4000 {
		one := text(i)
		watched.say(one)
		ignored.say(one)
		if i%200 != 199 {
			continue
		}
		if got := watched.last(); got != one {
			t.Fatalf("message %d says %q, want %q", i, got, one)
		}
		if n := cap(ignored.rec.inflaters[0].past); n > 2*store.MaxBody {
			t.Fatalf("%d bytes of messages that were given up are kept", n)
		}
		if ignored.rec.inflaters[0].lost {
			lost++
		}
	}
	if got := ignored.last(); lost < 5 || lost > 18 || got != errNotWhole.Error() {
		t.Errorf("nobody looked, and the last message says %q; it was lost %d times of 20", got, lost)
	}
	if n := watched.rec.inflaters[0].weight(); n == 0 || n > int64(windowSize+2*store.MaxBody) {
		t.Errorf("%d bytes are kept of what was given up", n)
	}
	for _, k := range []*talk{watched, ignored} {
		want := k.before + k.rec.inflaters[0].weight()
		for _, m := range k.rec.messages {
			want += int64(cap(m.data)) + messageOverhead
		}
		if k.rec.size != want {
			t.Errorf("%d bytes are counted, want %d", k.rec.size, want)
		}
	}
	store.Clear()
	if n := store.size.Load(); n != 0 || watched.rec.inflaters[0].weight() != 0 {
		t.Errorf("%d bytes are kept of nothing", n)
	}
}

// Who looks goes through no more than a bound, once; who had too little left spoils nothing.
func TestGivenUpBombs(t *testing.T) {
	store := new(Store)
	k := newTalk(store)
	k.say(string(make([]byte, maxCaughtUp-1000)))
	for range maxMessages {
		k.say("hello")
	}
	for _, most := range []int64{1000, maxExported} {
		left := most
		shown := k.rec.showWithin(true, 0, &left).Messages
		if got := shown[0].Text + shown[0].Error; (most == maxExported) != (got == "hello") || left < 0 {
			t.Errorf("with %d bytes to spare it says %q", most, got)
		}
	}
	k.say(string(make([]byte, maxCaughtUp+1)))
	for range maxMessages {
		k.say("hello")
	}
	for i, want := range []int64{maxExported - maxCaughtUp, maxExported} {
		left := int64(maxExported)
		if k.rec.showWithin(true, 0, &left); left != want {
			t.Errorf("look %d leaves %d, want %d", i+1, left, want)
		}
	}
	if got := k.last(); got != errNotWhole.Error() {
		t.Errorf("behind too much it says %q", got)
	}
}

// A stream that ends within what was given up (RFC 7692, section 7.2.3.4) is not read on
// with the wrong window.
func TestGivenUpEnd(t *testing.T) {
	k := newTalk(new(Store))
	k.say("first")
	k.rec.inflaters[0].past = []byte(streamEnd + "\x00" + blockEnd)
	if got := k.last(); got != errNotWhole.Error() {
		t.Errorf("it says %q", got)
	}
}

// Of two who look at a time, one finds where it goes on. Messages that came meanwhile stay.
func TestGivenUpForTwo(t *testing.T) {
	i := inflater{past: []byte("first")}
	was := i
	i.past = append(i.past, "second"...)
	i.caughtUp(was, inflater{window: []byte("a"), through: 5})
	i.caughtUp(was, inflater{window: []byte("b"), through: 5})
	if string(i.window) != "a" || string(i.past) != "second" {
		t.Errorf("it goes on at %q with %q", i.window, i.past)
	}
}

// What no later message refers to is not kept, and what was not kept whole is not referred to.
func TestSkip(t *testing.T) {
	whole := message{data: []byte("data"), size: 4, deflated: true}
	plain, alone, part := whole, whole, whole
	plain.deflated, alone.alone, part.size = false, true, 5
	for name, c := range map[string]struct {
		messages []message
		want     string
		lost     bool
	}{
		"whole": {[]message{whole, whole}, "data" + blockEnd + "data" + blockEnd, false}, "plain": {[]message{plain}, "", false},
		"alone": {[]message{alone}, "", false}, "part": {[]message{whole, part, whole}, "", true},
	} {
		var i inflater
		for _, m := range c.messages {
			i.skip(m, 100)
		}
		if string(i.past) != c.want || i.lost != c.lost {
			t.Errorf("%s: %q is kept, lost: %v", name, i.past, i.lost)
		}
	}
}
