package edge_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/internal/edge"
)

// timed serves own until the test ends, with limits.
func timed(t *testing.T, limits edge.Limits, own http.HandlerFunc) (addr string) {
	t.Helper()
	h := &edge.HTTP{Domain: "example.com", Own: own}
	l := loopback(t)
	s := h.Server(limits)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve((&edge.Door{Limits: limits}).Listener(l))
	}()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return l.Addr().String()
}

// framed is a connection that speaks HTTP/2 by hand.
type framed struct {
	*http2.Framer
	net.Conn
}

func dialHTTP2(t *testing.T, addr string) *framed {
	t.Helper()
	conn := visit(t, addr).TCPConn
	io.WriteString(conn, http2.ClientPreface)
	return &framed{http2.NewFramer(conn, conn), conn}
}

// request sends the first part of a POST of path.
func (f *framed) request(stream uint32, path string, end bool) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "example.com"}} {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: end})
}

// drip sends what send says again and again, until the connection ends.
func (f *framed) drip(send func() error) {
	for send() == nil {
		time.Sleep(time.Millisecond) // the flood's pace
	}
}

// ended waits for the connection's end.
func (f *framed) ended(t *testing.T) {
	t.Helper()
	_, err := io.Copy(io.Discard, f.Conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("the connection stays open")
	}
}

// S7 for HTTP/2 without TLS: what a visitor has not sent in time ends its connection.
func TestSlowHTTP2(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, attack := range map[string]func(*framed){
		"silence": func(f *framed) { f.WriteSettings() },
		"pings": func(f *framed) {
			f.WriteSettings()
			f.drip(func() error { return f.WritePing(false, [8]byte{}) })
		},
		"half a frame header": func(f *framed) {
			f.WriteSettings()
			f.Write([]byte{0, 0, 4, 1})
		},
		"half a header section": func(f *framed) {
			f.WriteSettings()
			f.request(1, "/", false)
			f.drip(func() error { return f.WriteContinuation(1, false, nil) })
		},
		"a second header section": func(f *framed) {
			f.WriteSettings()
			f.request(1, "/", true)
			f.request(3, "/", false)
			f.drip(func() error { return f.WriteContinuation(3, false, nil) })
		},
		"half a frame header beside a stream": func(f *framed) {
			f.WriteSettings()
			f.request(1, "/", true)
			f.Write([]byte{0, 0, 4, 1})
		},
		"a slow ping beside a stream": func(f *framed) {
			f.WriteSettings()
			f.request(1, "/", true)
			f.Write([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := dialHTTP2(t, timed(t, edge.Limits{HeaderTimeout: 50 * time.Millisecond}, hang))
			go attack(f)
			f.ended(t)
		})
	}
}

// A connection whose requests have ended is idle, whatever else it sends.
func TestIdleHTTP2(t *testing.T) {
	limits := edge.Limits{HeaderTimeout: time.Hour, IdleTimeout: 50 * time.Millisecond}
	f := dialHTTP2(t, timed(t, limits, func(http.ResponseWriter, *http.Request) {}))
	f.WriteSettings()
	f.request(1, "/", true)
	f.WriteData(1, true, nil)
	go f.drip(func() error { return f.WritePing(false, [8]byte{}) })
	f.ended(t)
}

// A body may take as long as it likes, in frames of whatever size.
func TestSlowBodyHTTP2(t *testing.T) {
	came := make(chan byte)
	limits := edge.Limits{HeaderTimeout: 50 * time.Millisecond}
	addr := timed(t, limits, func(w http.ResponseWriter, r *http.Request) {
		for one := make([]byte, 1); ; {
			if _, err := io.ReadFull(r.Body, one); err != nil {
				close(came)
				return
			}
			came <- one[0]
		}
	})
	f := dialHTTP2(t, addr)
	f.WriteSettings()
	f.request(1, "/", true)
	late := func() {
		for range 2 { // another connection's time passes after ours began
			dialHTTP2(t, addr).ended(t)
		}
	}
	sent := func(want byte) {
		t.Helper()
		if got, ok := <-came; !ok || got != want {
			t.Fatalf("the body is cut before %q", want)
		}
	}
	f.WriteData(1, false, []byte("a"))
	sent('a')
	late()
	f.WriteData(1, false, []byte("b"))
	sent('b')
	f.Write([]byte{0, 0, 2, 0, 0, 0, 0, 0, 1, 'c'}) // half a frame
	late()
	f.Write([]byte("d"))
	sent('c')
	sent('d')
	f.WriteData(1, true, nil)
	if _, more := <-came; more {
		t.Error("more came than was sent")
	}
}

// HTTP/1 is left alone, and what others ask of a TCP connection is there.
func TestListenerHTTP1(t *testing.T) {
	addr := timed(t, edge.Limits{HeaderTimeout: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, ok := conn.(interface {
			CloseWrite() error
			SetLinger(int) error
			syscall.Conn
			io.ReaderFrom
		}); !ok {
			t.Errorf("%T is less than a TCP connection", conn)
		}
		conn.SetReadDeadline(time.Time{})
		io.Copy(conn, conn)
	})
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: example.com")
	for range 2 {
		dialHTTP2(t, addr).ended(t)
	}
	// Bytes of a tunnel may look like anything.
	io.WriteString(v, http2.ClientPreface+"\x00\x00\x04\x01")
	v.CloseWrite()
	if got, err := io.ReadAll(v.r); err != nil || string(got) != http2.ClientPreface+"\x00\x00\x04\x01" {
		t.Errorf("got %q, %v", got, err)
	}
}
