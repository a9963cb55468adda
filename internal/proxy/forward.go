// Package proxy passes one HTTP request on and its answer back, and changes
// nothing that it is not told to change: [Forward] is the handler's half,
// [Transport] the half that sends. The server runs it between a visitor and a
// stream, the client between a stream and the local app. [Server] is the
// client's front, on a stream: it needs less than net/http's, as it is the tunnel
// server that speaks to it.
//
// It exists beside net/http/httputil because a tunnel is judged by what a
// reverse proxy is allowed to lose: request lines as they came, 1xx answers,
// trailers in both directions, full duplex, half-closed upgrades, and above all
// the difference between an end and an abort.
//
// What net/http's server, which is the edge's, does not tell or take is lost all
// the same: the order
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
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// Options are what Forward may change on the way.
type Options struct {
	// Request may change the request before it is sent. Its header section is
	// without hop-by-hop fields and Request's own, but the slices of values in it
	// are not: they may be replaced. Nil: unchanged.
	Request func(out *http.Request)
	// Owned says that the request's header section is nobody else's: it is changed
	// instead of copied, and does for one Forward only.
	Owned bool
	// Response may change the response before it is passed on. An error ends the
	// exchange and is Forward's. It is called for 1xx too. Nil: unchanged.
	Response func(res *http.Response) error
	// NoInterim keeps 1xx responses from w.
	NoInterim bool
	// Abort is called before an answer that was begun is cut off. May be nil.
	Abort func(err error)
}

// hopByHop reports whether a field is of one connection: RFC 9110, section 7.6.1,
// and what older software adds.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
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
	f := &forwarding{w: w, r: r, rc: *http.NewResponseController(w), o: o}
	if r.ProtoMajor == 1 {
		f.rc.EnableFullDuplex() // an error is of a ResponseWriter that is not net/http's
		delete(w.Header(), "Connection")
	}
	direct, ok := rt.(interimTripper)
	out := f.request(!ok)
	if f.src != nil {
		defer f.src.release()
		defer f.cancel()
		defer context.AfterFunc(r.Context(), func() {
			if !f.src.wasWoken() {
				f.cancel() // the visitor has gone
			}
		})()
	}
	var res *http.Response
	var err error
	if ok {
		res, err = direct.RoundTripInterim(out, f.got1xx)
	} else {
		res, err = rt.RoundTrip(out)
	}
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

// interimTripper is a RoundTripper that is told where 1xx responses go, as
// [Transport] is. Others need an httptrace, which costs each request a context.
type interimTripper interface {
	RoundTripInterim(req *http.Request, got1xx func(code int, header textproto.MIMEHeader) error) (*http.Response, error)
}

type forwarding struct {
	w   http.ResponseWriter
	r   *http.Request
	rc  http.ResponseController
	o   Options
	src *source // nil: no body
	// expects reports whether the visitor waits for 100 (Continue).
	expects bool
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
func (f *forwarding) request(traced bool) *http.Request {
	r := f.r
	ctx := r.Context()
	if traced {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: f.got1xx})
	}
	// An HTTP/2 request always has a Body, but with length 0 nothing comes.
	body := hasBody(r) && r.ContentLength != 0
	if body {
		ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		f.expects = httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue")
	}
	out := new(http.Request).WithContext(ctx)
	out.Method, out.URL, out.RequestURI = r.Method, r.URL, r.RequestURI
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/1.1", 1, 1
	out.Host, out.ContentLength, out.Trailer = r.Host, r.ContentLength, r.Trailer
	out.RemoteAddr = r.RemoteAddr
	out.Header = endToEnd(r, f.o.Owned)
	if body {
		f.src = &source{f: f, out: out}
		out.Body = f.src
	}
	if f.o.Request != nil {
		f.o.Request(out)
	}
	return out
}

// endToEnd returns the fields of r that are passed on. The values are r's, and
// where owned the map is, too.
func endToEnd(r *http.Request, owned bool) http.Header {
	trailers := httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers")
	up, named := upgradeOf(r), r.Header["Connection"]
	h := r.Header
	if owned {
		removeHopByHop(h)
	} else {
		h = make(http.Header, len(r.Header)+3) // the edge adds as many
		for name, values := range r.Header {
			if !hopByHop(name) {
				h[name] = slices.Clip(values)
			}
		}
	}
	removeNamed(h, named)
	if trailers {
		h.Set("Te", "trailers") // gRPC asks for it (RFC 9110, section 10.1.4)
	}
	if up != "" {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", up)
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or http.Transport adds its own
	}
	return h
}

func removeHopByHop(h http.Header) {
	for name := range h {
		if hopByHop(name) {
			delete(h, name)
		}
	}
}

// removeNamed removes the fields that a Connection field names.
func removeNamed(h http.Header, connection []string) {
	for _, v := range connection {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
}

// edit removes the response's hop-by-hop fields and lets the caller change it.
func (f *forwarding) edit(res *http.Response) error {
	up := res.Header["Upgrade"]
	removeNamed(res.Header, res.Header["Connection"])
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
	if f.answered || code == http.StatusContinue || f.o.NoInterim || !f.r.ProtoAtLeast(1, 1) {
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
	if f.r.ProtoMajor != 1 || !f.r.ProtoAtLeast(1, 1) || !f.expects {
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
