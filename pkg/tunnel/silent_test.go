package tunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// grant is a proxy's end of a connection: it grants PTTH by HTTP/2, and a spare
// connection of HTTP/1.1 where there is to be one, sends no request, and answers PINGs
// until it is deaf.
func grant(conn net.Conn, spare bool, deaf *atomic.Bool) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	answer := func(alpn string) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ptth\r\nALPN: "+alpn+"\r\n\r\n")
	}
	switch h2 := req.Header.Get("ALPN") != "http%2F1.1"; {
	case h2:
		answer("h2")
	case spare:
		answer("http%2F1.1")
		io.Copy(io.Discard, r)
		return
	default:
		io.WriteString(conn, "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
		return
	}
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, r)
	f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() && !deaf.Load() {
				f.WritePing(true, frame.Data)
			}
		}
	}
}

// A proxy of HTTP/2 that has gone without a word is given up within 45 s, and one that
// has nothing to send is not (R8).
func TestPTTHSilentProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deaf atomic.Bool
		told := make(chan Event, 100)
		c := &Client{Server: "http://memory", Transport: PTTH, Events: func(e Event) { told <- e }}
		c.dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go grant(there, false, &deaf)
			return here, nil
		}
		b, err := c.Attach(t.Context(), Options{Origin: "https://app.test"}, http.NotFoundHandler())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if e := <-told; e.Type != Ready || e.Protocol != "h2" {
			t.Fatalf("got %+v", e)
		}
		for _, silent := range []bool{false, true} {
			deaf.Store(silent)
			begin := time.Now()
			select {
			case e := <-told:
				if d := time.Since(begin); !silent || d > 45*time.Second || e.Type != Disconnected || !errors.Is(e.Err, errGaveUp) {
					t.Errorf("after %v came %+v", d, e)
				}
			case <-time.After(5*time.Minute + time.Second): // the last PING was answered just now
				if silent {
					t.Fatal("it was not noticed")
				}
			}
		}
		deaf.Store(false)
		if e := <-told; e.Type != Reconnected {
			t.Errorf("got %+v", e)
		}
	})
}
