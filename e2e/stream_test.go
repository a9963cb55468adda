//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// eventApp sends server-sent events, each when the visitor has seen the one
// before: what is held back on the way is never followed by more.
type eventApp struct {
	seen gate
	gone chan struct{} // closed when the visitor of the endless stream left
}

const events = 20

func (a *eventApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/seen":
		select {
		case a.seen <- struct{}{}:
		case <-r.Context().Done():
		}
	case "/events", "/endless":
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush() // the header alone
		for n := 0; (n < events || r.URL.Path == "/endless") && a.seen.pass(r); n++ {
			fmt.Fprintf(w, "data: %d\n\n", n)
			http.NewResponseController(w).Flush()
		}
		if r.URL.Path == "/endless" && r.Context().Err() != nil {
			close(a.gone)
		}
	}
}

func newEventApp() *eventApp { return &eventApp{seen: make(gate), gone: make(chan struct{})} }

// readEvents is the visitor of an eventApp at public.
func readEvents(t *testing.T, c *http.Client, public string) {
	t.Helper()
	seen := func() {
		t.Helper()
		if res, _ := fetch(t, c, public+"/seen"); res.StatusCode != http.StatusOK {
			t.Fatalf("status %s", res.Status)
		}
	}
	res, err := c.Get(public + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	seen()
	n := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		if want := fmt.Sprint("data: ", n); lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
		if n++; n < events {
			seen()
		}
	}
	if err := lines.Err(); err != nil || n != events {
		t.Errorf("%d events of %d, %v", n, events, err)
	}
}

// TestServerSentEvents sees each event before the app sends the next one, and
// the app sees its visitor leave.
func TestServerSentEvents(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		a := newEventApp()
		public := expose(t, app(t, a), transport)
		readEvents(t, visitor(t), public)

		res, err := visitor(t).Get(public + "/endless")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		awaitOn(t, a.gone, "the end of the request at the app")
	})
}

// TestUploadStreams sends an upload piece by piece, each when the app has had
// the one before.
func TestUploadStreams(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		got := make(chan string)
		public := expose(t, app(t, uploadApp(got)), transport)
		streamUpload(t, visitor(t), public, got)
	})
}

// uploadApp tells what it reads.
func uploadApp(got chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				select {
				case got <- string(buf[:n]):
				case <-r.Context().Done():
				}
			}
			if err != nil {
				fmt.Fprint(w, err)
				return
			}
		}
	})
}

func streamUpload(t *testing.T, c *http.Client, public string, got <-chan string) {
	t.Helper()
	r, w := io.Pipe()
	answer := make(chan string, 1)
	go func() {
		res, err := c.Post(public, "text/plain", r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- res.Status + " " + string(b)
	}()
	for n := range 20 {
		piece := fmt.Sprint("piece ", n)
		if _, err := io.WriteString(w, piece); err != nil {
			t.Fatal(err)
		}
		if had := awaitOn(t, got, "piece at the app"); had != piece {
			t.Fatalf("the app got %q, want %q", had, piece)
		}
	}
	w.Close()
	if got, want := awaitOn(t, answer, "answer"), "200 OK EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
