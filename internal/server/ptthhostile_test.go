package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// attachRaw attaches an origin of HTTP/2 that has said what it has to, and nothing since.
func (n *node) attachRaw(token, name string, settings ...http2.Setting) (net.Conn, *http2.Framer) {
	n.t.Helper()
	conn, r, res := n.askPTTH(n.originPath(name), "ALPN: h2", "Authorization: Bearer "+token)
	if res.StatusCode != http.StatusSwitchingProtocols {
		n.t.Fatal(res.Status)
	}
	if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
		n.t.Fatal(err)
	}
	f := http2.NewFramer(conn, r)
	f.WriteSettings(settings...)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			n.t.Fatal(err)
		}
		if ping, ok := frame.(*http2.PingFrame); ok {
			f.WritePing(true, ping.Data)
			return conn, f
		}
	}
}

// stuck has a visitor upload to an origin that takes everything and reads nothing.
func (n *node) stuck(token, name string) {
	n.t.Helper()
	_, f := n.attachRaw(token, name+".localhost", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	f.WriteWindowUpdate(0, 1<<30)
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	n.t.Cleanup(func() { conn.Close(); <-ended })
	_, port, _ := net.SplitHostPort(n.addr)
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s.localhost:%s\r\nContent-Length: 1000000000\r\n\r\n", name, port)
	moved := make(chan int, 1)
	go func() {
		defer close(ended)
		for b, all := make([]byte, 1<<16), 0; ; {
			conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			m, err := conn.Write(b)
			if all += m; err != nil {
				moved <- all
				return
			}
		}
	}()
	if <-moved < 1<<16 {
		n.t.Fatal("nothing of the upload was taken")
	}
}

// An origin that reads nothing holds up nobody else: not the other connections of its
// own, nor other tenants by whatever way, nor what takes tokens away, nor the server's end.
func TestPTTHStopsReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	all := "token-of-ann\ntoken-of-bob\ntoken-of-eve\n"
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Hold: time.Minute, Auth: tokens(t, path, all)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	n := &node{t: t, addr: s.Addr().String()}
	_, port, _ := net.SplitHostPort(n.addr)
	n.stuck("token-of-eve", "eve")
	n.stuck("token-of-eve", "eve")
	bob := n.attach("token-of-bob", "h2", says("bob"), "bob.localhost")
	ann := n.attach("token-of-ann", "http%2F1.1", says("ann"), "ann.localhost")
	n.attach("token-of-eve", "h2", says("eve"), "eve.localhost")
	n.answered("bob.localhost:"+port, "/", "bob GET bob.localhost:"+port+" / ")
	n.answered("ann.localhost:"+port, "/", "ann GET ann.localhost:"+port+" / ")
	n.answered("eve.localhost:"+port, "/", "eve GET eve.localhost:"+port+" / ")
	if err := os.WriteFile(path, []byte("token-of-ann\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-bob.served
	n.answered("ann.localhost:"+port, "/", "ann GET ann.localhost:"+port+" / ")
	// What the rights were taken for is anybody's, without a hold, when its connections have ended.
	poll.Until(t, "the name to be free", func() bool {
		_, _, res := n.askPTTH(n.originPath("eve.localhost"), "ALPN: http%2F1.1", "Authorization: Bearer token-of-ann")
		return res.StatusCode == http.StatusSwitchingProtocols
	})
	n.stuck("token-of-ann", "other")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-ann.served
}

// Many connections of an origin that does not answer cost no more than themselves, and
// nobody else anything.
func TestPTTHManyConnections(t *testing.T) {
	const many = 150
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-eve\ntoken-of-bob\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	n.attach("token-of-bob", "h2", says("bob"), "bob.localhost")
	raw := n.connect("", "token-of-bob", "")
	raw.must(raw.bind("raw"))
	before := runtime.NumGoroutine()
	var attaching sync.WaitGroup
	for range 10 {
		attaching.Go(func() {
			for range many / 10 {
				n.attachRaw("token-of-eve", "eve.localhost")
			}
		})
	}
	most := 0
	attached := make(chan struct{})
	go func() { attaching.Wait(); close(attached) }()
	for waiting := true; waiting; {
		select {
		case <-attached:
			waiting = false
		default:
			n.answered("bob.localhost:"+port, "/", "bob GET bob.localhost:"+port+" / ")
			most = max(most, runtime.NumGoroutine()-before)
		}
	}
	if most > 12*many {
		t.Errorf("%d goroutines for %d connections", most, many)
	}
}

// Frames that no origin may send end its connection, and those that it may cost no memory.
// Either way no other is held up meanwhile.
func TestPTTHFloods(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-eve\ntoken-of-bob\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	n.attach("token-of-bob", "h2", says("bob"), "bob.localhost")
	var long bytes.Buffer
	hpack.NewEncoder(&long).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
	for name, c := range map[string]struct {
		frame func(f *http2.Framer) error
		most  int  // frames
		ends  bool // the connection does before
	}{
		"SETTINGS": {func(f *http2.Framer) error { return f.WriteSettings() }, 20_000, false},
		"PING":     {func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }, 20_000, false},
		"updates":  {func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1<<31-1) }, 20_000, true},
		"pushes": {func(f *http2.Framer) error {
			return f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, 20_000, true},
		"DATA":         {func(f *http2.Framer) error { return f.WriteData(1001, false, []byte("x")) }, 20_000, true},
		"CONTINUATION": {func(f *http2.Framer) error { return f.WriteContinuation(1, false, long.Bytes()) }, 4000, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn, f := n.attachRaw("token-of-eve", "eve.localhost")
			before := heap()
			ended, flooded := make(chan error, 1), make(chan int, 1)
			go func() {
				_, err := io.Copy(io.Discard, conn)
				ended <- err
			}()
			if name == "CONTINUATION" {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}}) // :status 200
			}
			go func() {
				sent := 0
				for sent < c.most && c.frame(f) == nil {
					sent++
				}
				flooded <- sent
			}()
			sent := -1
			for answers := 0; sent < 0 || answers == 0; answers++ {
				n.answered("bob.localhost:"+port, "/", "bob GET bob.localhost:"+port+" / ")
				select {
				case sent = <-flooded:
				default:
				}
			}
			if held := heap() - before; held > 8<<20 {
				t.Errorf("%d bytes are held", held)
			}
			if !c.ends {
				conn.Close()
			}
			if err := <-ended; c.ends && os.IsTimeout(err) || !c.ends && sent < c.most {
				t.Errorf("after %d frames: %v", sent, err)
			}
		})
	}
}

// heap is how much memory is in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// An origin that says one version and speaks the other answers nobody.
func TestPTTHSpeaksAnother(t *testing.T) {
	n := start(t, server.Config{Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-eve\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	for alpn, speaks := range map[string]string{
		"h2":          "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"http%2F1.1":  "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"http%2F1.1 ": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
	} {
		conn, r, res := n.askPTTH(n.originPath("eve.localhost"), "ALPN: "+alpn, "Authorization: Bearer token-of-eve")
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(res.Status)
		}
		io.WriteString(conn, speaks)
		io.Copy(io.Discard, r) // until the server has ended it
		if res, body := n.get("eve.localhost:"+port, "/"); strings.Contains(body, "evil") {
			t.Errorf("%s: got %v %s", alpn, res, body)
		}
	}
}

// upgraded asks by a visitor's connection for a WebSocket of host.
func (n *node) upgraded(host string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return conn.(*net.TCPConn), r, res
}

// webSocketEnds are the ways in which a WebSocket stream ends.
func webSocketEnds() []string { return []string{"half-close", "visitor aborts", "origin aborts"} }

// readsLate reads the origin's last word, and the end.
func readsLate(t *testing.T, visitor io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(visitor); string(rest) != "late" || err != nil {
		t.Errorf("the visitor read %q, %v", rest, err)
	}
}

// readsAbort reads from a stream that its other side has aborted.
func readsAbort(t *testing.T, who string, r io.Reader) {
	t.Helper()
	if _, err := io.ReadAll(r); err == nil {
		t.Errorf("the %s saw an end", who)
	}
}

// The end of either side of a WebSocket stays one, and an abort an abort, by HTTP/1.1
// (R16, R17).
func TestPTTHWebSocketEnds(t *testing.T) {
	n := start(t, server.Config{Park: 10 * time.Second, Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	for _, how := range webSocketEnds() {
		t.Run(how, func(t *testing.T) {
			// Each origin has a name of its own: the one before may not have gone yet.
			host := strings.ReplaceAll(how, " ", "-") + ".localhost"
			origin, r, res := n.askPTTH(n.originPath(host), "ALPN: http%2F1.1", "Authorization: Bearer token-of-ann")
			if res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(res.Status)
			}
			defer origin.Close()
			go func() {
				http.ReadRequest(r)
				io.WriteString(origin, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			}()
			conn, visitor, up := n.upgraded(host + ":" + port)
			if up.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(up.Status, up.Header)
			}
			io.WriteString(conn, "up")
			if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
				t.Fatal(err)
			}
			switch how {
			case "half-close":
				conn.CloseWrite()
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("the origin read %q, %v", rest, err)
				}
				io.WriteString(origin, "late")
				origin.Close()
				readsLate(t, visitor)
			case "visitor aborts":
				conn.SetLinger(0)
				conn.Close()
				readsAbort(t, "origin", r)
			case "origin aborts":
				origin.(*net.TCPConn).SetLinger(0)
				origin.Close()
				readsAbort(t, "visitor", visitor)
			}
		})
	}
}

// stream2 is an origin of HTTP/2 that has one stream.
type stream2 struct {
	t *testing.T
	*http2.Framer
	id uint32
}

// next reads up to a frame of the stream.
func (s *stream2) next() http2.Frame {
	for {
		frame, err := s.ReadFrame()
		if err != nil {
			s.t.Fatal(err)
		}
		switch frame.Header().Type {
		case http2.FrameHeaders, http2.FrameData, http2.FrameRSTStream:
			return frame
		}
	}
}

// The same by HTTP/2.
func TestPTTHWebSocketEnds2(t *testing.T) {
	n := start(t, server.Config{Park: 10 * time.Second, Hold: time.Minute, Auth: tokens(t, filepath.Join(t.TempDir(), "tokens"), "token-of-ann\n")})
	_, port, _ := net.SplitHostPort(n.addr)
	for _, how := range webSocketEnds() {
		t.Run(how, func(t *testing.T) {
			host := strings.ReplaceAll(how, " ", "-") + ".localhost"
			conn, f := n.attachRaw("token-of-ann", host, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
			defer conn.Close()
			origin := &stream2{t: t, Framer: f}
			begun := make(chan struct{})
			go func() {
				defer close(begun)
				origin.id = origin.next().Header().StreamID
				origin.WriteHeaders(http2.HeadersFrameParam{StreamID: origin.id, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
			}()
			visiting, visitor, up := n.upgraded(host + ":" + port)
			<-begun
			if up.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(up.Status, up.Header)
			}
			io.WriteString(visiting, "up")
			origin.next()
			switch how {
			case "half-close":
				visiting.CloseWrite()
				if data, ok := origin.next().(*http2.DataFrame); !ok || !data.StreamEnded() {
					t.Error("the origin saw no end")
				}
				origin.WriteData(origin.id, true, []byte("late"))
				readsLate(t, visitor)
			case "visitor aborts":
				visiting.SetLinger(0)
				visiting.Close()
				if _, ok := origin.next().(*http2.RSTStreamFrame); !ok {
					t.Error("the origin saw no reset")
				}
			case "origin aborts":
				origin.WriteRSTStream(origin.id, http2.ErrCodeCancel)
				readsAbort(t, "visitor", visitor)
			}
		})
	}
}
