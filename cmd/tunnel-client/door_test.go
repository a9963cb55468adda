package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// door stands before a server and can be shut.
type door struct {
	url string

	mu      sync.Mutex
	server  string // host:port
	refused int    // connections still to close at once
	open    map[net.Conn]bool
	all     sync.WaitGroup
}

func newDoor(t *testing.T, server string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{url: "http://" + l.Addr().String(), open: make(map[net.Conn]bool)}
	d.leadTo(server)
	d.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.all.Go(func() { d.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		d.slam()
		d.all.Wait()
	})
	return d
}

// refuse closes the next n connections at once.
func (d *door) refuse(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = n
}

// leadTo passes new connections on to server.
func (d *door) leadTo(server string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = strings.TrimPrefix(server, "http://")
}

// slam cuts all connections.
func (d *door) slam() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		c.Close()
	}
}

func (d *door) pass(c net.Conn) {
	defer c.Close()
	d.mu.Lock()
	refused := d.refused > 0
	d.refused--
	server := d.server
	d.open[c] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.open, c)
		d.mu.Unlock()
	}()
	if refused {
		return
	}
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	join(c, s)
}

// join passes bytes on both ways until one side ends.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			io.Copy(pair[0], pair[1])
			a.Close()
			b.Close()
		})
	}
	wg.Wait()
}

// connectProxy is a forward proxy that leads everywhere to server.
func connectProxy(t *testing.T, server string) string {
	t.Helper()
	var all sync.WaitGroup
	t.Cleanup(all.Wait) // after the server has stopped
	return startApp(t, func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		defer all.Done()
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			up.Close()
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		join(c, up)
	})
}
