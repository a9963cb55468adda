package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// FuzzLine has an origin of HTTP/2 answer a request with any bytes and go away. None may
// end the process or hold the request up, and an answer is whole only where it was sent
// as such.
func FuzzLine(f *testing.F) {
	seed := func(send func(f *http2.Framer)) {
		var b bytes.Buffer
		send(http2.NewFramer(&b, nil))
		f.Add(b.Bytes())
	}
	seed(func(f *http2.Framer) {
		answer2(f, 1, false, ":status", "103", "link", "</a>")
		answer2(f, 1, false, ":status", "200", "content-length", "5", "trailer", "x-sum, tunnel-error")
		f.WriteData(1, false, []byte("hello"))
		answer2(f, 1, true, "x-sum", "1", "tunnel-error", "x")
	})
	seed(func(f *http2.Framer) { answer2(f, 1, true, ":status", "204") })
	seed(func(f *http2.Framer) { answer2(f, 1, true, ":status", "101") })
	seed(func(f *http2.Framer) {
		answer2(f, 1, false, ":status", "200", "content-length", "6")
		f.WriteDataPadded(1, true, []byte("hello"), make([]byte, 9))
	})
	seed(func(f *http2.Framer) {
		answer2(f, 1, false, ":status", "200")
		f.WriteData(1, false, []byte("cut"))
		f.WriteRSTStream(1, http2.ErrCodeNo)
	})
	seed(func(f *http2.Framer) {
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1<<32 - 1})
		f.WritePing(false, [8]byte{})
		f.WriteWindowUpdate(0, 1<<31-1)
		f.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
		f.WriteData(3, true, []byte("x"))
	})
	seed(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":status", "200"), EndStream: true})
		f.WriteContinuation(1, true, fields("x", "y"))
	})
	seed(func(f *http2.Framer) {
		f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: fields(":status", "200"), EndHeaders: true})
	})
	f.Fuzz(func(t *testing.T, says []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		body, err := fuzzed(ctx, t, says)
		if ctx.Err() != nil {
			t.Fatal("it hangs")
		}
		if err != nil {
			return
		}
		if want, whole := sentWhole(says); !whole || !bytes.HasPrefix(want, body) {
			t.Errorf("got %q as a whole answer, where %q was sent, whole: %v", body, want, whole)
		}
	})
}

// fuzzed is what comes of a request that is answered with says.
func fuzzed(ctx context.Context, t *testing.T, says []byte) ([]byte, error) {
	here, there := net.Pipe()
	ended := make(chan struct{})
	out := make(chan []byte, 3)
	out <- []byte{0, 0, 0, 4, 0, 0, 0, 0, 0} // SETTINGS
	go func() {
		defer close(out)
		io.ReadFull(there, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(nil, there)
		var ping, request bool
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				if !ping {
					ping = true
					out <- append([]byte{0, 0, 8, 6, 1, 0, 0, 0, 0}, frame.Data[:]...)
				}
			case *http2.HeadersFrame:
				if !request {
					request = true
					out <- says
					out <- nil // the end
				}
			}
		}
	}()
	go func() {
		defer close(ended)
		for b := range out {
			if there.Write(b); b == nil {
				there.Close()
			}
		}
		there.Close()
	}()
	defer func() { <-ended }()
	line, err := NewLine(ctx, here, true)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	p := NewLines(0)
	p.Add(line)
	defer func() {
		if p.Active() != 0 || line.load.Load() != 0 {
			t.Errorf("%d requests are under way, %d on the line", p.Active(), line.load.Load())
		}
	}()
	res, err := p.RoundTrip(asked(ctx, "GET", "/", nil))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(res.Body)
	if _, told := res.Trailer["Tunnel-Error"]; err == nil && told {
		t.Error("a trailer passes for the tunnel's own")
	}
	return body, err
}

// sentWhole reads what says holds for stream 1, and whether that was ended.
func sentWhole(says []byte) (body []byte, whole bool) {
	f := http2.NewFramer(nil, bytes.NewReader(says))
	for {
		frame, err := f.ReadFrame()
		if wrong := (http2.StreamError{}); errors.As(err, &wrong) && wrong.StreamID != 1 {
			continue // it ends another stream alone (RFC 9113, section 5.4.2)
		}
		if err != nil {
			return body, false
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			if frame.StreamID == 1 {
				if body = append(body, frame.Data()...); frame.StreamEnded() {
					return body, true
				}
			}
		case *http2.HeadersFrame:
			if frame.StreamID == 1 && frame.StreamEnded() {
				return body, true
			}
		}
	}
}
