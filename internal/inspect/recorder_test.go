package inspect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/coder/websocket"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

// tunnel records what app answers, on connections as the tunnel's client serves them,
// and returns the address that visitors call.
func tunnel(t *testing.T, store *Store, app http.HandlerFunc) (addr string, r *Recorder) {
	t.Helper()
	local := httptest.NewServer(app)
	t.Cleanup(local.Close)
	target, err := forward.ParseTarget(local.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := forward.New(target, forward.Options{Watch: func(next http.Handler) http.Handler {
		r = store.Record("", next)
		return r
	}})
	t.Cleanup(f.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.ServeConn(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		local.CloseClientConnections()
		serving.Wait()
	})
	return l.Addr().String(), r
}

// ask sends a request by hand and returns the answer with its body.
func ask(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, request)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// one waits until the store has a request, of which ok holds, and returns it.
func one(t *testing.T, s *Store, id int64, ok func(Request) bool) Request {
	t.Helper()
	var last Request
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if rec := s.find(id); rec != nil {
			if last = rec.show(true, 0); ok(last) {
				return last
			}
		}
	}
	t.Fatalf("request %d is %+v", id, last)
	return last
}

func ended(r Request) bool { return r.State != string(open) }

func TestRecorded(t *testing.T) {
	store := new(Store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Add("Set-Cookie", "id=7; HttpOnly")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "got %s", body)
		w.Header().Set("X-Sum", "9")
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "POST /a%2Fb?x=1&y=%20z HTTP/1.1\r\nHost: localhost:3000\r\nX-Forwarded-Host: demo.example.com\r\nX-Forwarded-Proto: https\r\n"+
		"X-Forwarded-For: 192.0.2.1, 192.0.2.9\r\nCookie: a=1; b=2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	answer := bufio.NewReader(c)
	for _, want := range []int{103, 201} {
		res, err := http.ReadResponse(answer, nil)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%v, %v, want %d", res, err, want)
		}
		io.Copy(io.Discard, res.Body)
	}
	r := one(t, store, 1, ended)
	got := fmt.Sprint(r.Method, " ", r.URL, " ", r.Path, " ", r.Status, " ", r.State, " ", r.Visitor, " ", r.Query, r.Request.Cookies, r.Response.Cookies,
		r.Response.Trailers, r.Interim, r.Request.Body.Text, "|", r.Response.Body.Text, " ", r.RequestBytes, " ", r.ResponseBytes)
	want := "POST https://demo.example.com/a%2Fb?x=1&y=%20z /a%2Fb?x=1&y=%20z 201 done 192.0.2.9 [{x 1 false} {y  z false}] [{a 1 false} {b 2 false}] [{id 7 false}] " +
		"[{X-Sum 9 false}] [{103 [{Link </a.css> false}]}]hello|got hello 5 9"
	if got != want {
		t.Errorf("recorded\n%s, want\n%s", got, want)
	}
	if r.Timing.App <= 0 || r.Timing.Total < r.Timing.Wait || r.Timing.Total < r.Timing.Tunnel {
		t.Errorf("timing %+v", r.Timing)
	}
}

// What is kept stays within its bounds, and what passes is whole all the same.
func TestBounds(t *testing.T) {
	const large = 300 << 10
	store := &Store{MaxBody: 64 << 10, MaxTotal: 512 << 10}
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Write(bytes.Repeat([]byte("a"), int(n)))
	})
	for range 20 {
		_, body := ask(t, addr, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", large)+strings.Repeat("b", large))
		if len(body) != large {
			t.Fatalf("%d bytes came", len(body))
		}
		if kept := store.size.Load(); kept > store.MaxTotal {
			t.Fatalf("%d bytes are kept", kept)
		}
	}
	r := one(t, store, 20, ended)
	if b := r.Request.Body; len(b.Text) != store.MaxBody || b.Size != large || !b.Cut {
		t.Errorf("%d bytes of the request are kept, of %d", len(b.Text), b.Size)
	}
	if b := r.Response.Body; len(b.Text) != store.MaxBody || b.Size != large || !b.Cut {
		t.Errorf("%d bytes of the answer are kept, of %d", len(b.Text), b.Size)
	}
	if oldest := store.oldest(); oldest < 15 || oldest > 19 {
		t.Errorf("the oldest that is kept is %d", oldest)
	}
	store.Clear()
	if n := store.size.Load(); n != 0 {
		t.Errorf("%d bytes are kept of nothing", n)
	}
}

func TestMostRecords(t *testing.T) {
	store := new(Store)
	for range maxRecords + 5 {
		store.add(newRecord(httptest.NewRequest("GET", "/", nil), time.Now()))
	}
	if n := len(store.all()); n != maxRecords || store.oldest() != 6 {
		t.Errorf("%d are kept, the oldest is %d", n, store.oldest())
	}
}

// An answer that is cut off stays that: the visitor sees it, and so does who looks on.
func TestCutStaysCut(t *testing.T) {
	store := new(Store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("begun"))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%q looks complete", body)
	}
	if r := one(t, store, 1, ended); r.State != string(cut) || r.Response.Body.Text != "begun" {
		t.Errorf("recorded %+v", r)
	}
}

// A visitor that goes away ends the app's request, and is recorded as cut off.
func TestVisitorGone(t *testing.T) {
	store := new(Store)
	left := make(chan bool)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("x"))
		http.NewResponseController(w).Flush()
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
				break
			}
		}
		close(left)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.Read(make([]byte, 1))
	c.Close()
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("the app's request goes on")
	}
	if r := one(t, store, 1, ended); r.State != string(cut) {
		t.Errorf("recorded as %s", r.State)
	}
}

func TestWebSocket(t *testing.T) {
	for name, mode := range map[string]websocket.CompressionMode{
		"plain": websocket.CompressionDisabled, "takeover": websocket.CompressionContextTakeover, "no takeover": websocket.CompressionNoContextTakeover,
	} {
		t.Run(name, func(t *testing.T) { testWebSocket(t, mode) })
	}
}

func testWebSocket(t *testing.T, mode websocket.CompressionMode) {
	const rounds = maxMessages // in both directions: half of them are given up
	store := new(Store)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			c.Write(r.Context(), kind, append([]byte("re: "), data...))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/chat", &websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	text := func(i int) string { return fmt.Sprintf("hello hello hello hello, this is message %d", i) }
	for i := range rounds {
		if err := c.Write(ctx, websocket.MessageText, []byte(text(i))); err != nil {
			t.Fatal(err)
		}
		if _, data, err := c.Read(ctx); err != nil || string(data) != "re: "+text(i) {
			t.Fatalf("got %q, %v", data, err)
		}
	}
	if r := store.find(1).show(true, 0); r.State != string(open) || r.Status != 101 {
		t.Errorf("it is %s with status %d while messages pass", r.State, r.Status)
	}
	c.Write(ctx, websocket.MessageBinary, []byte{0, 1, 2})
	c.Read(ctx)
	c.Close(websocket.StatusNormalClosure, "")
	r := one(t, store, 1, ended)
	if r.Kind != "websocket" || len(r.Messages) != maxMessages || r.MessagesDropped+len(r.Messages) < 2*rounds+2 {
		t.Fatalf("%s, %d messages, %d dropped", r.Kind, len(r.Messages), r.MessagesDropped)
	}
	for _, m := range r.Messages {
		i := (m.Number - 1) / 2
		want := text(i)
		if m.From == "app" {
			want = "re: " + want
		}
		if i < rounds && (m.Text != want || m.Kind != "text" || (m.From == "app") != (m.Number%2 == 0)) {
			t.Fatalf("message %+v, want %q", m, want)
		}
	}
}

// A message that does not end counts while it grows (a visitor may have many of them), and
// is given up with its request.
func TestMessageUnderWay(t *testing.T) {
	for _, feed := range map[string]func(*record){
		"frame": func(rec *record) {
			rec.switched = &switched{rec: rec}
			rec.switched.asked.feed(append([]byte{0x01, 127, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 1<<16)...), true, rec)
		},
		"event": func(rec *record) {
			rec.events = new(events)
			rec.events.feed(bytes.Repeat([]byte("a"), 1<<16), rec)
		},
	} {
		store := new(Store)
		rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
		store.add(rec)
		before := store.size.Load()
		feed(rec)
		if grown := store.size.Load() - before; grown < 1<<16 {
			t.Errorf("64 KiB that are under way count as %d", grown)
		}
		store.Clear()
		feed(rec)
		if n := store.size.Load(); n != 0 {
			t.Errorf("%d bytes are kept of what was given up", n)
		}
	}
}

// Frames in the pieces that a network makes of them, with fragments and a ping between.
func TestFrames(t *testing.T) {
	var wire []byte
	frame := func(head byte, payload string) {
		key := []byte{1, 2, 3, 4}
		wire = append(wire, head, 0x80|byte(len(payload)))
		wire = append(wire, key...)
		for i := range len(payload) {
			wire = append(wire, payload[i]^key[i%4])
		}
	}
	frame(0x01, "one ") // a text, to be continued
	frame(0x89, "ping")
	frame(0x80, "two")
	frame(0x82, "")
	wire = append(wire, 0x82, 126, 1, 0) // 256 bytes, not masked
	wire = append(wire, bytes.Repeat([]byte{7}, 256)...)
	wire = append(wire, 0x81, 127, 0, 0, 0, 0, 0, 0, 0, 2, 'o', 'k')
	for size := 1; size < 20; size++ {
		rec := newRecord(httptest.NewRequest("GET", "/", nil), time.Now())
		rec.store = new(Store)
		var f frames
		for rest := wire; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			f.feed(rest[:min(size, len(rest))], true, rec)
		}
		got := ""
		for _, m := range rec.messages {
			got += fmt.Sprintf("%s %d %.8q, ", m.kind, m.size, m.data)
		}
		if want := `ping 4 "ping", text 7 "one two", binary 0 "", binary 256 "\a\a\a\a\a\a\a\a", text 2 "ok", `; got != want {
			t.Fatalf("in pieces of %d: %s, want %s", size, got, want)
		}
	}
}

// A message that was not kept whole makes the later ones of its side unreadable, and
// nothing else.
func TestInflateLost(t *testing.T) {
	var wire bytes.Buffer
	w, _ := flate.NewWriter(&wire, 9)
	var messages []message
	for _, text := range []string{"first first", "second", "third"} {
		wire.Reset()
		io.WriteString(w, text)
		w.Flush()
		data := bytes.Clone(bytes.TrimSuffix(wire.Bytes(), []byte("\x00\x00\xff\xff")))
		messages = append(messages, message{data: data, size: int64(len(data)), deflated: true})
	}
	read := func() (all string) {
		var i inflater
		for _, m := range messages {
			left := int64(maxInflated)
			text, err := i.inflate(m, &left)
			all += fmt.Sprintf("%s %v,", text, err != nil)
		}
		return all
	}
	if got := read(); got != "first first false,second false,third false," {
		t.Errorf("read %s", got)
	}
	messages[1].size++
	if got := read(); got != "first first false, true, true," {
		t.Errorf("read %s", got)
	}
	messages[2].alone = true
	messages[2].data, messages[2].size = messages[0].data, messages[0].size
	if got := read(); got != "first first false, true,first first false," {
		t.Errorf("read %s", got)
	}
}

// Events are seen while the stream goes on, wherever they are cut.
func TestEvents(t *testing.T) {
	store := new(Store)
	next := make(chan bool)
	addr, _ := tunnel(t, store, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, part := range []string{"event: tick\nda", "ta: 1\n\n", "data: 2\r\n\r", "\n: a comment\r\rdata: 3"} {
			io.WriteString(w, part)
			http.NewResponseController(w).Flush()
			<-next
		}
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	next <- true
	r := one(t, store, 1, func(r Request) bool { return len(r.Messages) == 1 })
	if r.State != string(open) || r.Kind != "events" {
		t.Errorf("it is %s and %s while events pass", r.Kind, r.State)
	}
	for range 3 {
		next <- true
	}
	r = one(t, store, 1, ended)
	got := ""
	for _, m := range r.Messages {
		got += fmt.Sprintf("%d %s %s %q, ", m.Number, m.From, m.Kind, m.Text)
	}
	if want := `1 app event "event: tick\ndata: 1", 2 app event "data: 2", 3 app event ": a comment", `; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if b := r.Response.Body.Text; !strings.HasSuffix(b, "data: 3") {
		t.Errorf("body %q", b)
	}
}

// A connection that is taken over has all that a splice asks it for.
func TestTapIsTheConnection(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	tap := any(&proxy.Tap{Conn: a})
	if _, ok := tap.(interface{ OnAbort(func()) func() bool }); !ok {
		t.Error("no OnAbort")
	}
	if _, ok := tap.(interface{ CloseWrite() error }); !ok {
		t.Error("no CloseWrite")
	}
	tap.(interface{ Reset() error }).Reset()
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("Reset does not end it")
	}
}

func TestDecode(t *testing.T) {
	const text = "what is to be read"
	for coding, make := range map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"Br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"zstd":    func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
	} {
		var b bytes.Buffer
		w := make(&b)
		io.WriteString(w, text)
		w.Close()
		if got, err := decode(b.Bytes(), "identity, "+coding); string(got) != text || err != nil {
			t.Errorf("%s: %q, %v", coding, got, err)
		}
		// Of a body that was not kept whole, what can be read is.
		if _, err := decode(b.Bytes()[:b.Len()-1], coding); err == nil {
			t.Errorf("%s: the end is not missed", coding)
		}
	}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	w.Write(make([]byte, 2*maxDecoded))
	w.Close()
	if got, err := decode(bomb.Bytes(), "gzip"); len(got) != maxDecoded || err != errTooLarge {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := decode(nil, "x-unknown"); err == nil {
		t.Error("an unknown coding is taken off")
	}
}
