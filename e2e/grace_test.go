//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestServerDrainsUnderLoad ends the server while 64 visitors make short requests,
// and 4 have a download under way: what the app has seen is answered in full (R6).
func TestServerDrainsUnderLoad(t *testing.T) {
	d := download{content: noise(2<<20, 51), rest: make(gate)}
	loads := downloadApp(d.content, d.rest)
	var seen sync.Map // by path, of the short ones
	s := startServer(t)
	c := startClient(t, app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			loads.ServeHTTP(w, r)
			return
		}
		seen.Store(r.URL.Path, true)
		io.WriteString(w, r.URL.Path)
	})), "--server", s.url, "--name", "app")
	var downloads [4]download
	for i := range downloads {
		downloads[i] = d
		downloads[i].begin(t, c.url)
	}
	var whole sync.Map
	var count atomic.Int64
	var load sync.WaitGroup
	for i := range 64 {
		one := visitor(t)
		one.Transport.(*http.Transport).DisableKeepAlives = i%2 == 0
		load.Go(func() {
			for n := range 100_000 {
				path := fmt.Sprintf("/%d/%d", i, n)
				res, err := one.Get(c.url + path)
				if err != nil {
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err == nil && res.StatusCode == http.StatusOK && string(body) == path {
					whole.Store(path, true)
					count.Add(1)
				}
			}
		})
	}
	eventually(t, "load", func() bool { return count.Load() > 500 })
	s.signal(t, syscall.SIGTERM)
	load.Wait()
	seen.Range(func(path, _ any) bool {
		if _, ok := whole.Load(path); !ok {
			t.Errorf("the app has seen %s, and the visitor got no answer", path)
		}
		return true
	})
	close(d.rest)
	for i := range downloads {
		downloads[i].read(t, d.content[len(d.content)/2:])
		if n, err := downloads[i].body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after a download's end: %d bytes, %v", n, err)
		}
	}
	if code := s.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("%d short requests", count.Load())
}

// TestStreamOutlivesSignal ends the client amid a stream: each message still
// arrives, to the stream's end (R7).
func TestStreamOutlivesSignal(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		a := newEventApp()
		s := startServer(t)
		c := startClient(t, app(t, a), "--server", s.url, "--name", "app", "--transport", transport)
		res, err := visitor(t).Get(c.url + "/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		for n := range events {
			if n == 3 {
				c.signal(t, syscall.SIGTERM)
				c.await(t, "draining")
			}
			a.seen <- struct{}{}
			if !lines.Scan() || lines.Text() != fmt.Sprint("data: ", n) || !lines.Scan() {
				t.Fatalf("event %d: got %q, %v", n, lines.Text(), lines.Err())
			}
		}
		if lines.Scan() || lines.Err() != nil {
			t.Errorf("at the end: %q, %v", lines.Text(), lines.Err())
		}
		if code := c.exit(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

// TestStreamAtTheEndOfGrace has streams that do not end: at the end of the grace
// they break, visibly, in each version of HTTP (R6, R7).
func TestStreamAtTheEndOfGrace(t *testing.T) {
	for _, which := range []string{"client", "server"} {
		t.Run(which, func(t *testing.T) {
			a := newEventApp()
			s := startServer(t, "--grace", "300ms")
			c := startClient(t, app(t, a), "--server", s.url, "--name", "app", "--grace", "300ms")
			second := visitor(t)
			second.Transport.(*http.Transport).Protocols = new(http.Protocols)
			second.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
			var bodies []io.Reader
			for _, v := range []*http.Client{visitor(t), second} {
				res, err := v.Get(c.url + "/events")
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				bodies = append(bodies, res.Body)
			}
			old := dialPublic(t, c.url)
			fmt.Fprintf(old, "GET /events HTTP/1.0\r\nHost: %s\r\n\r\n", hostOf(t, c.url))
			res, err := http.ReadResponse(bufio.NewReader(old), nil)
			if err != nil {
				t.Fatal(err)
			}
			p := s.process
			if which == "client" {
				p = c.process
			}
			p.signal(t, syscall.SIGTERM)
			for _, body := range append(bodies, res.Body) {
				mustBreak(t, body)
			}
		})
	}
}
