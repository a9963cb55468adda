package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/server"
)

// S6: floods over HTTP/2 cost a bounded memory and a bounded number of requests,
// and others are served.
func TestFloods(t *testing.T) {
	t.Run("clear", func(t *testing.T) { testFloods(t, false) })
	t.Run("TLS", func(t *testing.T) { testFloods(t, true) })
}

func testFloods(t *testing.T, overTLS bool) {
	const conns = 4
	for _, kind := range rig.Floods() {
		t.Run(string(kind), func(t *testing.T) {
			long := 500 * time.Millisecond
			if kind == rig.FloodContinuation {
				long = 10 * time.Second // which ends sooner: all are cut
			}
			h := secure(t, server.Config{TLS: &server.TLS{AllowPlain: []string{"*"}, NoHTTP3: true}})
			addr := h.plain
			var running, most, all atomic.Int64
			publish(t, addr, "demo", nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				all.Add(1)
				for n := running.Add(1); ; {
					if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
						break
					}
				}
				defer running.Add(-1)
				io.Copy(io.Discard, r.Body)
			}))
			publish(t, addr, "other", nil, seen("other"))
			before := held()
			flooded := make(chan rig.FloodReport, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), long)
				defer cancel()
				flooded <- rig.FloodConns(ctx, func() (net.Conn, error) {
					if overTLS {
						return tls.Dial("tcp", h.tls, h.greeting("demo.example.com", "h2"))
					}
					return net.Dial("tcp", addr)
				}, "demo.example.com", kind, conns, 1<<40)
			}()
			var report rig.FloodReport
			peak, good := before, 0
			for over := false; !over; good++ {
				select {
				case report = <-flooded:
					over = true
				default:
				}
				if a := get(t, addr, "GET / HTTP/1.1", "Host: other.example.com", "Connection: close"); answered(a) != "other" {
					t.Fatalf("another visitor got %s", answered(a))
				}
				peak = max(peak, held())
			}
			grown := int64(peak-before) >> 20
			if grown > 64 {
				t.Errorf("%d MB more are held", grown)
			}
			// What net/http lets one connection have at once is 250.
			if n := most.Load(); n > conns*250 {
				t.Errorf("%d requests ran at once", n)
			}
			if kind == rig.FloodContinuation && report.Cut < conns {
				t.Errorf("%d of %d connections were cut", report.Cut, conns)
			}
			t.Logf("%d frames, %d of %d cut, +%d MB, %d requests, %d at once, %d good ones beside them", report.Frames, report.Cut, conns, grown, all.Load(), most.Load(), good)
		})
	}
}

// S6: who begins requests for nothing, in whatever way and whatever else he sends, may
// do so 250 times, and then 62 times a second.
func TestInVain(t *testing.T) {
	for name, takeBack := range map[string]func(f *http2.Framer, stream uint32){
		"reset":      func(f *http2.Framer, stream uint32) { f.WriteRSTStream(stream, http2.ErrCodeCancel) },
		"made reset": func(f *http2.Framer, stream uint32) { f.WriteData(stream, false, []byte("after its end")) },
		"made, TLS":  func(f *http2.Framer, stream uint32) { f.WriteData(stream, false, []byte("after its end")) },
		"window":     func(f *http2.Framer, stream uint32) { f.WriteWindowUpdate(stream, 1<<31-1) },
		"paid, made": func(f *http2.Framer, stream uint32) { f.WriteData(stream, false, make([]byte, 4<<10)) },
		"paid, reset": func(f *http2.Framer, stream uint32) {
			f.WriteRSTStream(stream, http2.ErrCodeCancel)
			f.WriteData(stream, false, make([]byte, 4<<10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := secure(t, server.Config{TLS: &server.TLS{AllowPlain: []string{"*"}, NoHTTP3: true}})
			conn, err := net.Dial("tcp", h.plain)
			if strings.HasSuffix(name, "TLS") {
				conn, err = tls.Dial("tcp", h.tls, h.greeting("demo.example.com", "h2"))
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			inVain(t, h.plain, conn, takeBack)
		})
	}
}

// inVain begins requests on conn in batches, and takes them back when all of a batch are
// under way. addr is the server's.
func inVain(t *testing.T, addr string, conn net.Conn, takeBack func(f *http2.Framer, stream uint32)) {
	// Free are those of the burst, and what the bytes earn of those who send some.
	const batches, batch, free, pause = 5, 100, 250 + 5*100*(4<<10)/(64<<10), 16 * time.Millisecond
	begun, ended := make(chan struct{}, batch), make(chan struct{}, batch)
	publish(t, addr, "demo", nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}))
	await := func(what string, c <-chan struct{}) {
		for range batch {
			select {
			case <-c:
			case <-time.After(10 * time.Second):
				t.Fatalf("a request has not %s", what)
			}
		}
	}
	go io.Copy(io.Discard, conn)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	f := http2.NewFramer(conn, nil)
	io.WriteString(conn, http2.ClientPreface)
	f.WriteSettings()
	start := time.Now()
	for first := uint32(1); first < 2*batches*batch; first += 2 * batch {
		for i := first; i < first+2*batch; i += 2 {
			block.Reset()
			for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "demo.example.com"}} {
				encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
			}
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: i, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		}
		await("begun", begun)
		for i := first; i < first+2*batch; i += 2 {
			takeBack(f, i)
		}
		await("ended", ended)
	}
	// The last batch is paid for with what comes next.
	if took, least := time.Since(start), ((batches-1)*batch-free-2)*pause; took < least {
		t.Errorf("%d were begun within %v, want %v at least", batches*batch, took, least)
	}
}

// held is the memory in use, of the heap and of stacks.
func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
