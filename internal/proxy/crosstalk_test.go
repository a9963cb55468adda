package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// behave is an app whose answers all name their request, and which does with it
// what the path says.
func behave(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Id")
	w.Header().Set("Id", id)
	if r.URL.Path != "/early" {
		io.Copy(io.Discard, r.Body)
	}
	switch r.URL.Path {
	case "/length":
		w.Header().Set("Content-Length", fmt.Sprint(100*len(id)))
	case "/close":
		w.Header().Set("Connection", "close")
	case "/cut":
		io.WriteString(w, id)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/die":
		panic(http.ErrAbortHandler)
	case "/wait":
		<-r.Context().Done()
		return
	case "/junk":
		conn, _, _ := http.NewResponseController(w).Hijack()
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nId: %s\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nId: nobody's\r\nContent-Length: 0\r\n\r\n",
			id, 100*len(id), strings.Repeat(id, 100))
		conn.Close()
		return
	case "/garbage", "/unasked", "/upgrade":
		conn, rw, _ := http.NewResponseController(w).Hijack()
		lie(conn, rw, r.URL.Path, id)
		return
	}
	io.WriteString(w, strings.Repeat(id, 100))
}

// lie answers what is no answer, or the upgrade that was asked for, and has an answer for
// whatever is sent to it then.
func lie(conn net.Conn, rw *bufio.ReadWriter, path, id string) {
	defer conn.Close()
	switch path {
	case "/garbage":
		io.WriteString(conn, "HTTP/1.1 2OO no number\r\n\r\n")
	case "/unasked":
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
	case "/upgrade":
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\nId: %s\r\n\r\n", id)
	}
	for b := make([]byte, 100_000); ; {
		if _, err := rw.Read(b); err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nId: nobody's\r\nContent-Length: 0\r\n\r\n")
	}
}

// Many visitors at once, whose requests end in every way: no answer is another's
// (S2).
func TestNoCrossTalk(t *testing.T) {
	paths := []string{"/length", "/chunks", "/close", "/early", "/cut", "/die", "/wait", "/junk", "/garbage", "/unasked", "/upgrade"}
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		url := "http://" + way(t, listen(t, http.HandlerFunc(behave))).addr
		clients := []*http.Client{clientOf(t, 1), clientOf(t, 2)}
		var wg sync.WaitGroup
		for worker := range 16 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(1, uint64(worker)))
				for i := range 50 {
					id := fmt.Sprintf("<%d %d>", worker, i)
					oneOf(t, clients[rnd.IntN(2)], rnd, url+paths[rnd.IntN(len(paths))], id)
				}
			})
		}
		wg.Wait()
	})
}

func oneOf(t *testing.T, client *http.Client, rnd *rand.Rand, url, id string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	method, body := "GET", ""
	if rnd.IntN(2) == 0 {
		method, body = "POST", strings.Repeat("x", rnd.IntN(100_000))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	if method == "POST" && rnd.IntN(2) == 0 {
		req.ContentLength = -1
	}
	req.Header.Set("Id", id)
	if client.Transport.(*http.Transport).Protocols.HTTP1() && (strings.HasSuffix(url, "/upgrade") || strings.HasSuffix(url, "/unasked")) {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "test")
	}
	if strings.HasSuffix(url, "/wait") {
		go cancel()
	}
	res, err := client.Do(req)
	if err != nil {
		if !strings.HasSuffix(url, "/wait") && !strings.HasSuffix(url, "/cut") && !strings.HasSuffix(url, "/early") {
			t.Errorf("%s %s: %v", method, url, err)
		}
		return
	}
	if res.StatusCode == http.StatusSwitchingProtocols && strings.HasSuffix(url, "/upgrade") {
		if res.Header.Get("Id") != id {
			t.Errorf("%s %s %s: upgraded as %s", method, url, id, res.Header.Get("Id"))
		}
		res.Body.Close()
		return
	}
	m := read(res)
	switch {
	case m.line == "502" && (strings.HasSuffix(url, "/garbage") || strings.HasSuffix(url, "/unasked") || strings.HasSuffix(url, "/upgrade")):
	case m.line == "502" && (strings.HasSuffix(url, "/die") || strings.HasSuffix(url, "/junk")):
	case m.line == "502" && strings.HasSuffix(url, "/cut"): // a reset may overtake what was sent before it
	case m.err != nil && strings.HasSuffix(url, "/cut"):
	case m.line != "200", m.err != nil, res.Header.Get("Id") != id, m.body != strings.Repeat(id, 100):
		t.Errorf("%s %s %s: %v", method, url, id, m)
	}
}
