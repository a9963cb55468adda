package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/upstream"
)

// errLost is what a session's end leaves of a GET that was sent and not answered.
var errLost = fmt.Errorf("%w: %w: killed", upstream.ErrSessionLost, upstream.ErrUnanswered)

// A request that was lost with its session is sent once more, by the session that
// the client has then, whether it is there already or comes soon (R5).
func TestSentOnceMore(t *testing.T) {
	for _, park := range []time.Duration{0, time.Hour} {
		r := newWatched()
		addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: park})
		var release registry.Release
		release = bind(t, r, func(*http.Request) (*http.Response, error) {
			release(time.Hour)
			bind(t, r, echo)
			return nil, errLost
		})
		if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); a.StatusCode != 200 {
			t.Errorf("park %v, the next session is there: got %s", park, answered(a))
		}
	}

	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	var release registry.Release
	release = bind(t, r, func(*http.Request) (*http.Response, error) {
		release(time.Hour)
		return nil, errLost
	})
	v := visit(t, addr)
	v.send("GET / HTTP/1.1", "Host: demo.example.com")
	<-r.offline
	bind(t, r, echo)
	if a := v.receive("GET"); a.StatusCode != 200 {
		t.Errorf("the next session comes: got %s", answered(a))
	}
}

// A client that was given up because it was silent is not waited for as one that
// has just dropped (R9).
func TestSilentClient(t *testing.T) {
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	release, err := r.Bind(t.Context(), &registry.Route{
		Name: "demo", Owner: "me", HTTP: roundTrip(echo), Silent: func() bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	release(time.Hour)
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != "503 client_offline" {
		t.Errorf("got %s", answered(a))
	}
}

// Nothing is sent more than twice, nor again where somebody could tell.
func TestNotSentAgain(t *testing.T) {
	plain := fmt.Errorf("%w: killed", upstream.ErrSessionLost)
	for _, tt := range []struct {
		name    string
		request string
		err     error
		want    int
	}{
		{"lost twice", "GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n", errLost, 2},
		{"unanswered, the session lives", "GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n", upstream.ErrUnanswered, 1},
		{"answered", "GET / HTTP/1.1\r\nHost: demo.example.com\r\n\r\n", plain, 1},
		{"POST", post, plain, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newWatched()
			addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
			sent := 0
			var release registry.Release
			var lose roundTrip
			lose = func(*http.Request) (*http.Response, error) {
				sent++
				release(time.Hour)
				release = bind(t, r, lose)
				return nil, tt.err
			}
			release = bind(t, r, lose)
			v := visit(t, addr)
			io.WriteString(v, tt.request)
			if a := v.receive("GET"); answered(a) != "502 session_lost" && tt.err != upstream.ErrUnanswered {
				t.Errorf("got %s", answered(a))
			}
			if sent != tt.want {
				t.Errorf("sent %d times, want %d", sent, tt.want)
			}
		})
	}
}

// The client does not come back: the visitor waits much less than Park (R4), and
// learns that the request may have run.
func TestLostForGood(t *testing.T) {
	r := newWatched()
	addr := listen(t, &edge.HTTP{Registry: r, Domain: "example.com", Park: time.Hour})
	var release registry.Release
	release = bind(t, r, func(*http.Request) (*http.Response, error) {
		release(time.Hour)
		return nil, errLost
	})
	if a := get(t, addr, "GET / HTTP/1.1", "Host: demo.example.com"); answered(a) != "502 session_lost" {
		t.Errorf("got %s", answered(a))
	}
}
