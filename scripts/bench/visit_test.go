package main

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// serveSecureTest serves h as the app and the hops do, and gives visitors of each version.
func serveSecureTest(t *testing.T, h http.Handler) map[string]guest {
	t.Helper()
	certs := folder(filepath.Join(t.TempDir(), "certs"))
	if err := certs.makeCertificate(); err != nil {
		t.Fatal(err)
	}
	roots, err := certs.roots()
	if err != nil {
		t.Fatal(err)
	}
	s := &rig.Site{Context: t.Context()}
	addr, err := s.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = serveSecure(addr, h, certs) }() // until the test's process ends
	guests := map[string]guest{}
	for _, version := range []string{http1TLS, http2TLS, http3UDP} {
		g := guest{version: version, addr: addr, host: benchHost, roots: roots}
		guests[version] = g
		err := s.Until(patience, 10*time.Millisecond, func() error {
			c, err := g.dial(time.Now().Add(time.Second))
			if err != nil {
				return err
			}
			c.close()
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
	}
	return guests
}

// protoHeader is where an app of these tests says by which version it was asked.
const protoHeader = "Test-Proto"

func TestGuestsSpeakWhatTheRowSays(t *testing.T) {
	app := rig.NewPlainApp()
	protos := make(chan string, 1)
	guests := serveSecureTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.ServerName != benchHost || r.Host != benchHost {
			http.Error(w, "not over TLS, or for somebody else", http.StatusTeapot)
			return
		}
		protos <- r.Proto
		app.ServeHTTP(w, r)
	}))
	for version, proto := range map[string]string{http1TLS: "HTTP/1.1", http2TLS: "HTTP/2.0", http3UDP: "HTTP/3.0"} {
		if err := (anew{guests[version].dial, time.Now().Add(patience)}).small(); err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		if got := <-protos; got != proto {
			t.Errorf("%s: the app was asked by %s", version, got)
		}
		for name, move := range map[string]func(mover) error{"down": mover.down, "up": mover.up} {
			b, err := guests[version].bulk(1<<20+1, patience)
			if err != nil {
				t.Fatalf("%s: %v", version, err)
			}
			if err := move(b); err != nil {
				t.Errorf("%s %s: %v", version, name, err)
			}
			b.close()
			if got := <-protos; got != proto {
				t.Errorf("%s %s: the app was asked by %s", version, name, got)
			}
		}
	}
}

func TestGuestsNoticeWrongAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, rig.Hello)
		},
		"body":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Hello, there!") },
		"longer":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rig.Hello+rig.Hello) },
		"no length": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rig.Hello); w.(http.Flusher).Flush() },
		"cut off":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		for version, g := range serveSecureTest(t, h) {
			if err := (anew{g.dial, time.Now().Add(patience)}).small(); err == nil {
				t.Errorf("%s, %s: no error", name, version)
			}
		}
	}
}

func TestExchangersNoticeWhatIsMissing(t *testing.T) {
	guests := serveSecureTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "17") }))
	for _, version := range []string{http2TLS, http3UDP} {
		for name, move := range map[string]func(mover) error{"down": mover.down, "up": mover.up} {
			b, err := guests[version].bulk(1000, patience)
			if err != nil {
				t.Fatal(err)
			}
			if err := move(b); err == nil {
				t.Errorf("%s %s: no error", version, name)
			}
			b.close()
		}
	}
}

// A proxy that speaks less than it was asked for would make a row measure another one.
func TestExchangerWantsItsVersion(t *testing.T) {
	g := serveSecureTest(t, rig.NewPlainApp())[http2TLS]
	c, err := g.exchanger(time.Now().Add(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.proto = "HTTP/3.0"
	if err := c.small(); err == nil || !strings.Contains(err.Error(), "want 200 by HTTP/3.0") {
		t.Errorf("an answer by HTTP/2 gives %v", err)
	}
}

func TestSecureProxyEndsTLS(t *testing.T) {
	app := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(protoHeader, r.Proto)
		io.WriteString(w, rig.Hello)
	}))
	h, err := proxyHandler("http://"+app, &bufferPool{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for version, g := range serveSecureTest(t, h) {
		if err := (anew{g.dial, time.Now().Add(patience)}).small(); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	x, err := serveSecureTest(t, h)[http3UDP].exchanger(time.Now().Add(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	resp, err := x.ask(http.MethodGet, "/small", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get(protoHeader); got != "HTTP/1.1" {
		t.Errorf("the proxy calls the app by %s", got)
	}
}
