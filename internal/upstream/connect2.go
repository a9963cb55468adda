package upstream

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/revtun/tunnel/internal/proxy"
)

// webSocketGUID is of RFC 6455, section 1.3.
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// errNoConnect is x/net's error where the origin takes no extended CONNECT.
const errNoConnect = "net/http: extended connect not supported by peer"

// connect2 opens a WebSocket by extended CONNECT (RFC 8441), which is an upgrade of
// HTTP/1.1 for whoever asks.
func (l *Line) connect2(req *http.Request) (*http.Response, error) {
	key := req.Header.Get("Sec-Websocket-Key")
	ctx, cancel := context.WithCancel(req.Context())
	out := request2(ctx, req)
	out.Method, out.ContentLength, out.Trailer = http.MethodConnect, -1, nil
	out.Header = req.Header.Clone()
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Key", "Content-Length"} {
		delete(out.Header, name)
	}
	out.Header[":protocol"] = []string{"websocket"}
	body, w := io.Pipe()
	out.Body = body
	res, err := l.h2.RoundTrip(out)
	if err != nil {
		cancel()
		l.over2()
		switch {
		case req.Context().Err() != nil:
			return nil, req.Context().Err()
		case err.Error() == errNoConnect:
			l.setPlain()
			return nil, ErrNoUpgrade
		}
		return nil, l.explain(fmt.Errorf("%w: %w", proxy.ErrBadResponse, err))
	}
	s := &stream2{ReadCloser: res.Body, w: w, cancel: cancel, line: l}
	if res.StatusCode != http.StatusOK {
		w.CloseWithError(io.ErrClosedPipe)
		res.Body = struct{ io.ReadCloser }{s} // no more than a body
		return res, nil
	}
	sum := sha1.Sum([]byte(key + webSocketGUID))
	res.Status, res.StatusCode = "101 Switching Protocols", http.StatusSwitchingProtocols
	res.Proto, res.ProtoMajor, res.ProtoMinor = "HTTP/1.1", 1, 1
	delete(res.Header, "Content-Length") // a 101 has none
	res.Header["Connection"], res.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	res.Header["Sec-Websocket-Accept"] = []string{base64.StdEncoding.EncodeToString(sum[:])}
	res.Body = s
	return res, nil
}

func (l *Line) isPlain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plain
}

func (l *Line) setPlain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plain = true
}

// stream2 is what follows an extended CONNECT.
type stream2 struct {
	io.ReadCloser
	w      *io.PipeWriter
	cancel context.CancelFunc
	line   *Line
	closed atomic.Bool
}

func (s *stream2) Write(p []byte) (int, error) { return s.w.Write(p) }

func (s *stream2) CloseWrite() error { return s.w.Close() }

// OnAbort tells of the connection's end, which no Read does once the origin has ended
// its side.
func (s *stream2) OnAbort(f func()) (stop func() bool) {
	return context.AfterFunc(s.line.conn.ctx, f)
}

// Reset ends the stream so that the origin sees an error: RST_STREAM.
func (s *stream2) Reset() error {
	s.w.CloseWithError(errors.New("aborted"))
	s.cancel()
	return s.Close()
}

func (s *stream2) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.w.Close()
	err := s.ReadCloser.Close()
	s.cancel()
	s.line.over2()
	return err
}
