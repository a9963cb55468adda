package upstream

//lint:file-ignore SA1019 net/http's ClientConn, which x/net recommends, can neither ping nor say GOAWAY, and refuses extended CONNECT.

import (
	"context"
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
	// writeTime is how long an origin may take nothing at all of what is to be written;
	// twice as long where it took a little at the beginning.
	writeTime = 30 * time.Second
	// lineWindow is how much of one answer may have arrived and not been read: the
	// first size of a stream's window (RFC 9113, section 6.9.2). The connection's own
	// window is as large as can be, or visitors that read slowly would stop the others.
	lineWindow = 512 << 10
	connWindow = 1 << 30
	// maxAnswerHeader bounds the header section of an answer, in bytes.
	maxAnswerHeader = 1 << 20
)

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
	t2.ConnPool = dying{l}
	t2.WriteByteTimeout = writeTime // not ReadIdleTimeout, whose timer keeps 14 kB of a connection that has ended: see look
	t2.CountError = func(what string) {
		if what == "recv_rststream_PROTOCOL_ERROR" {
			dying{l}.MarkDead(nil) // x/net sends nothing more after it
		}
	}
	if l.h2, err = t2.NewClientConn(l.conn); err != nil {
		return err
	}
	// x/net keeps all of a connection that was not used for 5 s after its end.
	if l.h2.ReserveNewRequest() {
		t2.RoundTrip(cancelled())
	}
	return l.h2.Ping(ctx)
}

// dying is told when the origin takes no more requests, and when its connection ends.
type dying struct{ line *Line }

func (d dying) MarkDead(*http2.ClientConn) { d.line.gone.Do(func() { close(d.line.going) }) }

func (d dying) GetClientConn(*http.Request, string) (*http2.ClientConn, error) {
	return d.line.h2, nil
}

// take2 reserves room for a request, if there is some. None of it waits for the
// origin, which State would where that reads nothing.
func (l *Line) take2() bool {
	if !l.h2.ReserveNewRequest() {
		return false
	}
	l.load.Add(1)
	return true
}

// over2 is the end of a request that had room.
func (l *Line) over2() {
	l.load.Add(-1)
	l.freed()
}

// sent2 is what is known of a request on its way.
type sent2 struct {
	head     atomic.Bool // its header section was written
	answered atomic.Bool // a byte of an answer came
	read     atomic.Bool // something of its body may have been read
	whole    atomic.Bool // all of it was
	stopped  atomic.Bool // nothing more of it is wanted
	failed   atomic.Pointer[error]
}

// trip2 sends req on a line that was taken. What httptrace tells of it decides whether
// it may be sent again.
func (l *Line) trip2(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	upgrades := req.Header.Get("Upgrade") != ""
	if err := valid2(req, upgrades); err != nil {
		l.untake2()
		return nil, err
	}
	if upgrades {
		return l.connect2(req)
	}
	var sent sent2
	early := interims{pass: got1xx}
	ctx, cancel := context.WithCancel(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders:         func() { sent.head.Store(true) },
		GotFirstResponseByte: func() { sent.answered.Store(true) },
		Got1xxResponse:       early.got,
	})
	out := request2(ctx, req)
	if req.Body != nil && req.Body != http.NoBody {
		out.Body = &sentBody{ReadCloser: req.Body, sent: &sent}
	}
	res, err := l.h2.RoundTrip(out)
	if err != nil {
		cancel()
		l.over2()
		return nil, l.explain2(req, &sent, err)
	}
	b := &line2Body{ReadCloser: res.Body, line: l, sent: &sent, cancel: cancel}
	err = early.end()
	if err == nil && res.StatusCode < 200 {
		err = fmt.Errorf("%w: status %d", proxy.ErrBadResponse, res.StatusCode)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	res.Request = req
	res.Body = b
	return res, nil
}

// valid2 reports why req can't be sent.
func valid2(req *http.Request, upgrades bool) error {
	err := proxy.Valid(req)
	switch {
	case err != nil:
	case req.Method == http.MethodConnect, upgrades && req.Method != http.MethodGet:
		err = fmt.Errorf("method %q", req.Method)
	case upgrades && req.Body != nil && req.Body != http.NoBody:
		err = errors.New("an upgrade with a body") // which would pass for what comes after it
	}
	if err != nil {
		return fmt.Errorf("%w: %w", proxy.ErrInvalidRequest, err)
	}
	return nil
}

// untake2 gives the room back that no request used.
func (l *Line) untake2() {
	l.nudge()
	l.over2()
}

// nudge has x/net look at what waits on the connection, and at those requests whose
// context has ended: a request that was cancelled before it began does that, and also
// takes up a reservation.
func (l *Line) nudge() { l.h2.RoundTrip(cancelled()) }

// cancelled is a request of which nothing is sent.
func cancelled() *http.Request {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	none := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: "none.invalid", Path: "/"}}
	return none.WithContext(ctx)
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

// x/net's errors that tell that a request was not processed, which it does not export.
const (
	errGoAway2   = "http2: Transport received Server's graceful shutdown GOAWAY"
	errTooLarge2 = "http2: request header list larger than peer's advertised limit"
)

// explain2 sorts the errors of x/net's HTTP/2. A request of whose body something was
// read can't be sent again.
func (l *Line) explain2(req *http.Request, sent *sent2, err error) error {
	var stream http2.StreamError
	switch p := sent.failed.Load(); {
	case req.Context().Err() != nil:
		return req.Context().Err()
	case p != nil:
		return fmt.Errorf("%w: %w", proxy.ErrRequestBody, *p)
	case !sent.head.Load() && err.Error() == errTooLarge2:
		return fmt.Errorf("%w: the origin takes no header as large as this: %w", proxy.ErrInvalidRequest, err)
	case sent.read.Load():
		err = fmt.Errorf("%w: %w", proxy.ErrBadResponse, err)
	case !sent.head.Load(), err.Error() == errGoAway2,
		errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream && !sent.answered.Load(): // RFC 9113, section 8.7
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	case !sent.answered.Load() && proxy.Repeatable(req):
		err = fmt.Errorf("%w: %w: %w", proxy.ErrBadResponse, ErrUnanswered, err)
	default:
		err = fmt.Errorf("%w: %w", proxy.ErrBadResponse, err)
	}
	return l.explain(err)
}

// sentBody notes what becomes of a request's body: that reading it failed is its
// sender's fault, unless nobody wanted it any more.
type sentBody struct {
	io.ReadCloser
	sent *sent2
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.sent.read.Store(true)
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.sent.whole.Store(true)
	case err != nil && !b.sent.stopped.Load():
		b.sent.failed.Store(&err)
	}
	return n, err
}

func (b *sentBody) Close() error {
	b.sent.stopped.Store(true)
	return b.ReadCloser.Close()
}

// line2Body tells the line's pools when its answer is over.
type line2Body struct {
	io.ReadCloser
	line   *Line
	sent   *sent2
	cancel context.CancelFunc
	closed atomic.Bool
}

func (b *line2Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		if failed := b.sent.failed.Load(); failed != nil {
			err = fmt.Errorf("%w: %w", proxy.ErrRequestBody, *failed)
		}
		err = b.line.explain(err)
	}
	return n, err
}

func (b *line2Body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	err := b.ReadCloser.Close()
	b.cancel()
	if b.sent.read.Load() && !b.sent.whole.Load() {
		// Where the answer had no body, the upload may wait for a window still.
		b.line.h2.ReserveNewRequest()
		b.line.nudge()
	}
	b.line.over2()
	return err
}
