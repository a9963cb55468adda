//go:build unix

package inspect

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// address is where a client's inspector is, and after a restart another's.
type address struct {
	url string
	now atomic.Pointer[Server]
}

func newAddress(t *testing.T, store *Store) *address {
	a := new(address)
	a.now.Store(listen(t, store))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.now.Load().server.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	t.Cleanup(func() { a.now.Load().Close() }) // which ends the stream that front waits for
	a.url = front.URL
	return a
}

// restart has the address lead to another process, and the one before end.
func (a *address) restart(t *testing.T, store *Store) {
	a.now.Swap(listen(t, store)).Close()
}

// TestPageRestart: during a pause the client ends, and another process with other requests
// under the same ids answers at its address. Neither what the page shows nor what it does
// mixes the two.
func TestPageRestart(t *testing.T) {
	before, after := new(Store), new(Store)
	web, api := named(before, "web", "the site"), named(before, "api", "the API")
	visit(web, "/old-1")
	visit(api, "/old-2")
	visit(api, "/old-3")
	web = named(after, "web", "the new site")
	visit(web, "/new-1")
	visit(web, "/new-2")
	a := newAddress(t, before)
	p := &page{store: after, tab: browse(t, a.url)}
	p.rows("3,2,1")
	p.fill("#endpoint", "api")
	p.rows("3,2")
	p.fill("#text", "old")
	p.click(`[data-id="2"]`)
	p.shows("#detail h2", "/old-2")
	p.press("p")
	p.await(`document.querySelector("#pause").ariaPressed === "true"`)
	a.restart(t, after)

	p.shows("#connection", "paused, 2 new")
	p.rows("3,2") // nothing moves
	p.shows(`[data-id="2"]`, "/old-2")
	p.shows("#detail h2", "/old-2")
	p.press("r")
	p.shows("#said", "started anew")
	if n := len(after.all()); n != 2 {
		t.Errorf("a request of the process that has ended was replayed as the other's: %d requests", n)
	}
	p.click("#clear")
	p.shows("#said", "started anew")
	p.click(`[data-id="2"]`)
	p.shows("#detail", "started anew")
	p.forgive("403")

	p.fill("#text", "")
	p.press("p")
	p.rows("2,1")
	p.shows(`[data-id="2"]`, "/new-2")
	p.await(`document.querySelector("#endpoint").value === "" && document.querySelector("#endpoint").options.length === 2`)
	p.await(`document.querySelector("#endpoints").hidden && !document.querySelector("[aria-selected=true]")`)
	if p.is(`document.body.innerText.includes("old")`) {
		t.Error("what another process has told is shown still")
	}
	p.click(`[data-id="2"]`)
	p.shows("#detail h2", "/new-2")
	p.press("r") // with the new token
	p.shows("#compared", "The answers")
	p.rows("3,2,1")
}

// TestPageRestartSeen: the page that is not paused has what the process of now tells, and
// shows no detail of the other one, whose number is now another request's.
func TestPageRestartSeen(t *testing.T) {
	before, after := new(Store), new(Store)
	visit(named(before, "", "before"), "/old-1")
	visit(named(after, "", "after"), "/new-1")
	a := newAddress(t, before)
	p := &page{store: after, tab: browse(t, a.url)}
	p.click(`[data-id="1"]`)
	p.shows("#detail h2", "/old-1")
	a.restart(t, after)
	p.shows(`[data-id="1"]`, "/new-1")
	p.shows("#detail", "started anew")
	p.await(`!document.querySelector("[aria-selected=true]")`)
}

// TestPageEndpointGone: an endpoint of which nothing is kept any more is not offered, and
// filters nothing.
func TestPageEndpointGone(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	web, api := named(store, "web", "the site"), named(store, "api", "the API")
	visit(web, "/one")
	visit(api, "/two")
	p := &page{store: store, tab: browse(t, s.URL())}
	p.fill("#endpoint", "api")
	p.rows("2")
	store.Leave("api") // what it has recorded stays
	visit(web, "/three")
	p.shows("#count", "1 of 3 requests")
	p.click("#clear")
	p.shows("#count", "No requests")
	visit(web, "/four")
	p.rows("4")
	p.await(`document.querySelector("#endpoints").hidden && document.querySelector("#endpoint").options.length === 2`)
	if p.is(`document.querySelector(".row").innerText.includes("web")`) {
		t.Error("the only endpoint is told of each request")
	}
}
