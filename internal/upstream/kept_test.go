package upstream

import (
	"errors"
	"net/http"
	"testing"
)

// On a stream that was kept, too, what was sent was sent.
func TestSessionEndsOnAKeptStream(t *testing.T) {
	arrived := make(chan struct{}, 1)
	p := connect(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-r.Context().Done()
		}
	})
	rt := p.pool.Route("demo")
	if _, err := ask(rt, request(t, "GET", "/", "")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := ask(rt, request(t, "GET", "/wait", "")); done <- err }()
	<-arrived
	p.client.Close()
	if err := <-done; !errors.Is(err, ErrSessionLost) || errors.Is(err, ErrNotSent) {
		t.Errorf("got %v, want ErrSessionLost", err)
	}
	p.idle(t, "after all")
}
