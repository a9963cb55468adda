package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/revtun/tunnel/internal/proxy"
)

// framed is an origin that speaks HTTP/2 frame by frame. It has sent its SETTINGS and
// answered the first PING.
func framed(t *testing.T, settings ...http2.Setting) (*Line, *http2.Framer, net.Conn) {
	t.Helper()
	here, there := tcpPair(t)
	there.SetDeadline(time.Now().Add(30 * time.Second))
	line, f := framedOn(t, here, there, settings...)
	return line, f, there
}

// framedOn is framed on a connection that is there.
func framedOn(t *testing.T, here, there net.Conn, settings ...http2.Setting) (*Line, *http2.Framer) {
	t.Helper()
	made := make(chan *Line, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		line, err := NewLine(ctx, here, true)
		if err != nil {
			t.Error(err)
		}
		made <- line
	}()
	if _, err := io.ReadFull(there, make([]byte, len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(there, there)
	f.WriteSettings(settings...)
	for pinged, taken := false, false; !pinged || !taken; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			pinged = true
			f.WritePing(true, frame.Data)
		case *http2.SettingsFrame:
			taken = taken || frame.IsAck()
		}
	}
	line := <-made
	if line == nil {
		t.FailNow()
	}
	t.Cleanup(line.Close)
	return line, f
}

// header reads frames until one begins a request.
func header(t *testing.T, f *http2.Framer) uint32 {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			return h.StreamID
		}
	}
}

// What the origin has not processed, as it says itself, was not sent: a DELETE may go
// elsewhere (RFC 9113, section 8.7). Of a POST whose body has begun to be read only the
// rest would (R2).
func TestLineRefused(t *testing.T) {
	for name, refuse := range map[string]func(f *http2.Framer, id uint32){
		"REFUSED_STREAM": func(f *http2.Framer, id uint32) { f.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"GOAWAY":         func(f *http2.Framer, _ uint32) { f.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		for _, body := range []io.Reader{nil, strings.NewReader("once")} {
			line, f, _ := framed(t)
			p := NewLines(0)
			p.Add(line)
			failed := make(chan error)
			go func() {
				_, err := p.RoundTrip(asked(t.Context(), "DELETE", "/", body))
				failed <- err
			}()
			id := header(t, f)
			if body != nil {
				for frame, err := f.ReadFrame(); ; frame, err = f.ReadFrame() {
					if err != nil {
						t.Fatal(err)
					} else if _, ok := frame.(*http2.DataFrame); ok {
						break
					}
				}
			}
			refuse(f, id)
			if err := <-failed; errors.Is(err, ErrNotSent) != (body == nil) || errors.Is(err, ErrUnanswered) || err == nil {
				t.Errorf("%s, body %v: got %v", name, body != nil, err)
			}
		}
	}
}

// Any other reset is an error, and not to be sent again.
func TestLineReset(t *testing.T) {
	line, f, _ := framed(t)
	p := NewLines(0)
	p.Add(line)
	failed := make(chan error)
	go func() {
		_, err := p.RoundTrip(asked(t.Context(), "POST", "/", strings.NewReader("once")))
		failed <- err
	}()
	f.WriteRSTStream(header(t, f), http2.ErrCodeInternal)
	if err := <-failed; !errors.Is(err, proxy.ErrBadResponse) || errors.Is(err, ErrNotSent) || errors.Is(err, ErrUnanswered) {
		t.Errorf("got %v", err)
	}
}

// An origin that does not speak HTTP/2 as it said is none.
func TestLinePreface(t *testing.T) {
	for name, says := range map[string]string{
		"HTTP/1.1":      "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
		"another frame": "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"a huge frame":  "\xff\xff\xff\x04\x00\x00\x00\x00\x00",
		"the end":       "",
	} {
		here, there := tcpPair(t)
		go func() {
			io.WriteString(there, says)
			there.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, there)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		line, err := NewLine(ctx, here, true)
		cancel()
		if err == nil {
			line.Close()
			t.Errorf("%s: got a line", name)
		}
		if _, err := here.Write([]byte("x")); err == nil {
			t.Errorf("%s: the connection is open", name)
		}
	}
	// One that says nothing is given up with the context.
	here, _ := tcpPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewLine(ctx, here, true); err == nil {
		t.Error("silence: got a line")
	}
}

// An origin of HTTP/2 that falls silent is given up within 45 s, and is known to have
// been silent (R8).
func TestLineSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		deaf := make(chan struct{})
		line := lineOn(t, true, http.NotFoundHandler(), here, &deafConn{Conn: there, deaf: deaf})
		p := NewLines(0)
		p.Add(line)
		time.Sleep(5 * time.Minute) // an idle one that answers stays
		select {
		case <-line.Left():
			t.Fatal("an idle line was given up")
		default:
		}
		close(deaf)
		begin := time.Now()
		<-line.Done()
		if d := time.Since(begin); d > 45*time.Second || !line.Silent() {
			t.Errorf("given up after %v, silent: %v", d, line.Silent())
		}
	})
}

// deafConn swallows what is written once it is deaf.
type deafConn struct {
	net.Conn
	deaf chan struct{}
}

func (c *deafConn) Write(p []byte) (int, error) {
	select {
	case <-c.deaf:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

// A visitor that does not read its answer holds no other up, and no more than a window
// (R14).
func TestLineStalledVisitor(t *testing.T) {
	p := linesTo(t, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			io.CopyN(w, zeros{}, 2<<20)
			return
		}
		io.WriteString(w, "small")
	}))
	var stalled []*http.Response
	for range 20 {
		res, err := p.RoundTrip(asked(t.Context(), "GET", "/large", nil))
		if err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, res)
	}
	for range 50 {
		res, err := p.RoundTrip(asked(t.Context(), "GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "small" || err != nil {
			t.Fatalf("got %q, %v", body, err)
		}
		res.Body.Close()
	}
	for _, res := range stalled {
		if n, err := io.Copy(io.Discard, res.Body); n != 2<<20 || err != nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		res.Body.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
