package edge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// telling is an app that says all it can to whoever asks.
func telling(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Header.Get("Upgrade") != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"echo"}
		w.WriteHeader(http.StatusSwitchingProtocols)
		return
	}
	h.Set("Link", "</early-secret>")
	w.WriteHeader(http.StatusEarlyHints)
	h.Set("Access-Control-Allow-Origin", "https://a.example")
	h.Set("Vary", "Origin")
	h.Set("Allow", "GET")
	h.Set("X-Secret", "field-secret")
	h.Set("Location", "/secret")
	h.Set("Set-Cookie", "secret=1")
	h.Set("Trailer", "X-End")
	if r.URL.Path == "/error" {
		w.WriteHeader(http.StatusTeapot)
	}
	body, _ := io.ReadAll(r.Body)
	io.WriteString(w, "body-secret "+r.RequestURI+string(body))
	h.Set("X-End", "trailer-secret")
}

// Whoever speaks like a browser that asks for a page's sake learns whether the page may
// ask, and no more of the app.
func TestPreflightOfAStranger(t *testing.T) {
	key, public := linkKeys(t)
	addr := serve(t, server.Config{})
	publishAs(t, addr, tunnel.Options{Name: "demo", Share: &protocol.Share{BasicAuth: alice(t), Link: public}}, http.HandlerFunc(telling))
	const asks = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\nConnection: close"
	for _, c := range []struct {
		target, field string
		want          string // the begin of what comes
	}{
		{"/", "X: y", "HTTP/1.1 200 "}, {"/error", "X: y", "HTTP/1.1 418 "}, {"/", "Cookie: tunnel-share=" + expired(key), "HTTP/1.1 200 "},
		{"/", wrongful, "HTTP/1.1 200 "}, {"/?tunnel-share=forged", "Content-Length: 0", "HTTP/1.1 200 "},
		{"/", "Connection: Upgrade\r\nUpgrade: echo", "HTTP/1.1 401 "},
		{"/", "Content-Length: 1\r\n\r\nx", "HTTP/1.1 401 "}, {"/", "Transfer-Encoding: chunked\r\n\r\n0\r\n", "HTTP/1.1 401 "},
	} {
		v := visit(t, addr)
		io.WriteString(v, "OPTIONS "+c.target+" HTTP/1.1\r\n"+demo+"\r\n"+asks+"\r\n"+c.field+"\r\n\r\n")
		b, _ := io.ReadAll(v.r)
		got := string(b)
		if !strings.HasPrefix(got, c.want) || strings.Contains(strings.ToLower(got), "secret") {
			t.Errorf("%s, %q: got\n%s", c.target, c.field, got)
		}
		if strings.Contains(c.want, "401") {
			continue
		}
		for _, line := range []string{"Access-Control-Allow-Origin: https://a.example", "Vary: Origin", "Allow: GET", "Content-Length: 0"} {
			if !strings.Contains(got, "\r\n"+line+"\r\n") {
				t.Errorf("%s, %q: no %q in\n%s", c.target, c.field, line, got)
			}
		}
	}
	// Who may visit gets what the app says, also to that.
	for _, c := range [][2]string{{"/", rightful}, {"/", "Cookie: tunnel-share=" + good(key)}, {"/?tunnel-share=" + good(key), "X: y"}} {
		if a := get(t, addr, "OPTIONS "+c[0]+" HTTP/1.0", demo, asks, c[1]); a.body != "body-secret /" || a.Header.Get("X-Secret") == "" {
			t.Errorf("%q: %d %q", c, a.StatusCode, a.body)
		}
	}
}

// The same over HTTP/2 and HTTP/3, which say otherwise that no body comes.
func TestPreflightOfAStrangerOverTLS(t *testing.T) {
	h := secure(t, server.Config{})
	publishAs(t, h.plain, tunnel.Options{Name: "demo", Share: &protocol.Share{BasicAuth: alice(t)}}, http.HandlerFunc(telling))
	for _, proto := range []string{"1", "2", "3"} {
		for _, body := range []string{"", "x"} {
			r := request(t, "OPTIONS", "https://demo.example.com:"+h.port, nil)
			if body != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
			}
			r.Header.Set("Origin", "https://a.example")
			r.Header.Set("Access-Control-Request-Method", "PUT")
			a := fetch(t, h.client(t, proto, ""), r)
			if want := map[string]int{"": 200, "x": 401}[body]; a.StatusCode != want || strings.Contains(a.body, "secret") || a.Header.Get("X-Secret") != "" || a.Trailer != nil {
				t.Errorf("HTTP/%s with %q: %d, %v, %q", proto, body, a.StatusCode, a.Header, a.body)
			}
			if body == "" && a.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("HTTP/%s: the browser is not told: %v", proto, a.Header)
			}
		}
	}
}

// A token of a link reaches no app, also where none is asked for.
func TestShareTokenReachesNoApp(t *testing.T) {
	addr := guarded(t, server.Config{PathNames: true}, &protocol.Share{BasicAuth: alice(t)})
	const asks = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT"
	for _, c := range [][]string{
		{"GET /?a&tunnel-share=x&b HTTP/1.1", "Host: other.example.com"}, {"GET /other/?a&tunnel-share=x&b HTTP/1.1", "Host: example.com"},
		{"OPTIONS /?a&tunnel-share=x&b HTTP/1.1", "Host: other.example.com", asks}, {"POST /?a&tunnel-share=x&b HTTP/1.1", demo, rightful, "Content-Length: 0"},
	} {
		if a := get(t, addr, c...); !strings.Contains(a.body, "/?a&b") || strings.Contains(a.body, "tunnel-share") {
			t.Errorf("%q: the app saw\n%s", c, a.body)
		}
	}
}
