//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

const sharedPage = `<!doctype html><title>the app</title><body><script>
fetch("/api").then(r => r.text()).then(t => document.body.dataset.api = t);
new WebSocket("ws://" + location.host + "/ws").onmessage = e => document.body.dataset.ws = e.data;
</script>`

// sharedApp answers a page that fetches and opens a WebSocket, and tells both what
// credentials it has seen of a visitor.
func sharedApp(t *testing.T) string {
	t.Helper()
	seen := func(r *http.Request) string {
		return fmt.Sprintf("%q %q", r.Header["Cookie"], r.Header["Authorization"])
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, seen(r)) })
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.Write(r.Context(), websocket.MessageText, []byte(seen(r)))
		c.CloseRead(r.Context())
		<-r.Context().Done()
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, sharedPage) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// TestShareInABrowser opens a name that is shared by a link, and one by a password, in a
// browser: all that the page does there gets in, and the app sees none of it.
func TestShareInABrowser(t *testing.T) {
	app := sharedApp(t)
	s := startServer(t, "--domain", "preview.test")
	devtools := startChromium(t)
	const nothing = `document.body.dataset.api === "[] []" && document.body.dataset.ws === "[] []"`

	t.Run("link", func(t *testing.T) {
		c := startClient(t, app, "--server", s.url, "--name", "linked", "--share-link", "1h")
		var ready struct {
			ShareURL string `json:"share_url"`
		}
		line, _, _ := strings.Cut(c.out.String(), "\n")
		if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.ShareURL == "" {
			t.Fatalf("no link in %s: %v", line, err)
		}
		tab := openTab(t, devtools)
		tab.run(t, chromedp.Navigate(c.url))
		tab.await(t, `document.title === "403 Link needed"`)
		tab.run(t, chromedp.Navigate(ready.ShareURL))
		tab.await(t, `document.title === "the app" && location.search === "" && document.cookie === ""`)
		tab.await(t, nothing)
		tab.run(t, chromedp.Navigate(c.url+"/another"))
		tab.await(t, `document.title === "the app"`)
		tab.await(t, nothing)
	})
	t.Run("password", func(t *testing.T) {
		c := startClient(t, app, "--server", s.url, "--name", "locked", "--basic-auth", "alice:sesame")
		tab := openTab(t, devtools)
		tab.run(t, chromedp.Navigate(strings.Replace(c.url, "://", "://alice:sesame@", 1)))
		tab.await(t, `document.title === "the app"`)
		tab.run(t, chromedp.Navigate(c.url)) // a page whose URL has a password fetches nothing
		tab.await(t, `location.href.indexOf("@") < 0`)
		tab.await(t, nothing)
	})
}
