package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// fields encodes a header section that is no request's and no state's.
func fields(pairs ...string) []byte {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return []byte(b.String())
}

func answer2(f *http2.Framer, id uint32, end bool, pairs ...string) {
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields(pairs...), EndHeaders: true, EndStream: end})
}

type result2 struct {
	res  *http.Response
	body string
	err  error
}

// send asks p in the background.
func send(p *Lines, req *http.Request) <-chan result2 {
	done := make(chan result2, 1)
	go func() {
		res, err := p.RoundTrip(req)
		if err != nil {
			done <- result2{err: err}
			return
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		done <- result2{res, string(body), err}
	}()
	return done
}

// swallow reads frames until the connection ends.
func swallow(f *http2.Framer) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := frame.(*http2.PingFrame); ok && !ping.IsAck() {
			f.WritePing(true, ping.Data)
		}
	}
}

// A request that ends badly, or before its origin's stream has, makes room as any other
// does: none waits for what nobody tells.
func TestLinesRoomAfterErrors(t *testing.T) {
	for name, end := range map[string]func(f *http2.Framer, id uint32, cancel func()){
		"reset":     func(f *http2.Framer, id uint32, _ func()) { f.WriteRSTStream(id, http2.ErrCodeInternal) },
		"cancelled": func(_ *http2.Framer, _ uint32, cancel func()) { cancel() },
		"malformed": func(f *http2.Framer, id uint32, _ func()) { answer2(f, id, true, ":status", "x") },
		"early":     func(f *http2.Framer, id uint32, _ func()) { answer2(f, id, true, ":status", "204") },
	} {
		t.Run(name, func(t *testing.T) {
			line, f, _ := framed(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			p := NewLines(0)
			p.Add(line)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			up, w := io.Pipe()
			defer w.Close()
			first := asked(ctx, "POST", "/1", up)
			first.ContentLength = -1
			one := send(p, first)
			id := header(t, f)
			two := send(p, asked(t.Context(), "GET", "/2", nil))
			for waits := false; !waits; {
				p.mu.Lock()
				waits = len(p.waiting[needRequest]) == 1
				p.mu.Unlock()
			}
			end(f, id, cancel)
			go w.Close()
			<-one
			next := make(chan uint32)
			go func() {
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch frame := frame.(type) {
					case *http2.HeadersFrame:
						answer2(f, frame.StreamID, true, ":status", "200")
						next <- frame.StreamID
					case *http2.PingFrame:
						if !frame.IsAck() {
							f.WritePing(true, frame.Data)
						}
					}
				}
			}()
			<-next
			if r := <-two; r.err != nil {
				t.Errorf("got %v", r.err)
			}
			poll.Until(t, "no request", func() bool { return p.Active() == 0 && line.load.Load() == 0 })
		})
	}
}

// Room that an origin makes by its SETTINGS is used.
func TestLinesRoomBySettings(t *testing.T) {
	line, f, _ := framed(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	p := NewLines(0)
	p.Add(line)
	done := send(p, asked(t.Context(), "GET", "/", nil))
	poll.Until(t, "the request", func() bool { return p.Active() == 1 })
	f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	answer2(f, header(t, f), true, ":status", "200")
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}

// An origin that stops reading holds up nobody but who sends to it: not its other
// connections, nor what ends it.
func TestLineStopsReading(t *testing.T) {
	for _, end := range []string{"Close", "Shutdown", "Drop"} {
		line, f, _ := framed(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		f.WriteWindowUpdate(0, 1<<30)
		other, _ := lineTo(t, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "other") }))
		p := NewLines(0)
		p.Add(line)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		upload := asked(ctx, "POST", "/", zeros{})
		upload.ContentLength = -1
		one := send(p, upload)
		header(t, f)
		stuck := func() bool { // what x/net's State would wait for
			got := make(chan struct{})
			go func() { line.h2.State(); close(got) }()
			select {
			case <-got:
				return false
			case <-time.After(200 * time.Millisecond):
				return true
			}
		}
		poll.Until(t, "the writer to be stuck", stuck)
		p.Add(other)
		for range 5 {
			r := <-send(p, asked(t.Context(), "GET", "/", nil))
			if r.err != nil || r.body != "other" {
				t.Fatalf("%s: got %q, %v", end, r.body, r.err)
			}
		}
		now, stop := context.WithCancel(t.Context())
		stop()
		switch end {
		case "Close":
			line.Close()
		case "Shutdown":
			line.Shutdown(now)
		case "Drop":
			p.Drop(now)
		}
		if r := <-one; r.err == nil {
			t.Errorf("%s: the upload was answered", end)
		}
	}
}

// 101 is none of HTTP/2's answers; a visitor would take it for an upgrade.
func TestLine101(t *testing.T) {
	line, f, _ := framed(t)
	p := NewLines(0)
	p.Add(line)
	var early []int
	done := make(chan error, 1)
	go func() {
		_, err := p.RoundTripInterim(asked(t.Context(), "GET", "/", nil), func(code int, _ textproto.MIMEHeader) error {
			early = append(early, code)
			return nil
		})
		done <- err
	}()
	id := header(t, f)
	answer2(f, id, false, ":status", "101")
	answer2(f, id, true, ":status", "200")
	if err := <-done; !errors.Is(err, proxy.ErrBadResponse) || len(early) > 0 {
		t.Errorf("got %v, %v", early, err)
	}
}

// A visitor that takes none of its interim answers holds up no other's answer, and no
// more of them wait than can be named.
func TestLineInterimWaits(t *testing.T) {
	for _, flood := range []struct{ answers, bytes int }{{maxInterim + 1, 0}, {8, 10_000}} {
		line, f, _ := framed(t)
		p := NewLines(0)
		p.Add(line)
		begun, release := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			n := 0
			_, err := p.RoundTripInterim(asked(t.Context(), "GET", "/", nil), func(int, textproto.MIMEHeader) error {
				if n++; n == 1 {
					close(begun)
					<-release
				}
				return nil
			})
			done <- err
		}()
		id := header(t, f)
		answer2(f, id, false, ":status", "103")
		<-begun
		two := send(p, asked(t.Context(), "GET", "/2", nil))
		answer2(f, header(t, f), true, ":status", "200")
		if r := <-two; r.err != nil {
			t.Error(r.err)
		}
		for range flood.answers {
			answer2(f, id, false, ":status", "103", "x", strings.Repeat("x", flood.bytes))
		}
		go swallow(f)
		if err := <-done; !errors.Is(err, proxy.ErrBadResponse) {
			t.Errorf("%v: got %v", flood, err)
		}
		select {
		case <-line.Left():
			t.Errorf("%v: the line has ended", flood)
		default:
		}
		close(release)
	}
}

// Who sends something when the origin breaks off is not who broke off; and an origin
// that takes no header as large is none that was not asked.
func TestLineWhoseFault(t *testing.T) {
	line, f, _ := framed(t, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1000})
	p := NewLines(0)
	p.Add(line)
	up, w := io.Pipe() // its sender is silent
	defer w.Close()
	req := asked(t.Context(), "POST", "/", up)
	req.ContentLength = -1
	done := send(p, req)
	f.WriteRSTStream(header(t, f), http2.ErrCodeInternal)
	if r := <-done; errors.Is(r.err, proxy.ErrRequestBody) || !errors.Is(r.err, proxy.ErrBadResponse) {
		t.Errorf("got %v", r.err)
	}
	req = asked(t.Context(), "GET", "/", nil)
	req.Header.Set("X", strings.Repeat("x", 1000))
	if r := <-send(p, req); !errors.Is(r.err, proxy.ErrInvalidRequest) || errors.Is(r.err, ErrNotSent) {
		t.Errorf("a large header: got %v", r.err)
	}
	req = asked(t.Context(), "GET", "/a b", nil)
	if r := <-send(p, req); !errors.Is(r.err, proxy.ErrInvalidRequest) {
		t.Errorf("a space: got %v", r.err)
	}
	req = asked(t.Context(), "GET", "/", strings.NewReader("GET / HTTP/1.1\r\n\r\n"))
	req.Header.Set("Upgrade", "websocket")
	if r := <-send(p, req); !errors.Is(r.err, proxy.ErrInvalidRequest) {
		t.Errorf("an upgrade with a body: got %v", r.err)
	}
	go swallow(f)
	poll.Until(t, "no request", func() bool { return p.Active() == 0 && line.load.Load() == 0 && line.h2.State().StreamsReserved == 0 })
}

// An origin is told that of one answer half a megabyte may wait to be read, and no more:
// one that a visitor does not read would fill the memory.
func TestLineWindow(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	go NewLine(t.Context(), here, true)
	there.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(there, make([]byte, len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	frame, err := http2.NewFramer(nil, there).ReadFrame()
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatal(frame, err)
	}
	if size, ok := settings.Value(http2.SettingInitialWindowSize); !ok || size > 512<<10 {
		t.Errorf("the window is %d, %v", size, ok)
	}
}

// What the origin says in the debug data of GOAWAY decides nothing: a POST whose answer
// was lost is not sent again (R5).
func TestLineDebugData(t *testing.T) {
	line, f, there := framed(t)
	p := NewLines(0)
	p.Add(line)
	done := send(p, asked(t.Context(), "POST", "/", nil))
	id := header(t, f)
	f.WriteGoAway(id, http2.ErrCodeNo, []byte(errGoAway2+" extended connect not supported"))
	there.Close()
	if r := <-done; r.err == nil || errors.Is(r.err, ErrNotSent) || errors.Is(r.err, ErrUnanswered) {
		t.Errorf("got %v", r.err)
	}
}

// An upload that waits for a window ends with its answer, also where that is empty: or an
// origin could have the server hold as many as it likes.
func TestLineUploadEnds(t *testing.T) {
	line, f, _ := framed(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p := NewLines(0)
	p.Add(line)
	req := asked(t.Context(), "POST", "/", zeros{})
	req.ContentLength = -1
	done := send(p, req)
	answer2(f, header(t, f), true, ":status", "200", "content-length", "0")
	if r := <-done; r.err != nil {
		t.Fatal(r.err)
	}
	go swallow(f)
	poll.Until(t, "the stream's end", func() bool { return line.h2.State().StreamsActive == 0 })
}

// A line is left, and closed when nothing is under way, when its origin says GOAWAY, or
// resets a request so that x/net sends no other.
func TestLineGoes(t *testing.T) {
	for name, c := range map[string]struct {
		busy bool
		say  func(f *http2.Framer, id uint32)
	}{
		"GOAWAY":                {false, func(f *http2.Framer, _ uint32) { f.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		"GOAWAY with a request": {true, func(f *http2.Framer, id uint32) { f.WriteGoAway(id, http2.ErrCodeNo, nil) }},
		"a reset":               {true, func(f *http2.Framer, id uint32) { f.WriteRSTStream(id, http2.ErrCodeProtocol) }},
	} {
		t.Run(name, func(t *testing.T) {
			line, f, _ := framed(t)
			p := NewLines(0)
			p.Add(line)
			var id uint32
			var one, two <-chan result2
			if c.busy {
				one = send(p, asked(t.Context(), "POST", "/", nil))
				id = header(t, f)
				two = send(p, asked(t.Context(), "POST", "/", nil))
				header(t, f)
			}
			c.say(f, id)
			<-line.Left()
			if _, err := p.RoundTrip(asked(t.Context(), "GET", "/", nil)); !errors.Is(err, ErrNotSent) {
				t.Errorf("got %v", err)
			}
			switch {
			case name == "a reset":
				answer2(f, id+2, true, ":status", "200") // an answer to the other might still be taken for one
			case c.busy:
				answer2(f, id, true, ":status", "200")
			}
			go swallow(f)
			<-line.Done()
			if c.busy {
				r1, r2 := <-one, <-two
				switch name {
				case "a reset":
					if r1.err == nil || r2.err != nil {
						t.Errorf("got %v, and of the other %v", r1.err, r2.err)
					}
				default:
					if r1.err != nil || !errors.Is(r2.err, ErrNotSent) {
						t.Errorf("got %v, and of the one beyond %v", r1.err, r2.err)
					}
				}
			}
		})
	}
}

// What the origin lies about its answer's length never passes for a whole one, unless
// it is one.
func TestLineLies(t *testing.T) {
	for _, c := range []struct {
		length, body string
		whole        bool
	}{{"5", "hello", true}, {"6", "hello", false}, {"4", "hello", false}, {"0", "hello", false}, {"1", "", false}, {"x", "hello", true}} {
		line, f, _ := framed(t)
		p := NewLines(0)
		p.Add(line)
		done := send(p, asked(t.Context(), "GET", "/", nil))
		id := header(t, f)
		answer2(f, id, c.body == "", ":status", "200", "content-length", c.length)
		if c.body != "" {
			f.WriteData(id, true, []byte(c.body))
		}
		if r := <-done; (r.err == nil) != c.whole || c.whole && r.body != c.body {
			t.Errorf("%v: got %q, %v", c, r.body, r.err)
		}
	}
}

// What breaks the protocol ends the connection, and its requests with an error.
func TestLineBreaksProtocol(t *testing.T) {
	for name, attack := range map[string]func(f *http2.Framer, id uint32, there io.Writer){
		"PUSH_PROMISE": func(f *http2.Framer, id uint32, _ io.Writer) {
			f.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: fields(":method", "GET"), EndHeaders: true})
		},
		"unasked":   func(f *http2.Framer, _ uint32, _ io.Writer) { f.WriteData(99, false, []byte("x")) },
		"an update": func(f *http2.Framer, _ uint32, _ io.Writer) { f.WriteWindowUpdate(0, 1<<31-1) },
		"DATA beyond the window": func(f *http2.Framer, id uint32, _ io.Writer) {
			answer2(f, id, false, ":status", "200")
			for range lineWindow/16384 + 1 {
				f.WriteData(id, false, make([]byte, 16384))
			}
		},
		"SETTINGS of 1 byte": func(_ *http2.Framer, _ uint32, w io.Writer) { w.Write([]byte{0, 0, 1, 4, 0, 0, 0, 0, 0, 0}) },
		"a large frame":      func(_ *http2.Framer, _ uint32, w io.Writer) { w.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}) },
		"CONTINUATION": func(f *http2.Framer, id uint32, _ io.Writer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields(":status", "200")})
			for range 10_000 {
				if f.WriteContinuation(id, false, fields("x", strings.Repeat("x", 1000))) != nil {
					return
				}
			}
		},
		"header after the end": func(f *http2.Framer, id uint32, _ io.Writer) {
			answer2(f, id, false, ":status", "200")
			answer2(f, id, false, "x", "y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			line, f, there := framed(t)
			p := NewLines(0)
			p.Add(line)
			up, w := io.Pipe()
			defer w.Close()
			done := make(chan error, 1)
			go func() {
				req := asked(t.Context(), "POST", "/", up)
				req.ContentLength = -1
				res, err := p.RoundTrip(req)
				if err == nil {
					<-line.Done()
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				done <- err
			}()
			id := header(t, f)
			go swallow(f)
			attack(f, id, there)
			<-line.Done()
			if err := <-done; err == nil {
				t.Error("got a whole answer")
			}
			poll.Until(t, "no request", func() bool { return p.Active() == 0 })
		})
	}
}

// A header section of more than 1 MiB is refused, and one that goes on costs its origin
// the connection: nothing of it is held.
func TestLineHugeHeader(t *testing.T) {
	const field = 4000
	for _, c := range []struct {
		size       int
		whole, end bool
	}{{800 << 10, true, false}, {1200 << 10, false, false}, {10 << 20, false, true}} {
		line, f, _ := framed(t)
		p := NewLines(0)
		p.Add(line)
		done := send(p, asked(t.Context(), "GET", "/", nil))
		id := header(t, f)
		go swallow(f)
		block := fields("x", strings.Repeat("x", field))
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields(":status", "200"), EndStream: true})
		for left := c.size; left > 0; left -= field {
			if f.WriteContinuation(id, left <= field, block) != nil {
				break
			}
		}
		if r := <-done; (r.err == nil) != c.whole {
			t.Errorf("of %d bytes: %v", c.size, r.err)
		}
		if c.end {
			<-line.Done()
		}
	}
}

// Who asks again and again whether lines are alive costs one question for each.
func TestLinesAskOnce(t *testing.T) {
	line, f, _ := framed(t)
	p := NewLines(0)
	p.Add(line)
	for range 1000 {
		p.Check(nil)
	}
	pings := make(chan int, 1)
	go func() {
		n := 0
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				pings <- n
				return
			}
			if _, ok := frame.(*http2.PingFrame); ok {
				n++
			}
		}
	}()
	<-line.Done() // it has not answered
	if n := <-pings; n != 1 {
		t.Errorf("%d questions", n)
	}
	if p.Alive(t.Context()) {
		t.Error("no line is alive")
	}
}
