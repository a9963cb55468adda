package edge

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

//go:embed error.html
var errorHTML string

var errorPage = template.Must(template.New("error").Parse(errorHTML))

// explanation is what a visitor reads about a code. It tells nothing that is not
// already known to who called; the detail is in the log.
type explanation struct{ title, cause, hint string }

var explanations = map[protocol.Code]explanation{
	protocol.BadRequest:      {"Bad request", "The request can't be passed on.", "Check the method and the framing of the request."},
	protocol.NameUnknown:     {"No tunnel here", "No client has claimed this name.", "Check the address, or start tunnel-client with this name."},
	protocol.WrongHost:       {"Not a name of this server", "This server does not serve the host that was asked for.", "Check the address; a public name is one label before the server's domain, or a domain whose client is connected."},
	protocol.URITooLong:      {"Address too long", "The request's address is longer than this server allows.", "Shorten it, or raise --max-uri-bytes on the server."},
	protocol.HeadersTooLarge: {"Header too large", "The request's header fields are larger than this server allows.", "Clear the site's cookies, or raise --max-header-bytes on the server."},
	protocol.Overloaded:      {"Too many requests at once", "The tunnel, or its server, has as much under way as it may.", "Try again in a moment."},
	protocol.ClientOffline:   {"Client is away", "The client of this name lost its connection and is not back yet.", "Try again in a moment."},
	protocol.SessionLost:     {"Connection lost", "The tunnel's connection broke before the answer came. The request may have reached the app.", "Try again if the request can be repeated."},
	protocol.AppRefused:      {"App is not running", "The tunnel is up, but nothing answers at the app's address.", "Start the app, or check the target that tunnel-client was given."},
	protocol.AppBadResponse:  {"App gave no valid answer", "The app closed the connection or answered something that is not HTTP.", "Look into the app's log; check whether the target speaks http or https."},
	protocol.VisitorRefused:  {"Not from here", "Whoever shares this address allows other networks only.", "Ask whoever gave it to you, and name the address that you come from."},
	protocol.LoginRequired:   {"Login needed", "This address is shared with a user and password, and none that is right was shown.", "Ask whoever gave you the address for them."},
	protocol.LoginThrottled:  {"Too many wrong passwords", "There were too many wrong ones from here or elsewhere, and no password is looked at for a while.", "Check the password, and try again as Retry-After says."},
	protocol.LinkRequired:    {"Link needed", "This address is shared by a link, and it was not opened in this browser; or it was taken back.", "Open the whole link that you were given, or ask for a new one."},
	protocol.LinkExpired:     {"Link has expired", "The link's time is over.", "Ask whoever gave it to you for a new one."},
	protocol.Ended:           {"Preview ended", "The time that this address was to be shared for is over.", "Ask whoever gave you the address to share it again."},
	protocol.AppStarting:     {"App is starting", "The tunnel is up, and the app behind it is not ready yet.", "Try again in a moment."},
	protocol.AppTimeout:      {"App does not answer", "The app took too long to answer.", "Look into the app's log, or raise --app-timeout on tunnel-client."},
}

// fail answers with an error of the tunnel's own, in the form that Accept asks
// for (RFC 9110, section 12.5.1): HTML for browsers, JSON, or text. A script of a page
// that asks for nothing in particular gets JSON.
func (h *HTTP) fail(w http.ResponseWriter, r *http.Request, code protocol.Code) {
	e := explanations[code]
	status := code.Status()
	header := w.Header()
	h.announce(header, r)
	header.Set(protocol.HeaderError, string(code))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		header.Set("Retry-After", "2")
	}
	if r.ProtoMajor == 1 && r.Body != http.NoBody {
		header.Set("Connection", "close") // or net/http would wait for the body first
	}
	body := new(strings.Builder)
	form := accepted(r.Header["Accept"])
	if form == "text" && byScript(r) {
		form = "json"
	}
	switch form {
	case "html":
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		errorPage.Execute(body, map[string]any{
			"Status": status, "Code": code, "Title": e.title, "Cause": e.cause, "Hint": e.hint,
		})
	case "json":
		header.Set("Content-Type", "application/json")
		json.NewEncoder(body).Encode(protocol.Refusal{Error: &protocol.Error{Code: code, Message: e.cause, Hint: e.hint}})
	default:
		header.Set("Content-Type", "text/plain; charset=utf-8")
		body.WriteString(e.title + " (" + string(code) + ")\n" + e.cause + "\n" + e.hint + "\n")
	}
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		io.WriteString(w, body.String())
	}
	if r.ProtoMajor == 1 && r.Body != http.NoBody {
		boundRest(w, r)
	}
}

// restTime is how long a visitor that was told an error may go on sending, so
// that it gets to read it.
const restTime = time.Second

// boundRest bounds the time in which net/http reads what is left of a request
// whose answer was written.
func boundRest(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w) // its errors are of a ResponseWriter that is not net/http's
	rc.Flush()
	if r.ContentLength > 0 {
		// The exchange that failed may still be reading. net/http would end that read
		// later, and take our deadline away. One of chunks fails for good by it.
		rc.SetReadDeadline(time.Unix(1, 0))
		r.Body.Read(nil) // waits
	}
	rc.SetReadDeadline(time.Now().Add(restTime))
}

// accepted returns which of "html", "json" and "text" an Accept field wants
// most. The first two are for who names them: "*/*", as of curl, gets text.
func accepted(fields []string) string {
	var html, json, text float64
	for media := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		media, parameters, _ := strings.Cut(strings.ToLower(media), ";")
		q := quality(parameters)
		switch media = strings.TrimSpace(media); {
		case media == "text/html", media == "application/xhtml+xml":
			html = max(html, q)
		case media == "application/json", media == "application/*", strings.HasSuffix(media, "+json"):
			json = max(json, q)
		case media == "text/plain", media == "text/*", media == "*/*":
			text = max(text, q)
		}
	}
	switch {
	case html > 0 && html >= max(json, text):
		return "html"
	case json > 0 && json >= text:
		return "json"
	}
	return "text"
}

// byScript reports whether a page's script asks: by XMLHttpRequest, as libraries say, or
// fetch, as browsers do (Fetch Metadata).
func byScript(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest") || r.Header.Get("Sec-Fetch-Dest") == "empty"
}

// quality returns the weight in a media range's parameters (RFC 9110, section
// 12.4.2). One that can't be read weighs nothing.
func quality(parameters string) float64 {
	for p := range strings.SplitSeq(parameters, ";") {
		if value, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
			q, err := strconv.ParseFloat(value, 64)
			if err != nil || q < 0 || q > 1 {
				return 0
			}
			return q
		}
	}
	return 1
}
