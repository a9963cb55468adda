package main

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/revtun/tunnel/pkg/protocol"
)

// An originAttack is what an origin that attached itself by PTTH sends without an end, after what
// HTTP/2 begins with. Request 1 is a visitor's, and waits.
type originAttack struct {
	name  string
	fresh func(f *http2.Framer)
}

func originAttacks() []originAttack {
	const n = 4096
	repeat := func(one func(f *http2.Framer)) func(*http2.Framer) {
		return func(f *http2.Framer) {
			for range n {
				one(f)
			}
		}
	}
	field := func(name, value string) []byte {
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: name, Value: value})
		return b.Bytes()
	}
	status := field(":status", "200")
	large := field("x", string(bytes.Repeat([]byte("x"), 8000)))
	return []originAttack{
		{"SETTINGS", repeat(func(f *http2.Framer) {
			f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1<<32 - 1})
		})},
		{"PING", repeat(func(f *http2.Framer) { f.WritePing(false, [8]byte{}) })},
		{"answers to no PING", repeat(func(f *http2.Framer) { f.WritePing(true, [8]byte{}) })},
		{"RST_STREAM", repeat(func(f *http2.Framer) { f.WriteRSTStream(99, http2.ErrCodeCancel) })},
		{"WINDOW_UPDATE", repeat(func(f *http2.Framer) { f.WriteWindowUpdate(99, 1) })},
		{"windows that overflow", repeat(func(f *http2.Framer) { f.WriteWindowUpdate(0, 1<<31-1) })},
		{"CONTINUATION", func(f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: status})
			for range n {
				f.WriteContinuation(1, false, large)
			}
		}},
		{"empty DATA", repeat(func(f *http2.Framer) { f.WriteData(1, false, nil) })},
		{"DATA of no request", repeat(func(f *http2.Framer) { f.WriteData(99, false, large) })},
		{"interim answers", repeat(func(f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: field(":status", "103"), EndHeaders: true})
		})},
		{"PUSH_PROMISE", repeat(func(f *http2.Framer) {
			f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: status, EndHeaders: true})
		})},
		{"frames of 16 MB", func(f *http2.Framer) { f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<24-1)) }},
	}
}

// ptthFloods makes each attack of an origin.
func (t *trial) ptthFloods() error {
	for _, a := range originAttacks() {
		var b bytes.Buffer
		a.fresh(http2.NewFramer(&b, nil))
		err := t.flooded("an origin floods "+a.name, func(end time.Time) (sent delivered) {
			for time.Now().Before(end) {
				sent.conns++
				n, err := t.floodFromOrigin(b.Bytes(), end)
				if sent.bytes += float64(n); err != nil {
					t.Sleep(20 * time.Millisecond)
				}
			}
			return sent
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// floodFromOrigin attaches an origin, has a visitor ask it, and floods until end, or until the server
// ends the connection.
func (t *trial) floodFromOrigin(flood []byte, end time.Time) (sent int, err error) {
	w, err := t.dial(2)
	if err != nil {
		return 0, err
	}
	defer w.reset()
	_ = w.SetDeadline(end.Add(time.Second))
	name := strings.ToLower(rand.Text())
	host := name + ".localhost"
	_, port, err := net.SplitHostPort(t.addr)
	if err != nil {
		return 0, err
	}
	path := protocol.PTTHPath([]protocol.Origin{{Scheme: "http", Host: host, Port: port}})
	if err := w.switchTo("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n"); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(w.in, make([]byte, len(http2.ClientPreface))); err != nil {
		return 0, err
	}
	f := http2.NewFramer(w, w.in)
	_ = f.WriteSettings()
	asked := false
	for frame, err := f.ReadFrame(); ; frame, err = f.ReadFrame() {
		if err != nil {
			return 0, err
		}
		if ping, ok := frame.(*http2.PingFrame); ok && !asked {
			_ = f.WritePing(true, ping.Data)
			asked = true
			go func() {
				c := visitors()
				_ = t.get(c, name, "/", time.Until(end)+time.Second)
				c.CloseIdleConnections() // or what idle visitors take would count as the flood's
			}()
		} else if _, ok := frame.(*http2.HeadersFrame); ok {
			break
		}
	}
	_ = w.SetDeadline(end)
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, w.in) }()
	for err == nil {
		var n int
		n, err = w.Write(flood)
		sent += n
	}
	w.reset()
	<-drained
	return sent, nil
}
