package rig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// A Verdict is how a request ended: each ends as exactly one.
type Verdict string

// The first three are allowed; of the others there must be none.
const (
	Full     Verdict = "full"          // all came, compared byte for byte
	Failed   Verdict = "visible error" // reset, unexpected end, an error status of gRPC
	Rejected Verdict = "refused"       // 4xx or 5xx: Status, and the tunnel's code in Code

	Truncated  Verdict = "truncated unseen" // a clean 2xx that is short or wrong; or a clean request body at the app
	Hung       Verdict = "hung"             // nothing came for the visitor's Limit
	Lost       Verdict = "lost"             // Full for the visitor, but the app never ran it or did not get its body
	Duplicated Verdict = "duplicated"       // ran more than once, and must not
	CrossTalk  Verdict = "cross-talk"       // another id's answer
)

// Allowed reports whether v may happen.
func (v Verdict) Allowed() bool { return v == Full || v == Failed || v == Rejected }

// A Result is how an ask ended.
type Result struct {
	Ask     Ask
	Verdict Verdict
	Status  int    // of HTTP, 0: none came
	Code    string // Tunnel-Error, or gRPC's code
	Err     error  // why it is not Full
	Got     int64  // bytes of the answer's body
	Began   time.Time
	Took    time.Duration
}

// String is the outcome in one line.
func (o *Result) String() string {
	return fmt.Sprintf("%s (%s): %s, status %d %s, %d bytes of %d, %v after %v: %v",
		o.Ask.ID, o.Ask.Kind, o.Verdict, o.Status, o.Code, o.Got, o.Ask.Size, o.Began.Format("15:04:05.000"), o.Took.Round(time.Millisecond), o.Err)
}

func (o *Result) end(v Verdict, err error) error {
	o.Verdict = v
	return err
}

// wrong judges a body that ended cleanly and is not the ask's.
func (o *Result) wrong(got []byte, err error) error {
	if foreign(got, o.Ask.ID) {
		return o.end(CrossTalk, fmt.Errorf("%w: it begins with %q", err, got[:min(len(got), 40)]))
	}
	return o.end(Truncated, err)
}

// foreign reports whether a body is one of the rig's, and not id's.
func foreign(body []byte, id string) bool {
	rest, ok := strings.CutPrefix(string(body[:min(len(body), 200)]), "rig ")
	whose, _, whole := strings.Cut(rest, "\n")
	return ok && whole && whose != id && !strings.HasPrefix(whose, id+".")
}

// A Visitor calls a public URL and judges what comes. Its methods may be called from many goroutines.
type Visitor struct {
	Addr string // HOST:PORT to connect to
	Host string // of the URL, as app.localhost
	// Limit is how long nothing may come; 0 is 60 s: a lost peer is noticed within 45 s, and a
	// request waits 10 s for a client.
	Limit time.Duration
	// Fresh opens a connection for each request: then none is repeated by the visitor's own library.
	Fresh bool
	// H2 speaks HTTP/2. gRPC always does; WebSocket and HTTP10 never.
	H2 bool
	// TLS is what the visitor asks of the server's certificate. Nil: no TLS.
	TLS *tls.Config
	// H3 speaks HTTP/3, with TLS.
	H3 bool
	// Version10 asks as HTTP/1.0, for kinds without a body.
	Version10 bool

	mu   sync.Mutex
	web  *http.Transport  // guarded by mu
	h3   *http3.Transport // guarded by mu
	udp  *echoes          // guarded by mu
	grpc *grpc.ClientConn // guarded by mu
}

// Close closes the connections that are kept.
func (v *Visitor) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.web != nil {
		v.web.CloseIdleConnections()
		v.web = nil
	}
	if v.grpc != nil {
		v.grpc.Close()
		v.grpc = nil
	}
	if v.h3 != nil {
		v.h3.Close()
		v.h3 = nil
	}
	if v.udp != nil {
		v.udp.conn.Close()
		v.udp = nil
	}
}

func (v *Visitor) scheme() string {
	if v.TLS != nil {
		return "https"
	}
	return "http"
}

func (v *Visitor) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", v.Addr)
}

func (v *Visitor) transport() *http.Transport {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.web == nil {
		v.web = &http.Transport{DialContext: v.dial, DisableCompression: true, DisableKeepAlives: v.Fresh && !v.H2, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}
		v.web.Protocols = new(http.Protocols)
		v.web.Protocols.SetHTTP1(!v.H2)
		v.web.Protocols.SetUnencryptedHTTP2(v.H2 && v.TLS == nil)
		v.web.Protocols.SetHTTP2(v.H2 && v.TLS != nil)
		v.web.TLSClientConfig = v.TLS.Clone()
	}
	return v.web
}

// quic is what a request over HTTP/3 goes by, and what is to be called after it. A server that was
// killed tells nobody: the connection is given up when it was silent.
func (v *Visitor) quic() (tr *http3.Transport, done func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.h3 != nil {
		return v.h3, func() {}
	}
	tr = &http3.Transport{
		TLSClientConfig: v.TLS.Clone(), DisableCompression: true,
		QUICConfig: &quic.Config{MaxIdleTimeout: H3Idle, KeepAlivePeriod: H3Idle / 5},
		Dial: func(ctx context.Context, _ string, t *tls.Config, c *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, v.Addr, t, c)
		},
	}
	if v.Fresh {
		return tr, func() { tr.Close() }
	}
	v.h3 = tr
	return tr, func() {}
}

// H3Idle is after how long a visitor takes a silent connection of HTTP/3 for lost.
const H3Idle = 5 * time.Second

func (v *Visitor) credentials() credentials.TransportCredentials {
	if v.TLS != nil {
		return credentials.NewTLS(v.TLS.Clone())
	}
	return insecure.NewCredentials()
}

func (v *Visitor) grpcConn() (*grpc.ClientConn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.grpc == nil {
		var err error
		v.grpc, err = grpc.NewClient("passthrough:///"+v.Host,
			grpc.WithTransportCredentials(v.credentials()), grpc.WithDisableRetry(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return v.dial(ctx, "", "") }),
			// A fault must not stop the load for longer than it lasts.
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(grpcLimit)))
		if err != nil {
			return nil, err
		}
	}
	return v.grpc, nil
}

// errHung is the cause of a context that ended as nothing came.
var errHung = errors.New("nothing came for the limit")

// Do asks, and judges. Where ctx ends first the verdict is Failed.
func (v *Visitor) Do(ctx context.Context, a Ask) Result {
	o := Result{Ask: a, Verdict: Failed, Began: time.Now()}
	limit := v.Limit
	if limit == 0 {
		limit = time.Minute
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(limit, func() { cancel(errHung) })
	defer watch.Stop()
	alive := func() { watch.Reset(limit) }

	switch a.Kind {
	case Unary, Stream:
		o.Err = v.call(ctx, &o, alive)
	case WebSocket:
		o.Err = v.talk(ctx, &o, alive)
	case Raw:
		o.Err = v.raw(ctx, &o, alive)
	case Datagrams:
		o.Err = v.datagrams(ctx, &o, alive)
	default:
		o.Err = v.request(ctx, &o, alive)
	}
	if context.Cause(ctx) == errHung && o.Verdict == Failed {
		o.Verdict = Hung
	}
	o.Took = time.Since(o.Began)
	return o
}

// request is for the kinds that are one HTTP request.
func (v *Visitor) request(ctx context.Context, o *Result, alive func()) error {
	r, err := v.newRequest(ctx, o.Ask, alive)
	if err != nil {
		return err
	}
	var res *http.Response
	if v.H3 {
		tr, done := v.quic()
		defer done()
		res, err = tr.RoundTrip(r)
	} else if v.Version10 || o.Ask.Kind == HTTP10 && !v.H2 {
		var done func()
		res, done, err = v.send10(ctx, r)
		defer done()
	} else {
		res, err = v.transport().RoundTrip(r)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	alive()
	return o.judge(res, alive)
}

func (v *Visitor) newRequest(ctx context.Context, a Ask, alive func()) (*http.Request, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if a.Kind == Post {
		method, body = http.MethodPost, &paced{from: Body(a.ID, a.Size), piece: a.Size/int64(a.pieces()) + 1, pause: a.Pause, alive: alive}
	}
	r, err := http.NewRequestWithContext(ctx, method, v.scheme()+"://"+v.Host+a.Path(), body)
	if err != nil {
		return nil, err
	}
	if a.Kind == Post {
		r.Header.Set(HeaderSize, fmt.Sprint(a.Size))
		r.Header.Set(HeaderSum, Sum(a.ID, a.Size))
		r.ContentLength = a.Size
		if a.Unsized {
			r.ContentLength = -1
		}
	}
	return r, nil
}

// send10 sends r as HTTP/1.0 over a connection of its own.
func (v *Visitor) send10(ctx context.Context, r *http.Request) (*http.Response, func(), error) {
	c, err := v.dial(ctx, "", "")
	if err != nil {
		return nil, func() {}, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	done := func() { stop(); c.Close() }
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", r.URL.RequestURI(), r.URL.Host); err != nil {
		return nil, done, err
	}
	res, err := readResponse(c, r)
	return res, done, err
}

// A paced reader gives a body in pieces.
type paced struct {
	from   io.Reader
	piece  int64
	pause  time.Duration
	alive  func()
	passed int64
}

func (p *paced) Read(b []byte) (int, error) {
	if p.passed == p.piece {
		time.Sleep(p.pause)
		p.passed = 0
	}
	p.alive()
	n, err := p.from.Read(b[:min(int64(len(b)), p.piece-p.passed)])
	p.passed += int64(n)
	return n, err
}
