package edge

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// maxTokens is how many tokens of one request are looked at: a page of a neighbouring
// host can set cookies that look like ours.
const maxTokens = 4

// errRefused is of a visitor whose address is not let in.
var errRefused = errors.New("its address is not let in")

// levelOf is for the log's line of a connection that failed: one that was refused comes
// as often as it likes.
func levelOf(err error) slog.Level {
	if errors.Is(err, errRefused) {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// stops is hop 3 of a request: it answers one that is not for the local app, because its
// visitor may not visit, or is sent on, and reports whether it did.
func (h *HTTP) stops(w http.ResponseWriter, r *http.Request, v *visit, route *registry.Route) bool {
	p := route.Policy
	v.preflight = false // the name may be another's by now
	if !p.Shares() {
		return false
	}
	from := h.Visitor(r)
	path, _, _ := strings.Cut(v.target, "?")
	switch {
	case !p.Admits(from):
		h.fail(w, r, protocol.VisitorRefused)
		return true
	case p.NoIndex() && path == "/robots.txt" && reads(r):
		h.answerRobots(w, r)
		return true
	case !p.ByPassword() && !p.ByLink():
		return false
	}
	return h.keepsOut(w, r, v, route, from)
}

// keepsOut is the part of stops that asks for a link or a password.
func (h *HTTP) keepsOut(w http.ResponseWriter, r *http.Request, v *visit, route *registry.Route, from netip.Addr) bool {
	p := route.Policy
	asked, shown := errNoToken, errNoToken
	if p.ByLink() {
		var expires time.Time
		if expires, asked = byLink(p, v.token); asked == nil {
			return h.enter(w, r, v, expires)
		}
		if shown = shows(r, p); shown == nil {
			return false
		}
	}
	code, wait := protocol.LinkRequired, time.Duration(0)
	if p.ByPassword() {
		var ok bool
		if ok, wait = h.byPassword(r, route.Name, p, from); ok {
			return false
		}
		code = protocol.LoginRequired
	}
	if isPreflight(r) {
		v.preflight = true
		return false
	}
	switch {
	case wait > 0:
		code = protocol.LoginThrottled
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	case errors.Is(asked, protocol.ErrLinkExpired), errors.Is(shown, protocol.ErrLinkExpired) && !p.ByPassword():
		code = protocol.LinkExpired
	case p.ByPassword():
		w.Header().Set("WWW-Authenticate", `Basic realm="`+route.Name+`", charset="UTF-8"`)
	}
	h.fail(w, r, code)
	return true
}

// reads reports whether r does no more than that, and has no body.
func reads(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength <= 0 && r.TransferEncoding == nil
}

// isPreflight reports whether a browser asks whether a page may ask (Fetch, section
// 3.3.5): it never sends a password or cookie with that, nor a body, nor asks for another
// protocol.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" &&
		r.ContentLength == 0 && r.TransferEncoding == nil && r.Header["Upgrade"] == nil
}

// answerPreflight leaves of the app's answer what a browser needs to know whether a page
// may ask: anybody can ask in the words of a browser, and gets no more of the app.
func answerPreflight(res *http.Response) error {
	if res.StatusCode < 200 {
		return &clientError{code: protocol.AppBadResponse}
	}
	for name := range res.Header {
		if name != "Vary" && name != "Allow" && !strings.HasPrefix(name, "Access-Control-") {
			delete(res.Header, name)
		}
	}
	res.Body.Close() // the rest may have no end
	res.Body, res.ContentLength, res.Trailer, res.TransferEncoding = http.NoBody, 0, nil, nil
	if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified {
		res.Header["Content-Length"] = []string{"0"}
	}
	return nil
}

// errNoToken is of a visitor who shows none.
var errNoToken = errors.New("no token")

// byLink is [policy.Policy.Link] of a token that may be "".
func byLink(p *policy.Policy, token string) (expires time.Time, err error) {
	if token == "" {
		return time.Time{}, errNoToken
	}
	return p.Link(token, time.Now())
}

// shows returns nil where r has the token of a link that is good, as a cookie or in
// HeaderLink, and otherwise what is wrong.
func shows(r *http.Request, p *policy.Policy) error {
	tokens := r.Header[protocol.HeaderLink]
	for _, c := range r.CookiesNamed(protocol.LinkName) {
		tokens = append(tokens[:len(tokens):len(tokens)], c.Value)
	}
	err := errNoToken
	for _, token := range tokens[:min(len(tokens), maxTokens)] {
		_, wrong := byLink(p, token)
		if wrong == nil {
			return nil
		}
		if !errors.Is(err, protocol.ErrLinkExpired) {
			err = wrong
		}
	}
	return err
}

// hashes has room for as many passwords as are looked at at once: it takes long, and the
// rest of the processors is for everybody else.
var hashes = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// byPassword reports whether r has a user's password, or how long none is looked at. One
// that is new is looked at alone among those of its route: guesses are counted one by one.
func (h *HTTP) byPassword(r *http.Request, of string, p *policy.Policy, from netip.Addr) (ok bool, wait time.Duration) {
	name, password, ok := r.BasicAuth()
	if !ok || len(r.Header["Authorization"]) != 1 {
		return false, 0
	}
	// Also of one that was right before, or the answer would tell.
	if wait := h.Logins.Wait(of, from); wait > 0 {
		return false, wait
	}
	if p.Known(name, password) {
		return true, 0
	}
	defer p.Alone()()
	if p.Known(name, password) {
		return true, 0 // whoever was before has shown the same
	}
	select {
	case hashes <- struct{}{}:
		defer func() { <-hashes }()
	case <-r.Context().Done():
	}
	if r.Context().Err() != nil {
		return false, 0 // the visitor has left the queue
	}
	if wait := h.Logins.Wait(of, from); wait > 0 {
		return false, wait
	}
	ok = p.Login(name, password)
	h.Logins.Count(of, from, ok)
	return ok, 0
}

// cutToken takes a link's token out of a target's query. All else stays as it is.
func cutToken(target string) (clean, token string) {
	path, query, found := strings.Cut(target, "?")
	if !found || !strings.Contains(query, protocol.LinkName) {
		return target, ""
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if value, is := strings.CutPrefix(part, protocol.LinkName+"="); is {
			token = value
			continue
		}
		kept = append(kept, part)
	}
	if len(kept) == 0 {
		return path, token
	}
	return path + "?" + strings.Join(kept, "&"), token
}

// enter lets the visitor of a link in: with a cookie, and on to an address without the
// token. It reports whether that was the answer: what can't be sent on goes through as it is.
func (h *HTTP) enter(w http.ResponseWriter, r *http.Request, v *visit, expires time.Time) bool {
	if !reads(r) || r.Header["Upgrade"] != nil {
		return false
	}
	to := v.prefix + v.target
	if !rooted(to) {
		to = v.prefix + "/" // it would be another host's
	}
	header := w.Header()
	header.Set("Set-Cookie", (&http.Cookie{
		Name: protocol.LinkName, Value: v.token, Path: v.prefix + "/", Expires: expires,
		HttpOnly: true, Secure: v.scheme == "https", SameSite: http.SameSiteLaxMode,
	}).String())
	header.Set("Location", to)
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	h.announce(header, r)
	w.WriteHeader(http.StatusSeeOther)
	return true
}

// answerRobots answers for the app's /robots.txt (RFC 9309).
func (h *HTTP) answerRobots(w http.ResponseWriter, r *http.Request) {
	const rules = "User-agent: *\nDisallow: /\n"
	header := w.Header()
	h.announce(header, r)
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(rules)))
	if r.Method != http.MethodHead {
		io.WriteString(w, rules)
	}
}

// unindex keeps an answer out of search engines.
func unindex(header http.Header, p *policy.Policy) {
	if p.NoIndex() {
		header["X-Robots-Tag"] = []string{"noindex, nofollow"}
	}
}

// hideEntry keeps from the local app by what the visitor was let in. A cookie of ours may
// be of another time or owner, so it goes in any case.
func hideEntry(header http.Header, p *policy.Policy) {
	hideCookie(header)
	if !p.ByPassword() {
		return
	}
	var kept []string
	for _, value := range header["Authorization"] {
		if scheme, _, _ := strings.Cut(value, " "); !strings.EqualFold(scheme, "Basic") {
			kept = append(kept, value)
		}
	}
	if header["Authorization"] = kept; kept == nil {
		delete(header, "Authorization")
	}
}

// hideCookie removes our cookie. The slice of values may be another header's, too.
func hideCookie(header http.Header) {
	if !slices.ContainsFunc(header["Cookie"], func(value string) bool { return strings.Contains(value, protocol.LinkName) }) {
		return
	}
	var kept []string
	for _, value := range header["Cookie"] {
		pairs := strings.Split(value, ";")
		others := slices.DeleteFunc(slices.Clone(pairs), func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return strings.TrimSpace(name) == protocol.LinkName
		})
		switch {
		case len(others) == len(pairs):
			kept = append(kept, value)
		case len(others) > 0:
			kept = append(kept, strings.TrimLeft(strings.Join(others, ";"), " "))
		}
	}
	if header["Cookie"] = kept; kept == nil {
		delete(header, "Cookie")
	}
}

// replaced reports whether a field of a request by this name, or by what some take for it
// (S4), is the route's owner's to say and not the visitor's.
func replaced(name string, p *policy.Policy) bool {
	edits, _ := p.Edits()
	if edits == nil {
		return false
	}
	spelled := spell(name)
	for _, removed := range edits.Remove {
		if strings.EqualFold(spelled, spell(removed)) {
			return true
		}
	}
	for _, f := range edits.Set {
		if strings.EqualFold(spelled, spell(f.Name)) {
			return true
		}
	}
	return false
}

// editRequest sets what the owner wants set. What is to go has gone with what is not the
// visitor's to send.
func editRequest(header http.Header, p *policy.Policy) {
	if edits, _ := p.Edits(); edits != nil {
		set(header, edits.Set)
	}
}

// editResponse changes an answer as if the app had made it so: what holds for its answers
// holds for this one.
func editResponse(res *http.Response, p *policy.Policy) {
	_, edits := p.Edits()
	if edits == nil || res.StatusCode < 200 {
		return
	}
	for _, name := range edits.Remove {
		res.Header.Del(name)
	}
	set(res.Header, edits.Set)
}

// set puts fields in place of those of their names.
func set(header http.Header, fields []protocol.Field) {
	for _, f := range fields {
		header.Del(f.Name)
	}
	for _, f := range fields {
		header.Add(f.Name, f.Value)
	}
}
