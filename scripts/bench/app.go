package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const hello = "Hello, world!" // the small answer: 13 bytes

// An app is the local app that all tunnels lead to:
//
//	GET  /small      answers hello
//	GET  /down/N     answers N bytes
//	POST /up         reads the body and answers its length
//	GET  /hang       answers hello after the next POST /release
//	GET  /waiting    answers how many requests hang
//	GET  /received   answers how many bytes all uploads brought so far
type app struct {
	block    []byte
	received atomic.Int64
	waiting  atomic.Int64

	mu      sync.Mutex
	release chan struct{} // guarded by mu; closed by POST /release
}

func newApp() *app {
	return &app{block: make([]byte, 64<<10), release: make(chan struct{})}
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/small":
		io.WriteString(w, hello)
	case strings.HasPrefix(path, "/down/"):
		a.down(w, path[len("/down/"):])
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

func (a *app) down(w http.ResponseWriter, length string) {
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
func (a *app) up(body io.Reader) int64 {
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

func (a *app) hang(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	release := a.release
	a.mu.Unlock()
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case <-release:
		io.WriteString(w, hello)
	case <-r.Context().Done():
	}
}
