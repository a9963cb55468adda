package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// testApp is an app with its addresses for HTTP and gRPC.
func testApp(t *testing.T) (web, calls string, ran func() map[string]*Ran) {
	t.Helper()
	journal, ran := MemoryJournal()
	app := &App{Journal: journal}
	var l [2]net.Listener
	for i := range l {
		var err error
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- app.Run(ctx, l[0], l[1]) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l[0].Addr().String(), l[1].Addr().String(), ran
}

func testVisitor(t *testing.T, addr string) *Visitor {
	v := &Visitor{Addr: addr, Host: "app.localhost", Limit: Patience}
	t.Cleanup(v.Close)
	return v
}

// asks are one of each kind.
func asks() []Ask {
	return []Ask{
		{ID: "length-0", Kind: Length},
		{ID: "length-1", Kind: Length, Size: 300_000, Pieces: 3},
		{ID: "chunked-0", Kind: Chunked},
		{ID: "chunked-1", Kind: Chunked, Size: 300_000, Pieces: 3},
		{ID: "close-1", Kind: Close, Size: 300_000, Pieces: 3},
		{ID: "http10-1", Kind: HTTP10, Size: 300_000},
		{ID: "sse-1", Kind: SSE, Size: 40, Pieces: 4, Pause: time.Millisecond},
		{ID: "post-0", Kind: Post},
		{ID: "post-1", Kind: Post, Size: 300_000, Pieces: 3, Pause: time.Millisecond},
		{ID: "post-2", Kind: Post, Size: 300_000, Unsized: true},
		{ID: "websocket-1", Kind: WebSocket, Size: 1000, Pieces: 4},
		{ID: "unary-1", Kind: Unary, Size: 1000},
		{ID: "stream-1", Kind: Stream, Size: 1000, Pieces: 4},
	}
}

func TestEachKindIsFull(t *testing.T) {
	web, calls, ran := testApp(t)
	for name, v := range map[string]*Visitor{"kept": {}, "fresh": {Fresh: true}, "http10": {Version10: true}} {
		t.Cleanup(v.Close)
		var outcomes []Result
		for _, a := range asks() {
			a.ID = name + "." + a.ID
			v.Addr = web
			if a.Kind == Unary || a.Kind == Stream {
				v.Addr = calls
			}
			if v.Version10 && a.Kind == Post {
				continue
			}
			v.Host = "app.localhost"
			if o := v.Do(t.Context(), a); o.Verdict != Full {
				t.Errorf("%s: %s", name, &o)
			} else {
				outcomes = append(outcomes, o)
			}
		}
		mine := ran()
		for id := range mine {
			if !strings.HasPrefix(id, name+".") {
				delete(mine, id)
			}
		}
		if wrong := Reconcile(outcomes, mine); len(wrong) > 0 {
			t.Errorf("%s: %v", name, &wrong[0])
		}
	}
}

// Where the app breaks off, even a body that ends with the connection does not look complete.
func TestAbortIsVisible(t *testing.T) {
	web, _, _ := testApp(t)
	v := testVisitor(t, web)
	for _, a := range asks() {
		switch a.Kind {
		case Unary, Stream:
			continue
		case SSE, WebSocket:
			a.Abort = 2
		case Post:
			a.Abort = 100
		default:
			a.Abort = max(a.Size/2, 1)
		}
		o := v.Do(t.Context(), a)
		if want := Failed; o.Verdict != want && a.Size > 0 {
			t.Errorf("%s, want %s", &o, want)
		}
	}
}

// liar is a proxy in front of the app that does one thing wrong.
func liar(t *testing.T, web string, change func(*http.Response) error, first before) *Visitor {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: web}) },
		ModifyResponse: change,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first == nil || first(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return testVisitor(t, server.Listener.Addr().String())
}

// short ends the body in order after n bytes, and corrects its length.
func short(n int64) func(*http.Response) error {
	return func(res *http.Response) error {
		if res.StatusCode != http.StatusOK {
			return nil
		}
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, n), res.Body}
		if res.ContentLength > n {
			res.ContentLength = n
			res.Header.Set("Content-Length", fmt.Sprint(n))
		}
		return nil
	}
}

// replaces has body given in place of the one that the app sent.
func replaces(body func(sent []byte) ([]byte, error)) func(*http.Response) error {
	return func(res *http.Response) error {
		b, err := io.ReadAll(res.Body)
		if err == nil {
			b, err = body(b)
		}
		res.Body = io.NopCloser(bytes.NewReader(b))
		return err
	}
}

// mixesUp answers the first request with an error, and all others with what was meant for it.
func mixesUp() func(*http.Response) error {
	var mu sync.Mutex
	var kept []byte
	return replaces(func(sent []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept == nil {
			kept = sent
			return sent, errors.New("keep it")
		}
		return kept, nil
	})
}

// before is what a liar does with a request, and whether it then goes to the app.
type before func(http.ResponseWriter, *http.Request) bool

// repeats sends a request to the app once more.
func repeats(web string) before {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		again, err := http.NewRequest(r.Method, "http://"+web+r.URL.RequestURI(), Body(r.URL.Query().Get("id"), 500))
		if err != nil {
			return true
		}
		again.Header = r.Header.Clone()
		if res, err := http.DefaultTransport.RoundTrip(again); err == nil {
			res.Body.Close()
		}
		return true
	}
}

// asksForAnother has the app answer b to who asked for a.
func asksForAnother(string) before {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "id=a", "id=b", 1)
		return true
	}
}

func hangs(string) before {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body) // or the server does not notice that the visitor left
		<-r.Context().Done()
		return false
	}
}

// answersItself answers z in place of the app.
func answersItself(string) before {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set(HeaderID, "z")
		announce(w.Header(), 10, Sum("z", 10))
		io.Copy(w, Body("z", 10))
		return false
	}
}

func TestLiarsAreConvicted(t *testing.T) {
	for name, test := range map[string]struct {
		asks   []Ask
		change func(*http.Response) error
		before func(web string) before
		want   Verdict
	}{
		"short": {asks: []Ask{{Kind: Length, Size: 5000}, {Kind: Chunked, Size: 5000}, {Kind: Close, Size: 5000}, {Kind: HTTP10, Size: 5000},
			{Kind: SSE, Size: 100, Pieces: 5}, {Kind: Post, Size: 5000}}, change: short(150), want: Truncated},
		"empty": {asks: []Ask{{Kind: Length, Size: 5000}, {Kind: SSE, Pieces: 1}, {Kind: Post}}, change: short(0), want: Truncated},
		"a byte is another": {asks: []Ask{{Kind: Length, Size: 5000}, {Kind: Chunked, Size: 5000}}, change: replaces(func(sent []byte) ([]byte, error) {
			sent[4000] ^= 1
			return sent, nil
		}), want: Truncated},
		"the trailer is lost": {asks: []Ask{{Kind: Chunked, Size: 5000}}, change: func(res *http.Response) error {
			res.Trailer = nil
			err := replaces(func(sent []byte) ([]byte, error) { return sent, nil })(res)
			res.Trailer = nil
			return err
		}, want: Truncated},
		"twice":            {asks: []Ask{{Kind: Post, Size: 500}, {Kind: Post, Unsized: true}}, before: repeats, want: Duplicated},
		"another's answer": {asks: []Ask{{ID: "a", Kind: Length, Size: 500}}, before: asksForAnother, want: CrossTalk},
		"another's body":   {asks: []Ask{{ID: "a", Kind: Length, Size: 500}, {ID: "b", Kind: Length, Size: 500}}, change: mixesUp(), want: CrossTalk},
		"hangs":            {asks: []Ask{{Kind: Length, Size: 500}, {Kind: Post, Size: 500}, {Kind: WebSocket, Pieces: 1}}, before: hangs, want: Hung},
		"answers itself":   {asks: []Ask{{ID: "z", Kind: Length, Size: 10}}, before: answersItself, want: Lost},
	} {
		t.Run(name, func(t *testing.T) {
			web, _, ran := testApp(t)
			var first before
			if test.before != nil {
				first = test.before(web)
			}
			v := liar(t, web, test.change, first)
			if test.want == Hung {
				v.Limit = 100 * time.Millisecond
			}
			var outcomes []Result
			for i, a := range test.asks {
				if a.ID == "" {
					a.ID = fmt.Sprintf("id-%d", i)
				}
				outcomes = append(outcomes, v.Do(t.Context(), a))
			}
			Reconcile(outcomes, ran())
			if name == "another's body" {
				outcomes = outcomes[1:]
			}
			for _, o := range outcomes {
				if o.Verdict != test.want {
					t.Errorf("%s, want %s", &o, test.want)
				}
			}
		})
	}
}

// An upload that is cut and looks whole to the app is the app's deception, whatever the visitor saw.
func TestShortUploadIsConvicted(t *testing.T) {
	web, _, ran := testApp(t)
	a := Ask{ID: "short", Kind: Post, Size: 5000}
	r, err := http.NewRequest(http.MethodPost, "http://"+web+a.Path(), io.LimitReader(Body(a.ID, a.Size), 4000))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(HeaderSize, "5000")
	r.Header.Set(HeaderSum, Sum(a.ID, a.Size))
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	outcomes := []Result{{Ask: a, Verdict: Failed}}
	if Reconcile(outcomes, ran()); outcomes[0].Verdict != Truncated {
		t.Errorf("got %s", &outcomes[0])
	}
}

// A request body that breaks is an error for the app.
func TestBrokenUploadIsNoted(t *testing.T) {
	web, _, ran := testApp(t)
	c, err := net.Dial("tcp", web)
	if err != nil {
		t.Fatal(err)
	}
	a := Ask{ID: "broken", Kind: Post, Size: 5000}
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc", a.Path())
	c.Close()
	poll.Until(t, "it is noted", func() bool {
		noted := ran()[a.ID]
		return noted != nil && noted.Bodies[bodyBroken] == 1
	})
}

// Ids that nobody asked for are reported, and a GET may run twice.
func TestReconcile(t *testing.T) {
	ran := parseJournal(strings.NewReader("a began GET\na began GET\nb began POST\nhalf beg"))
	wrong := Reconcile([]Result{{Ask: Ask{ID: "a", Kind: Length}, Verdict: Full}}, ran)
	if len(wrong) != 1 || wrong[0].Ask.ID != "b" {
		t.Errorf("got %v", wrong)
	}
}

// A WebSocket that is closed in order before all messages came back is a truncation.
func TestEarlyCloseIsConvicted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	web, _, _ := testApp(t)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		d, err := net.Dial("tcp", web)
		if err != nil {
			return
		}
		defer d.Close()
		go io.Copy(d, c)
		br := bufio.NewReader(d)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, line)
			if line == "\r\n" {
				break
			}
		}
		c.Write([]byte{0x88, 2, 0x03, 0xe8}) // close, 1000
		io.Copy(io.Discard, br)
	}()
	v := testVisitor(t, l.Addr().String())
	if o := v.Do(t.Context(), Ask{ID: "ws", Kind: WebSocket, Size: 10, Pieces: 3}); o.Verdict != Truncated {
		t.Errorf("got %s", &o)
	}
}
