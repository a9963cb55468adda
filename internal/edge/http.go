// Package edge is the public side: it takes visitors' requests, finds the route
// by the host name, and passes each on to the route's client. What is rewritten
// on the way is rewritten here, so that a client may pass bytes on unseen.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/upstream"
	"github.com/revtun/tunnel/pkg/mux"
	"github.com/revtun/tunnel/pkg/protocol"
)

// HTTP is the handler of everything that arrives on the public HTTP listener.
type HTTP struct {
	Registry registry.Registry
	// Own answers requests to the server's own host.
	Own http.Handler
	// Domain is the parent of the public names, NAME.Domain: a host name in lower
	// case, international labels as A-labels.
	Domain string
	// PathNames makes each name a path on the server's own host, too: /NAME/.
	PathNames bool
	// Public is where visitors find the server when it sits behind another proxy;
	// its host is the server's own too. Nil: visitors come straight to it.
	Public *url.URL
	// Trusted are the proxies whose X-Forwarded-* fields are believed.
	Trusted []netip.Prefix
	// Park is how long a request waits for a client that dropped and may be
	// reconnecting. 0: not at all.
	Park time.Duration
	// MaxURI and MaxHeader bound the request target and the header section, in
	// bytes; a field counts as name + value + 4. 0: no bound but the parser's.
	MaxURI, MaxHeader int
	// Logins limits the wrong passwords of visitors. Nil: nothing does.
	Logins *auth.Throttle
	// Gate refuses requests where the server's memory is full. Nil: none.
	Gate *Gate
	// Secure says what is different where the server has TLS itself. Nil: it has none.
	Secure *Secure
	// Log gets one line a request at debug level, and why requests failed. Nil
	// discards.
	Log *slog.Logger
}

// notSentRetry is how long a request waits before it looks again for a route
// whose session has just ended, until the registry has heard of it.
const notSentRetry = 5 * time.Millisecond

// lostPark is how long a request waits for the client after it was lost with its
// session, as whoever called waits already (R4), or where the client was silent for
// long before it was given up (R9). It is less than Park by default.
const lostPark = time.Second

func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer inVain(r)
	v := h.visit(r)
	if h.Log != nil && h.Log.Enabled(r.Context(), slog.LevelDebug) {
		t := &proxy.Tally{ResponseWriter: w}
		defer h.logAccess(t, r, v, time.Now())
		w = t
	}
	if code := h.refuse(r, v); code != "" {
		h.fail(w, r, code)
		return
	}
	if h.challenged(r) {
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, v) })
		h.Secure.Challenges(next).ServeHTTP(w, r)
		return
	}
	h.serve(w, r, v)
}

// serve answers a request that is one.
func (h *HTTP) serve(w http.ResponseWriter, r *http.Request, v *visit) {
	greeted, own, ok := h.resolve(r.Context(), v.host)
	name, bare := greeted, false
	if own && h.PathNames {
		name, bare = byPath(v)
	}
	switch {
	case !ok, h.misdirected(r, v, greeted, own):
		h.fail(w, r, protocol.WrongHost)
	case h.plain(r, v, name, own):
		h.redirect(w, r, v, name, own)
	case own && name == "":
		h.announce(w.Header(), r)
		h.Own.ServeHTTP(w, r)
	case bare && h.claimed(r.Context(), name):
		redirectBare(w, v)
	case v.prefix != "" && climbs(v.target):
		h.fail(w, r, protocol.BadRequest)
	case h.Gate.full():
		h.shed(w, r)
	default:
		h.serveRoute(w, r, v, name)
	}
}

// refuse checks what every request must keep to.
func (h *HTTP) refuse(r *http.Request, v *visit) protocol.Code {
	hosts := r.Header["Host"] // of HTTP/2, beside :authority
	switch {
	case h.MaxURI > 0 && len(r.RequestURI) > h.MaxURI:
		return protocol.URITooLong
	case h.MaxHeader > 0 && headerSize(r) > h.MaxHeader:
		return protocol.HeadersTooLarge
	case r.Method == http.MethodConnect, v.target == "":
		// They would make the tunnel a proxy to wherever the visitor likes (S2, S18).
		return protocol.BadRequest
	case r.Method == "PRI" && v.target == "*":
		return protocol.BadRequest // an HTTP/2 preface that is broken: net/http lets it through
	case len(hosts) > 1, len(hosts) == 1 && hosts[0] != r.Host:
		return protocol.BadRequest // RFC 9113, section 8.3.1
	case r.URL.Host != "" && r.URL.Host != r.Host:
		return protocol.WrongHost
	}
	return ""
}

// headerSize is what R25 counts. Each announced trailer becomes a field.
func headerSize(r *http.Request) int {
	size := len("Host") + len(r.Host) + 4
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	for name := range r.Trailer {
		size += len("Trailer") + len(name) + 4
	}
	return size
}

// serveRoute passes the request on, and waits at most Park in all for a client
// that is away. A request that was lost with its session is sent once more where
// nobody can tell (R5): by another session of the client, which it waits for no
// longer than lostPark.
func (h *HTTP) serveRoute(w http.ResponseWriter, r *http.Request, v *visit, name string) {
	ctx := r.Context()
	v.target, v.token = cutToken(v.target) // whoever has it may visit, so no app sees it
	var lost error                         // of a request that was sent once
	var parked *time.Timer
	var since time.Time
	limit := h.Park
	for {
		route, err := h.Registry.Lookup(ctx, name)
		if err == nil {
			if h.stops(w, r, v, route) {
				return
			}
			err = h.forward(w, r, v, route)
			if err == nil {
				return
			}
		}
		again := h.again(ctx, err, route, lost != nil)
		var offline *registry.OfflineError
		switch {
		case lost == nil && wasLost(err):
			limit, lost = min(limit, lostPark), err
		case errors.As(err, &offline) && offline.Silent:
			limit = min(limit, lostPark)
		}
		if again == nil {
			h.answer(w, r, name, cmp.Or(lost, err))
			return
		}
		if parked == nil {
			parked, since = time.NewTimer(limit), time.Now()
			defer parked.Stop()
		} else {
			parked.Reset(limit - time.Since(since))
		}
		select {
		case <-again:
			continue // also where no time to wait is left
		default:
		}
		select {
		case <-again:
		case <-parked.C:
			h.answer(w, r, name, cmp.Or(lost, err))
			return
		case <-ctx.Done():
			panic(http.ErrAbortHandler) // nobody is left to be answered
		}
	}
}

// again says when it is worth to look up once more what failed with err, by way
// of route if there was one, or nil: not. lost says that the request was sent once.
func (h *HTTP) again(ctx context.Context, err error, route *registry.Route, lost bool) <-chan struct{} {
	var offline *registry.OfflineError
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.As(err, &offline) && h.Park > 0:
		return offline.Changed
	case wasLost(err) && !lost, errors.Is(err, upstream.ErrNotSent):
		now, err := h.Registry.Lookup(ctx, route.Name)
		switch {
		case err == nil && now != route:
			return at(0)
		case h.Park > 0:
			return at(notSentRetry)
		}
	}
	return nil
}

// wasLost reports whether err is of a request that was lost with its session and
// may be sent again: nobody can tell.
func wasLost(err error) bool {
	return errors.Is(err, upstream.ErrSessionLost) && errors.Is(err, upstream.ErrUnanswered)
}

// at returns a channel that is closed after d.
func at(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	if d == 0 {
		close(c)
	} else {
		time.AfterFunc(d, func() { close(c) })
	}
	return c
}

// forward is hop 4 of a request: through route.HTTP, rewritten as the route
// asks. The error is one of nothing written.
func (h *HTTP) forward(w http.ResponseWriter, r *http.Request, v *visit, route *registry.Route) error {
	if route.HTTP == nil {
		return registry.ErrUnknown
	}
	conn := lingerOf(r)
	cutShort := false // an answer whose end is the connection's end
	err := proxy.Forward(w, r, route.HTTP, proxy.Options{
		NoInterim: v.preflight,
		Request: func(out *http.Request) {
			out.RequestURI = v.target
			v.policy = route.Policy
			setForwarded(out.Header, v)
			hideEntry(out.Header, route.Policy)
			if v.strip(out.Trailer); out.ContentLength < 0 {
				out.Body = &trailers{out.Body, v, out}
			}
			rewriteRequest(out, v, route.Policy)
			if route.Policy.NamesVisitor() {
				h.nameVisitor(out.Header, r, v)
			}
			editRequest(out.Header, route.Policy)
		},
		Response: func(res *http.Response) error {
			if codes := res.Header[protocol.HeaderError]; len(codes) > 0 {
				return &clientError{code: protocol.Code(codes[0])}
			}
			editResponse(res, route.Policy)
			stripCode(res)
			rewriteResponse(res, r, v, route.Policy)
			h.confineCookies(res.Header)
			if v.preflight {
				if err := answerPreflight(res); err != nil {
					return err
				}
			}
			if res.StatusCode >= 200 {
				h.announce(res.Header, r)
				unindex(res.Header, route.Policy)
			}
			if conn != nil && !r.ProtoAtLeast(1, 1) && res.ContentLength < 0 && res.StatusCode >= 200 {
				// Should this process be killed, the end must not look clean (R1).
				conn.SetLinger(0)
				cutShort = true
			}
			return nil
		},
		Abort: func(err error) {
			if conn != nil {
				conn.SetLinger(0)
			}
			level := slog.LevelInfo
			if r.Context().Err() != nil {
				level = slog.LevelDebug // it was the visitor who left
			}
			if errors.Is(err, mux.ErrOverBudget) {
				level = slog.LevelDebug // there are many, and the Gate tells of them
			}
			h.log().Log(r.Context(), level, "response cut off", "name", route.Name, "err", brief(err))
		},
	})
	if err == nil && cutShort {
		http.NewResponseController(w).Flush()
		conn.SetLinger(-1)
	}
	return err
}

// clientError is an answer that the client made, not the local app.
type clientError struct{ code protocol.Code }

func (e *clientError) Error() string { return fmt.Sprintf("client answered %q", e.code) }

// answer tells the visitor what went wrong.
func (h *HTTP) answer(w http.ResponseWriter, r *http.Request, name string, err error) {
	// The context alone may have ended as nobody wanted the rest of the body, see proxy.Forward.
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil && errors.Is(err, proxy.ErrRequestBody) {
		panic(http.ErrAbortHandler)
	}
	code := codeOf(err)
	level := slog.LevelInfo
	if code == protocol.NameUnknown || code == protocol.Ended {
		level = slog.LevelDebug // whoever scans for names would fill the log
	}
	h.log().Log(r.Context(), level, "request failed", "name", name, "code", string(code), "err", brief(err))
	h.fail(w, r, code)
}

// brief is err's text for the log. It may quote what a client sent, which has no
// other bound.
func brief(err error) string { return printable(fmt.Sprintf("%.300s", err.Error())) }

func codeOf(err error) protocol.Code {
	var offline *registry.OfflineError
	var client *clientError
	switch {
	case errors.Is(err, registry.ErrUnknown):
		return protocol.NameUnknown
	case errors.Is(err, registry.ErrEnded):
		return protocol.Ended
	case errors.As(err, &offline), errors.Is(err, upstream.ErrNotSent):
		return protocol.ClientOffline
	case errors.As(err, &client):
		switch client.code {
		case protocol.AppRefused, protocol.AppStarting, protocol.AppTimeout, protocol.AppBadResponse, protocol.Overloaded, protocol.BadRequest:
			return client.code
		}
		return protocol.AppBadResponse
	case errors.Is(err, upstream.ErrOverloaded):
		return protocol.Overloaded
	case errors.Is(err, upstream.ErrNoUpgrade):
		return protocol.NoUpgrade
	case errors.Is(err, upstream.ErrSessionLost):
		return protocol.SessionLost
	case errors.Is(err, proxy.ErrRequestBody), errors.Is(err, proxy.ErrInvalidRequest):
		return protocol.BadRequest
	case errors.Is(err, proxy.ErrHeaderTimeout):
		return protocol.AppTimeout
	}
	return protocol.AppBadResponse
}

func (h *HTTP) log() *slog.Logger {
	if h.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return h.Log
}
