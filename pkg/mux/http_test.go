package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// listener makes a session's incoming streams a net.Listener.
type listener struct{ Session }

func (l listener) Accept() (net.Conn, error) { return l.Session.Accept() }
func (l listener) Addr() net.Addr            { return l.RemoteAddr() }

// serveHTTP is the use that this package is made for: the client serves h on
// the streams that the server opens, and the server is the HTTP client.
func serveHTTP(t *testing.T, h http.HandlerFunc) (*http.Client, Session) {
	t.Helper()
	c, s := tcpConns(t)
	client, server := sessions(t, c, s, Config{})
	var open atomic.Int32
	srv := &http.Server{Handler: h, ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(listener{client}) })
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return server.Open(ctx) },
		// net/http's defaults would hide what is tested here.
		DisableCompression:  true,
		MaxIdleConnsPerHost: 100,
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		poll.Until(t, "the HTTP server is done", func() bool { return open.Load() == 0 })
		srv.Close()
		serving.Wait()
	})
	return &http.Client{Transport: transport, Timeout: time.Minute}, client
}

// TestHTTPKeepAlive sends many requests on one stream: net/http's server
// stops its background read with a read deadline after each.
func TestHTTPKeepAlive(t *testing.T) {
	hc, client := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello "+r.URL.Path)
	})
	for i := range 500 {
		res, err := hc.Get(fmt.Sprintf("http://app/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if want := fmt.Sprintf("hello /%d", i); string(b) != want || err != nil {
			t.Fatalf("%q, %v; want %q", b, err, want)
		}
	}
	if n := client.(*session).count(); n != 1 {
		t.Errorf("%d streams for requests one after the other", n)
	}
}

// TestHTTPBodies echoes bodies of many sizes, several at once, on kept streams,
// with and without a length.
func TestHTTPBodies(t *testing.T) {
	hc, _ := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		if r.ContentLength >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
		}
		io.Copy(w, r.Body)
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for _, size := range []int{0, 1, 4095, 70_000, 300_000, 131_072, 131_071, 2_000_000} {
				body := make([]byte, size)
				rand.NewChaCha8([32]byte{byte(i)}).Read(body)
				var r io.Reader = bytes.NewReader(body)
				if i%2 == 0 {
					r = io.MultiReader(r) // without a length
				}
				if err := postEcho(hc, r, body); err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		})
	}
	wg.Wait()
}

func postEcho(hc *http.Client, r io.Reader, want []byte) error {
	res, err := hc.Post("http://app/", "", r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(want); !bytes.Equal(h.Sum(nil), sum[:]) {
		return fmt.Errorf("%d bytes came back, other than the %d that were sent", n, len(want))
	}
	return nil
}

// TestHTTPCancel: a visitor that goes away cancels the handler's context, and
// other requests go on.
func TestHTTPCancel(t *testing.T) {
	started, cancelled := make(chan bool), make(chan bool)
	hc, _ := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			if r.Header.Get("Begin") != "" {
				w.Write([]byte("begins"))
				http.NewResponseController(w).Flush()
			}
			started <- true
			<-r.Context().Done()
			cancelled <- true
			return
		}
		io.Copy(w, r.Body)
	})
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", "http://app/hang", nil)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			r.Header.Set("Begin", "yes")
		}
		go func() {
			<-started
			cancel()
		}()
		res, err := hc.Do(r)
		if err == nil {
			_, err = io.ReadAll(res.Body)
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the cancelled request: %v", err)
		}
		<-cancelled
		if err := postEcho(hc, strings.NewReader("next"), []byte("next")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHTTPEarlyAnswer is R3: a handler that answers without reading the upload.
func TestHTTPEarlyAnswer(t *testing.T) {
	hc, client := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	})
	res, err := hc.Post("http://app/", "", io.LimitReader(zeros{}, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestEntityTooLarge || string(b) != "no\n" || err != nil {
		t.Errorf("%s, %q, %v", res.Status, b, err)
	}
	checkForgotten(t, client)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestHTTPCut is R1: the session dies under an answer whose end only the
// stream's end tells.
func TestHTTPCut(t *testing.T) {
	ends := map[string]func(conn net.Conn, client Session){
		"session": func(_ net.Conn, client Session) { client.Close() },
		"conn":    func(conn net.Conn, _ Session) { conn.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c, s := tcpConns(t)
			client, server := sessions(t, c, s, Config{})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				st, err := client.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(st, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+strings.Repeat("x", 200_000))
				end(c, client)
			}()
			hc := &http.Client{Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return server.Open(ctx) },
			}}
			defer hc.CloseIdleConnections()
			res, err := hc.Get("http://app/")
			if err == nil {
				var b []byte
				b, err = io.ReadAll(res.Body)
				if err == nil {
					t.Errorf("a body of %d bytes that was cut looks complete", len(b))
				}
			}
			<-ended
		})
	}
}
