// Package proxy passes one HTTP request on and its answer back, and changes
// nothing that it is not told to change: [Forward] is the handler's half,
// [Transport] the half that sends. The server runs it between a visitor and a
// stream, the client between a stream and the local app.
//
// It exists beside net/http/httputil because a tunnel is judged by what a
// reverse proxy is allowed to lose: request lines as they came, 1xx answers,
// trailers in both directions, full duplex, half-closed upgrades, and above all
// the difference between an end and an abort.
//
// What net/http's server does not tell or take is lost all the same: the order
// of fields of different names, the case of names, reason phrases, Content-Type
// and Content-Length of a 304; to "Pragma: no-cache" it adds a Cache-Control. It
// hands a chunk of a request on when it is complete. On HTTP/2 it asks for the
// body itself where Expect is sent, and takes only announced trailers.
package proxy

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// Options are what Forward may change on the way.
type Options struct {
	// Request may change the request before it is sent: its header section is
	// without hop-by-hop fields and is Request's own. Nil: unchanged.
	Request func(out *http.Request)
	// Response may change the response before it is passed on. An error ends the
	// exchange and is Forward's. It is called for 1xx too. Nil: unchanged.
	Response func(res *http.Response) error
	// Abort is called before an answer that was begun is cut off. May be nil.
	Abort func(err error)
}

// hopByHop are the fields of one connection: RFC 9110, section 7.6.1, and what
// older software adds.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// Forward sends r by rt and passes the answer on to w, flushed as it comes. The
// request is r's context's to cancel. w's header must be empty.
//
// It returns an error only where no answer was written to w but interim ones, so
// that the caller can answer; after an ErrNotSent it may be called again. Where
// the answer was begun and can't be completed it panics with
// http.ErrAbortHandler, which makes net/http cut the connection: a body that was
// cut off never looks complete.
//
// An HTTP/1 connection is closed after an answer that begins before its request
// has ended, since nobody can tell then where the next request would start.
func Forward(w http.ResponseWriter, r *http.Request, rt http.RoundTripper, o Options) error {
	f := &forwarding{w: w, r: r, rc: http.NewResponseController(w), o: o}
	if r.ProtoMajor == 1 {
		f.rc.EnableFullDuplex() // an error is of a ResponseWriter that is not net/http's
		delete(w.Header(), "Connection")
	}
	out := f.request()
	if f.src != nil {
		defer f.src.release()
		defer f.cancel()
		defer context.AfterFunc(r.Context(), func() {
			if !f.src.wasWoken() {
				f.cancel() // the visitor has gone
			}
		})()
	}
	res, err := rt.RoundTrip(out)
	f.endInterim()
	if err != nil {
		return f.fail(err)
	}
	if err = settle(res); err == nil {
		err = f.edit(res)
	}
	if err != nil {
		res.Body.Close()
		return f.fail(err)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return switchProtocols(w, res)
	}
	defer res.Body.Close()
	f.answer(res)
	return nil
}

type forwarding struct {
	w   http.ResponseWriter
	r   *http.Request
	rc  *http.ResponseController
	o   Options
	src *source // nil: no body
	// cancel ends the context of a request with a body, which is not r's: that one
	// ends, too, when src wakes a read.
	cancel context.CancelFunc

	interim   sync.Mutex // guards the following fields, and w until answered
	answered  bool
	continued bool // 100 (Continue) was sent
}

// fail leaves the answer to the caller.
func (f *forwarding) fail(err error) error {
	if f.unread() {
		f.w.Header()["Connection"] = []string{"close"}
	}
	return err
}

// unread reports whether the request's body, or a part of it, may still be on
// the visitor's HTTP/1 connection.
func (f *forwarding) unread() bool {
	return f.src != nil && f.r.ProtoMajor == 1 && !f.src.ended.Load()
}

// request makes the request that goes out.
func (f *forwarding) request() *http.Request {
	r := f.r
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: f.got1xx})
	out := new(http.Request).WithContext(ctx)
	out.Method, out.URL, out.RequestURI = r.Method, r.URL, r.RequestURI
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/1.1", 1, 1
	out.Host, out.ContentLength, out.Trailer = r.Host, r.ContentLength, r.Trailer
	out.RemoteAddr = r.RemoteAddr
	out.Header = r.Header.Clone()
	removeHopByHop(out.Header)
	if httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers") {
		out.Header.Set("Te", "trailers") // gRPC asks for it (RFC 9110, section 10.1.4)
	}
	if up := upgradeOf(r); up != "" {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", up)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // or http.Transport adds its own
	}
	// An HTTP/2 request always has a Body, but with length 0 nothing comes.
	if hasBody(r) && r.ContentLength != 0 {
		ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		out = out.WithContext(ctx)
		f.src = &source{f: f, out: out}
		out.Body = f.src
	}
	if f.o.Request != nil {
		f.o.Request(out)
	}
	return out
}

func removeHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// edit removes the response's hop-by-hop fields and lets the caller change it.
func (f *forwarding) edit(res *http.Response) error {
	up := res.Header["Upgrade"]
	removeHopByHop(res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Header["Connection"] = []string{"Upgrade"}
		res.Header["Upgrade"] = up
	}
	if f.o.Response != nil {
		return f.o.Response(res)
	}
	return nil
}

// got1xx passes an interim response on (RFC 9110, section 15.2). HTTP/1.0 knows
// none; 100 (Continue) is for accept to send.
func (f *forwarding) got1xx(code int, header textproto.MIMEHeader) error {
	f.interim.Lock()
	defer f.interim.Unlock()
	if f.answered || code == http.StatusContinue || !f.r.ProtoAtLeast(1, 1) {
		return nil
	}
	res := &http.Response{StatusCode: code, Header: http.Header(header)}
	if err := f.edit(res); err != nil {
		return err
	}
	h := f.w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	f.w.WriteHeader(code)
	clear(h) // they belong to the interim response alone
	return nil
}

// accept sends 100 (Continue) to a visitor that waits for it, before the body is
// read. net/http would send it in the read, maybe amid another interim response.
func (f *forwarding) accept() {
	if f.r.ProtoMajor != 1 || !f.r.ProtoAtLeast(1, 1) ||
		!httpguts.HeaderValuesContainsToken(f.r.Header["Expect"], "100-continue") {
		return
	}
	f.interim.Lock()
	defer f.interim.Unlock()
	if !f.answered && !f.continued {
		f.continued = true
		f.w.WriteHeader(http.StatusContinue)
	}
}

// endInterim makes w the handler's own: a transport may call got1xx late, from
// another goroutine.
func (f *forwarding) endInterim() {
	f.interim.Lock()
	f.answered = true
	f.interim.Unlock()
}
