package rig

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Hello is the small answer of a [PlainApp]: 13 bytes.
const Hello = "Hello, world!"

// A PlainApp is a local app that costs little, to measure with; make it with [NewPlainApp]:
//
//	GET  /small      answers [Hello]
//	GET  /after/D    answers it after the duration D
//	GET  /down/N     answers N bytes
//	POST /up         reads the body and answers its length
//	GET  /hang       answers it after the next POST /release
//	GET  /waiting    answers how many requests hang
//	GET  /received   answers how many bytes all uploads brought so far
type PlainApp struct {
	block    []byte
	received atomic.Int64
	waiting  atomic.Int64

	mu      sync.Mutex
	release chan struct{} // guarded by mu; closed by POST /release
}

// NewPlainApp makes one.
func NewPlainApp() *PlainApp {
	return &PlainApp{block: make([]byte, 64<<10), release: make(chan struct{})}
}

// ServeHTTP answers one request.
func (a *PlainApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/small":
		io.WriteString(w, Hello)
	case strings.HasPrefix(path, "/down/"):
		a.down(w, path[len("/down/"):])
	case strings.HasPrefix(path, "/after/"):
		after(w, r, path[len("/after/"):])
	case path == "/up":
		fmt.Fprint(w, a.up(r.Body))
	case path == "/hang":
		a.hang(w, r)
	case path == "/release":
		a.mu.Lock()
		close(a.release)
		a.release = make(chan struct{})
		a.mu.Unlock()
	case path == "/waiting":
		fmt.Fprint(w, a.waiting.Load())
	case path == "/received":
		fmt.Fprint(w, a.received.Load())
	default:
		http.NotFound(w, r)
	}
}

func (a *PlainApp) down(w http.ResponseWriter, length string) {
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		http.Error(w, "no length", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", length)
	for n > 0 {
		m, err := w.Write(a.block[:min(n, int64(len(a.block)))])
		if err != nil {
			return
		}
		n -= int64(m)
	}
}

// up reads body to its end, or to where it was cut off, and gives its length.
func (a *PlainApp) up(body io.Reader) int64 {
	buf := make([]byte, 64<<10)
	var sum int64
	for {
		n, err := body.Read(buf)
		sum += int64(n)
		a.received.Add(int64(n))
		if err != nil {
			return sum
		}
	}
}

func (a *PlainApp) hang(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	release := a.release
	a.mu.Unlock()
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case <-release:
		io.WriteString(w, Hello)
	case <-r.Context().Done():
	}
}

func after(w http.ResponseWriter, r *http.Request, text string) {
	d, err := time.ParseDuration(text)
	if err != nil {
		http.Error(w, "no duration", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(d):
		io.WriteString(w, Hello)
	case <-r.Context().Done():
	}
}
