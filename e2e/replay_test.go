//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// phases are how far a request has come when its client dies.
var phases = []string{"begun", "header", "body", "sent", "answered", "half"}

const heldAnswer = "the first half, the second half"

// heldApp counts how often each request runs. It tells when one has come as far as
// its Phase says, and holds it there; one that comes again is answered.
type heldApp struct {
	addr    string
	over    chan struct{} // closed at the test's end
	reached chan string   // ids
	mu      sync.Mutex
	runs    map[string]int // by id; guarded by mu
}

func newHeldApp(t *testing.T) *heldApp {
	a := &heldApp{over: make(chan struct{}), reached: make(chan string, 1000), runs: map[string]int{}}
	a.addr = app(t, a)
	t.Cleanup(func() { close(a.over) })
	return a
}

func (a *heldApp) count(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs[id]
}

func (a *heldApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, phase := r.Header.Get("Id"), r.Header.Get("Phase")
	a.mu.Lock()
	a.runs[id]++
	again := a.runs[id] > 1
	a.mu.Unlock()
	w.Header().Set("Content-Length", strconv.Itoa(len(heldAnswer)))
	if again || phase == "begun" {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, heldAnswer)
		return
	}
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	switch phase {
	case "body":
		io.ReadFull(r.Body, make([]byte, 2))
	case "sent", "answered", "half":
		io.Copy(io.Discard, r.Body)
	}
	switch phase {
	case "answered":
		w.WriteHeader(http.StatusOK)
		rc.Flush()
	case "half":
		io.WriteString(w, heldAnswer[:len(heldAnswer)/2])
		rc.Flush()
	}
	a.reached <- id
	select {
	case <-r.Context().Done():
	case <-a.over: // net/http does not notice the end of who has sent half a body
	}
	panic(http.ErrAbortHandler)
}

// held is one request to a heldApp.
type held struct {
	id, phase, method, key string
	conn                   net.Conn
	r                      *bufio.Reader
	rest                   string // what the visitor has not sent
}

// begin sends as much as the phase needs.
func (h *held) begin(t *testing.T, public string) {
	t.Helper()
	h.conn = dialPublic(t, public)
	h.r = bufio.NewReader(h.conn)
	head := fmt.Sprintf("%s / HTTP/1.1\r\nHost: %s\r\nId: %s\r\nPhase: %s\r\n", h.method, hostOf(t, public), h.id, h.phase)
	if h.key != "" {
		head += "Idempotency-Key: " + h.key + "\r\n"
	}
	body := ""
	if h.method == "POST" {
		head += "Content-Length: 4\r\n"
		body = "body"
	}
	head += "\r\n"
	sent := len(head + body)
	switch h.phase {
	case "begun":
		sent = 20
	case "header":
		sent = len(head)
	case "body":
		sent = len(head) + min(2, len(body))
	}
	io.WriteString(h.conn, (head + body)[:sent])
	h.rest = (head + body)[sent:]
}

// end sends the rest, and returns the status: 0 where the answer is visibly not
// whole. One that looks so and is not fails the test.
func (h *held) end(t *testing.T) int {
	t.Helper()
	io.WriteString(h.conn, h.rest)
	res, err := http.ReadResponse(h.r, nil)
	if err != nil {
		return h.broken(t, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return h.broken(t, err)
	}
	if res.StatusCode == http.StatusOK && string(body) != heldAnswer {
		t.Errorf("%s: %q looks whole", h, body)
	}
	return res.StatusCode
}

func (h *held) broken(t *testing.T, err error) int {
	t.Helper()
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Errorf("%s: %v", h, err)
	}
	return 0
}

func (h *held) String() string { return fmt.Sprintf("%s %s, killed when %s", h.method, h.key, h.phase) }

// check holds the count of runs, and the status, against what is permitted.
func (h *held) check(t *testing.T, a *heldApp, status int) {
	t.Helper()
	runs := a.count(h.id)
	begun := h.phase == "answered" || h.phase == "half" // the answer was
	switch {
	case h.phase == "begun":
		if status != http.StatusOK || runs != 1 {
			t.Errorf("%s: status %d after %d runs, want 200 after one", h, status, runs)
		}
	case begun && status != 0:
		t.Errorf("%s: status %d, want an error", h, status)
	case !begun && status != http.StatusBadGateway && (h.method == "POST" || status != http.StatusOK):
		t.Errorf("%s: status %d", h, status)
	case runs > 1 && (h.method == "POST" || begun), runs > 2:
		t.Errorf("%s: it ran %d times", h, runs)
	}
}

// TestClientDiesInEveryPhase kills the client at every phase of requests, and lets
// another client with its token take over at once. A POST runs at most once, also
// with an Idempotency-Key; a GET again only before its answer has begun (R5).
func TestClientDiesInEveryPhase(t *testing.T) {
	for _, way := range []string{"killed", "taken over"} {
		t.Run(way, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, transport string) {
				a := newHeldApp(t)
				s := startServer(t, "--token-file", tokens(t, tokenA), "--park", patience.String())
				command := func() *tunnelClient {
					return readyClient(t, withToken(clientCommand(a.addr, "--server", s.url, "--name", "app", "--transport", transport), tokenA))
				}
				first := command()
				all := holdAll(t, a, first.url)
				if way == "killed" {
					first.kill()
				} else {
					// What a client that hangs has got is lost as well.
					first.signal(t, syscall.SIGSTOP)
					unseen := &held{id: "unseen", phase: "sent", method: "POST", key: "k"}
					unseen.begin(t, first.url)
					all = append(all, unseen)
				}
				command()
				first.kill()
				for _, h := range all {
					h.check(t, a, h.end(t))
				}
			})
		})
	}
}

// holdAll begins requests of each kind, and waits until they are in their phase.
func holdAll(t *testing.T, a *heldApp, public string) []*held {
	t.Helper()
	var all []*held
	for _, phase := range phases {
		for _, kind := range []held{{method: "GET"}, {method: "POST"}, {method: "POST", key: "k1"}} {
			kind.id, kind.phase = strconv.Itoa(len(all)), phase
			all = append(all, &kind)
			kind.begin(t, public)
			if phase != "begun" {
				awaitOn(t, a.reached, kind.String())
			}
			if phase == "half" { // the answer has begun at the visitor, too
				kind.r.Peek(1)
			}
		}
	}
	return all
}

// TestClientKilledInFlight kills a client with 200 requests in flight: each ends
// with 502, or visibly where its answer had begun, and none runs again but a GET
// (R4).
func TestClientKilledInFlight(t *testing.T) {
	a := newHeldApp(t)
	s := startServer(t, "--token-file", tokens(t, tokenA), "--park", "50ms")
	command := withToken(clientCommand(a.addr, "--server", s.url, "--name", "app"), tokenA)
	c := readyClient(t, command)
	var all []*held
	for i := range 200 {
		h := &held{id: strconv.Itoa(i), phase: "sent", method: "GET"}
		if i%2 == 1 {
			h.method = "POST"
		}
		if i%4 == 3 {
			h.key = "k" + h.id
		}
		if i%10 == 9 {
			h.phase = "half"
		}
		all = append(all, h)
		h.begin(t, c.url)
	}
	for range all {
		awaitOn(t, a.reached, "request at the app")
	}
	for _, h := range all {
		if h.phase == "half" {
			h.r.Peek(1) // the answer has begun for the visitor, too
		}
	}
	c.kill()
	var ends sync.WaitGroup
	for _, h := range all {
		ends.Go(func() { h.check(t, a, h.end(t)) })
	}
	ends.Wait()
	for _, h := range all {
		if runs := a.count(h.id); runs != 1 {
			t.Errorf("%s: it ran %d times", h, runs)
		}
	}
}
