package edge

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What a visitor of HTTP/2 may do at once, and what only in time (S6).
func TestRation(t *testing.T) {
	r := new(rations)
	now := time.Unix(0, 0)
	for _, tc := range []struct {
		name              string
		after             time.Duration // since the one before
		vain, cost, bytes int64
		want              time.Duration
	}{
		{"a page of 250 requests is left", 0, 250, 250, 0, 0},
		{"one more is", 0, 1, 1, 0, 16 * time.Millisecond},
		{"one more, when that was waited for", 16 * time.Millisecond, 1, 1, 0, 16 * time.Millisecond},
		{"one, for which many bytes came", 16 * time.Millisecond, 1, 1, resetCost * vainBytes, 0},
		{"one, for which few bytes came", 0, 1, 1, resetCost * vainBytes / 2, 8 * time.Millisecond},
		{"all the pings that there can be", 10 * time.Second, 0, rationBurst, 0, 0},
		{"one more", 0, 0, 1, 0, 4 * time.Millisecond},
		{"what a second gives", time.Second, 0, 249, 0, 0},
		{"window updates of a fast download", 0, 0, 500, 1_000 * rationBytes, 0},
		{"all of what an hour gives", time.Hour, 0, rationBurst, 0, 0},
		{"what a gigabyte gives", 0, 250, rationBurst, 1 << 30, 0},
		{"no more, the gigabyte is not saved up", 0, 0, 250, 0, time.Second},
	} {
		now = now.Add(tc.after)
		r.begun.Add(tc.vain)
		if got := r.spend(now, tc.cost, tc.bytes); got != tc.want {
			t.Errorf("%s: waits %v, want %v", tc.name, got, tc.want)
		}
	}
}

// Each frame is counted, however it comes in pieces.
func TestFramesAreCounted(t *testing.T) {
	var b bytes.Buffer
	var block bytes.Buffer
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
	f := http2.NewFramer(&b, nil)
	f.WriteSettings()                                                                                     // 1
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})  // 0
	f.WriteData(1, false, make([]byte, 300))                                                              // 0
	f.WriteData(1, false, nil)                                                                            // 1
	f.WritePing(false, [8]byte{})                                                                         // 1
	f.WriteWindowUpdate(0, 1)                                                                             // 1
	f.WritePriority(3, http2.PriorityParam{})                                                             // 1
	f.WriteRSTStream(1, http2.ErrCodeCancel)                                                              // 4
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block.Bytes(), EndHeaders: false}) // 0
	f.WriteContinuation(3, true, nil)                                                                     // 1
	for size := 1; size <= b.Len(); size++ {
		var fs frames
		for rest := b.Bytes(); len(rest) > 0; {
			n := min(size, len(rest))
			fs.take(rest[:n])
			rest = rest[n:]
		}
		if cost, data := fs.spent(); cost != 10 || data != 300 {
			t.Fatalf("in pieces of %d: cost %d, %d bytes of bodies", size, cost, data)
		}
		if cost, data := fs.spent(); cost != 0 || data != 0 {
			t.Fatalf("counted twice: %d, %d bytes", cost, data)
		}
	}
}

// Whoever has spent what there is waits within Read; what was written to him counts.
func TestFloodWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	visitor, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	accepted, err := new(Door).Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	synctest.Test(t, func(t *testing.T) { // whose time passes in waiting alone
		c := accepted.(*timedConn)
		const pings, written = 10, 4
		b := bytes.NewBufferString(preface)
		f := http2.NewFramer(b, nil)
		for range pings {
			f.WritePing(false, [8]byte{})
		}
		left := b.Len()
		visitor.Write(b.Bytes())
		c.rations.frames.then, c.rations.vain.then = time.Now(), time.Now()
		c.Write(make([]byte, written*rationBytes))
		for start := time.Now(); left > 0; {
			n, err := c.Read(make([]byte, 20))
			if err != nil {
				t.Fatal(err)
			}
			if left -= n; left == 0 {
				if waited := time.Since(start); waited != (pings-written)*time.Second/rationRate {
					t.Errorf("waited %v", waited)
				}
			}
		}
	})
}

// A request that was answered costs nothing, nor do those of HTTP/1, whose connection
// ends with each.
func TestInVainIsWhatWasTakenBack(t *testing.T) {
	over, end := context.WithCancel(context.Background())
	end()
	for _, tc := range []struct {
		ctx   context.Context
		proto int
		want  int64
	}{{context.Background(), 2, 0}, {over, 2, 1}, {over, 1, 0}} {
		c := new(timedConn)
		r := new(http.Request).WithContext(context.WithValue(tc.ctx, connKey{}, c))
		r.ProtoMajor = tc.proto
		inVain(r)
		if got := c.rations.begun.Load(); got != tc.want {
			t.Errorf("HTTP/%d, %v: %d requests for nothing, want %d", tc.proto, tc.ctx.Err(), got, tc.want)
		}
	}
	inVain(new(http.Request).WithContext(over)) // without a connection that is known
}
