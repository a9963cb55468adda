package forward

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestReady(t *testing.T) { onEach(t, testReady) }

// An app that is not ready is not called, and who comes early is told to come again; a
// proxy that is not ours passes that on as it is.
func testReady(t *testing.T, front frontFunc) {
	var ready atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() {
			t.Error("the app is called")
		}
		io.WriteString(w, "hello")
	}))
	defer app.Close()
	url := "http://" + front(t, app.URL, Options{Ready: ready.Load})
	for _, want := range []string{"503 app_starting 2", "200  "} {
		res, err := http.Post(url, "", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Status[:3] + " " + res.Header.Get("Tunnel-Error") + " " + res.Header.Get("Retry-After"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		ready.Store(true)
	}
}
