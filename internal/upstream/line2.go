package upstream

//lint:file-ignore SA1019 net/http's ClientConn, which x/net recommends, can neither ping nor say GOAWAY, and refuses extended CONNECT.

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/revtun/tunnel/internal/proxy"
)

const (
	// pingAfter is how long an origin of HTTP/2 may be silent before it is asked for a
	// sign of life, and pingTime how long it may take: 40 s together.
	pingAfter = 15 * time.Second
	pingTime  = 25 * time.Second
	// writeTime is how long an origin may take nothing at all of what is to be written.
	writeTime = 30 * time.Second
	// lineWindow is how much of one answer may have arrived and not been read: the
	// first size of a stream's window (RFC 9113, section 6.9.2). The connection's own
	// window is as large as can be, or visitors that read slowly would stop the others.
	lineWindow = 512 << 10
	connWindow = 1 << 30
	// maxAnswerHeader bounds the header section of an answer, in bytes.
	maxAnswerHeader = 1 << 20
)

// webSocketGUID is of RFC 6455, section 1.3.
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// start2 begins HTTP/2 and waits for the origin's answer to a PING, before which its
// SETTINGS must have come (RFC 9113, section 3.4).
func (l *Line) start2(ctx context.Context) error {
	t1 := &http.Transport{
		DisableCompression: true, ExpectContinueTimeout: continueTime, MaxResponseHeaderBytes: maxAnswerHeader,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: lineWindow, MaxReceiveBufferPerConnection: connWindow},
	}
	t2, err := http2.ConfigureTransports(t1)
	if err != nil {
		return err
	}
	t2.AllowHTTP, t2.StrictMaxConcurrentStreams = true, true
	t2.ReadIdleTimeout, t2.PingTimeout, t2.WriteByteTimeout = pingAfter, pingTime, writeTime
	t2.CountError = func(what string) {
		if what == "conn_close_lost_ping" {
			l.conn.silent.Store(true)
		}
	}
	if l.h2, err = t2.NewClientConn(l.conn); err != nil {
		return err
	}
	return l.h2.Ping(ctx)
}

// room2 is how many more requests the origin takes now. It is negative where the line
// takes none any more.
func (l *Line) room2() int {
	s := l.h2.State()
	if s.Closed || s.Closing {
		return -1
	}
	return int(min(s.MaxConcurrentStreams, 1<<30)) - s.StreamsActive - s.StreamsReserved - s.StreamsPending
}

// sent2 is what is known of a request on its way.
type sent2 struct {
	head     atomic.Bool // its header section was written
	answered atomic.Bool // a byte of an answer came
	body     atomic.Pointer[error]
}

// trip2 sends req. What httptrace tells of it decides whether it may be sent again.
func (l *Line) trip2(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	up := req.Header.Get("Upgrade")
	if up != "" {
		return l.connect2(req)
	}
	var sent sent2
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders:         func() { sent.head.Store(true) },
		GotFirstResponseByte: func() { sent.answered.Store(true) },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if got1xx == nil {
				return nil
			}
			return got1xx(code, header)
		},
	})
	out := request2(ctx, req)
	if req.Body != nil && req.Body != http.NoBody {
		out.Body = &sentBody{ReadCloser: req.Body, failed: &sent.body}
	}
	res, err := l.h2.RoundTrip(out)
	if err != nil {
		return nil, l.explain2(req, &sent, err)
	}
	res.Request = req
	if res.Body == nil || res.Body == http.NoBody {
		res.Body = http.NoBody
		l.freed()
		return res, nil
	}
	res.Body = &line2Body{ReadCloser: res.Body, line: l, sent: &sent}
	return res, nil
}

// request2 is req as HTTP/2 sends it, with the path as it came.
func request2(ctx context.Context, req *http.Request) *http.Request {
	out := new(http.Request).WithContext(ctx)
	out.Method, out.Host, out.ContentLength, out.Trailer = req.Method, req.Host, req.ContentLength, req.Trailer
	out.Header, out.Body = req.Header, req.Body
	scheme := req.Header.Get("X-Forwarded-Proto")
	if scheme != "http" {
		scheme = "https"
	}
	target := req.RequestURI
	if target == "" {
		target = req.URL.RequestURI()
	}
	// An opaque URL is written as it is, but for the scheme and host before it.
	out.URL = &url.URL{Scheme: scheme, Host: req.Host, Opaque: target}
	if strings.HasPrefix(target, "/") {
		out.URL.Opaque = "//" + req.Host + target
	}
	return out
}

// explain2 sorts the errors of x/net's HTTP/2.
func (l *Line) explain2(req *http.Request, sent *sent2, err error) error {
	var stream http2.StreamError
	switch p := sent.body.Load(); {
	case req.Context().Err() != nil:
		return req.Context().Err()
	case p != nil:
		return fmt.Errorf("%w: %w", proxy.ErrRequestBody, *p)
	case !sent.head.Load(),
		errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream, // RFC 9113, section 8.7
		strings.Contains(err.Error(), "graceful shutdown GOAWAY"):
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	case !sent.answered.Load() && proxy.Repeatable(req):
		err = fmt.Errorf("%w: %w: %w", proxy.ErrBadResponse, ErrUnanswered, err)
	default:
		err = fmt.Errorf("%w: %w", proxy.ErrBadResponse, err)
	}
	return l.explain(err)
}

// sentBody notes that reading a request's body failed, which is its sender's fault.
type sentBody struct {
	io.ReadCloser
	failed *atomic.Pointer[error]
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed.Store(&err)
	}
	return n, err
}

// line2Body tells the line's pools when its answer is over.
type line2Body struct {
	io.ReadCloser
	line   *Line
	sent   *sent2
	closed bool
}

func (b *line2Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		if failed := b.sent.body.Load(); failed != nil {
			err = fmt.Errorf("%w: %w", proxy.ErrRequestBody, *failed)
		}
		err = b.line.explain(err)
	}
	return n, err
}

func (b *line2Body) Close() error {
	err := b.ReadCloser.Close()
	if !b.closed {
		b.closed = true
		b.line.freed()
	}
	return err
}

// connect2 opens a WebSocket by extended CONNECT (RFC 8441), which is an upgrade of
// HTTP/1.1 for whoever asks.
func (l *Line) connect2(req *http.Request) (*http.Response, error) {
	if !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") || l.isPlain() {
		return nil, ErrNoUpgrade
	}
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
		if strings.Contains(err.Error(), "extended connect not supported") {
			l.setPlain()
			return nil, ErrNoUpgrade
		}
		return nil, l.explain(fmt.Errorf("%w: %w", proxy.ErrBadResponse, err))
	}
	if res.StatusCode != http.StatusOK {
		w.CloseWithError(io.ErrClosedPipe)
		res.Body = &cancelBody{ReadCloser: res.Body, cancel: cancel, line: l}
		return res, nil
	}
	sum := sha1.Sum([]byte(key + webSocketGUID))
	res.Status, res.StatusCode = "101 Switching Protocols", http.StatusSwitchingProtocols
	res.Proto, res.ProtoMajor, res.ProtoMinor = "HTTP/1.1", 1, 1
	res.Header["Connection"], res.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	res.Header["Sec-Websocket-Accept"] = []string{base64.StdEncoding.EncodeToString(sum[:])}
	res.Body = &stream2{ReadCloser: res.Body, w: w, cancel: cancel, line: l}
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

// cancelBody ends its request with it.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	line   *Line
}

func (b *cancelBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
	b.line.freed()
	return err
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

// Reset ends the stream so that the origin sees an error: RST_STREAM.
func (s *stream2) Reset() error {
	s.w.CloseWithError(errors.New("aborted"))
	s.cancel()
	return s.Close()
}

func (s *stream2) Close() error {
	s.w.Close()
	err := s.ReadCloser.Close()
	s.cancel()
	if !s.closed.Swap(true) {
		s.line.freed()
	}
	return err
}
